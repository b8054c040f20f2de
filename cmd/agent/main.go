// Command muslin-agent is the daemon of a node: it announces the node's address
// blocks by BGP, installs what it learns as kernel routes, and wires pods.
//
//	muslin-agent            runs the agent (the DaemonSet's container)
//	muslin-agent install    copies the CNI plugin to the node (its init container)
//	muslin-agent uninstall  removes the CNI plugin and its configuration
//	muslin-agent cleanup    removes everything of Muslin's from the node: routes,
//	                        rules, tunnels, CNI files; with --pods the pods' links
//	muslin-agent status     prints the running agent's own view as JSON
//	muslin-agent version
//
// Everything is configured by API objects; the environment holds only what has
// to be known before the API can be reached:
//
//	NODE_NAME          name of this node; required to run
//	KUBECONFIG         kubeconfig file; default: the pod's service account
//	MUSLIN_LOG_LEVEL   debug, info, warn or error; default info
//	MUSLIN_HTTP_ADDR   address of health and metrics; default 127.0.0.1:9109
//	MUSLIN_METRICS_…   who gets /metrics from elsewhere: see package metricsserver
//	MUSLIN_POLICY_RELAY  the file of a token for audience muslin-relay: pods of other
//	                   nodes come from the controller; default: from the API server
//	MUSLIN_METRICS_MESH_PEERS  true: each peer of the mesh has series of its own in
//	                   /metrics; default false: nodes and pods are counted
//	MUSLIN_WITHOUT_CAPABILITIES  those that the container is not granted on purpose,
//	                   as NET_RAW,NET_BIND_SERVICE; default: none
//	MUSLIN_SOCKET      socket of the CNI server; default /run/muslin/agent.sock
//	MUSLIN_PROC_SYS    where sysctls are written; default /host/proc/sys if it
//	                   is there, else /proc/sys
//	MUSLIN_CNI_BIN     default /host/opt/cni/bin
//	MUSLIN_CNI_CONF    default /host/etc/cni/net.d; "none": leave it to others
//	MUSLIN_STATE       what is kept over a restart, /var/lib/muslin if empty; the plugin
//	                   on the host has to find it by the same path
//	MUSLIN_CNI_EXCLUSIVE  true: move CNI configurations that sort before ours away
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/muslin-net/muslin/bgp/gobgp"
	"github.com/muslin-net/muslin/cmd/agent/app"
	"github.com/muslin-net/muslin/pkg/metricsserver"
	"github.com/muslin-net/muslin/pkg/model"
)

var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	verb := "run"
	if len(os.Args) > 1 {
		verb = os.Args[1]
	}
	err := run(ctx, verb, os.Args[min(2, len(os.Args)):])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "muslin-agent:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, verb string, args []string) error {
	cfg, err := config()
	if err != nil {
		return err
	}
	switch verb {
	case "run":
		if cfg.Node == "" {
			return errors.New("NODE_NAME is not set: the DaemonSet takes it from spec.nodeName")
		}
		return app.Run(ctx, cfg)
	case "install":
		return app.Install(ctx, cfg)
	case "uninstall":
		return app.Uninstall(cfg)
	case "cleanup":
		return clean(ctx, cfg, args)
	case "status":
		return status(ctx, cfg.HTTPAddr)
	case "version":
		fmt.Printf("%s, GoBGP %s\n", version, gobgp.Release())
		return nil
	}
	return fmt.Errorf("unknown command %q: want run, install, uninstall, cleanup, status or version", verb)
}

func config() (app.Config, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cmp.Or(os.Getenv("MUSLIN_LOG_LEVEL"), "info"))); err != nil {
		return app.Config{}, fmt.Errorf("MUSLIN_LOG_LEVEL: %w", err)
	}
	conf := cmp.Or(os.Getenv("MUSLIN_CNI_CONF"), "/host/etc/cni/net.d")
	if conf == "none" {
		conf = ""
	}
	exclusive, err := yes("MUSLIN_CNI_EXCLUSIVE")
	if err != nil {
		return app.Config{}, err
	}
	meshPeers, err := yes("MUSLIN_METRICS_MESH_PEERS")
	if err != nil {
		return app.Config{}, err
	}
	metrics, err := metricsserver.Read(os.Getenv)
	if err != nil {
		return app.Config{}, err
	}
	var spool string
	if state := os.Getenv("MUSLIN_STATE"); state != "" {
		if !filepath.IsAbs(state) {
			return app.Config{}, fmt.Errorf("MUSLIN_STATE: %q is no absolute path", state)
		}
		spool = filepath.Join(state, "cni-spool")
	}
	return app.Config{
		Node:                model.NodeName(os.Getenv("NODE_NAME")),
		Kubeconfig:          os.Getenv("KUBECONFIG"),
		Socket:              os.Getenv("MUSLIN_SOCKET"),
		Spool:               spool,
		HTTPAddr:            cmp.Or(os.Getenv("MUSLIN_HTTP_ADDR"), "127.0.0.1:9109"),
		ProcSys:             cmp.Or(os.Getenv("MUSLIN_PROC_SYS"), procSys()),
		CNI:                 app.CNIConfig{BinDir: cmp.Or(os.Getenv("MUSLIN_CNI_BIN"), "/host/opt/cni/bin"), ConfDir: conf, Exclusive: exclusive},
		MeshPeers:           meshPeers,
		Metrics:             metrics,
		RelayToken:          os.Getenv("MUSLIN_POLICY_RELAY"),
		WithoutCapabilities: strings.FieldsFunc(os.Getenv("MUSLIN_WITHOUT_CAPABILITIES"), func(r rune) bool { return r == ',' || unicode.IsSpace(r) }),
		Version:             version,
		Logger:              slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
	}, nil
}

// yes reads a variable that is true or false; false when it is not set.
func yes(name string) (bool, error) {
	is, err := strconv.ParseBool(cmp.Or(os.Getenv(name), "false"))
	if err != nil {
		return false, fmt.Errorf("%s: %q is neither true nor false", name, os.Getenv(name))
	}
	return is, nil
}

func clean(ctx context.Context, cfg app.Config, args []string) error {
	flags := flag.NewFlagSet("cleanup", flag.ContinueOnError)
	pods := flags.Bool("pods", false, "remove the links of all pods, too: those that run lose their network")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("cleanup: %w", err)
	}
	removed, err := app.Cleanup(ctx, cfg, *pods)
	if !errors.Is(err, app.ErrServing) {
		fmt.Print(removed)
	}
	return err
}

// procSys prefers the mount that the DaemonSet makes: a container's own
// /proc/sys is read-only.
func procSys() string {
	const mounted = "/host/proc/sys"
	if _, err := os.Stat(mounted + "/net"); err == nil {
		return mounted
	}
	return "/proc/sys"
}

func status(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/status", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("the agent does not answer (is it running on this node?): %w", err)
	}
	defer resp.Body.Close()
	_, err = io.Copy(os.Stdout, resp.Body)
	return err
}
