// Command muslin is the CNI plugin. It hands what the runtime gave it to the
// agent of this node, over a unix socket, and prints the answer.
//
// It speaks CNI 0.3.1 to 1.1.0: ADD, DEL, CHECK, STATUS, GC and VERSION. It holds
// no token, opens no netlink socket and knows nothing of Kubernetes. It is
// started for every pod, twice, so it links no more than that takes: what fmt,
// net, encoding/json and CNI's own skeleton set up before main begins costs more
// than all that it has to do. What the skeleton checks is in runtime.go.
//
// Its own keys of the network configuration, both optional:
//
//	socket  the agent's socket (/run/muslin/agent.sock)
//	spool   where a DEL is recorded while the agent is away
//	        (/var/lib/muslin/cni-spool)
//
// Kernel footprint: one connection to the socket; with the agent away, one file
// for a DEL (see package spool). Everything else is the agent's.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/muslin-net/muslin/pkg/cnirpc/client"
	"github.com/muslin-net/muslin/pkg/cnirpc/spool"
)

// version is set by the linker.
var version = "dev"

// timeout bounds a call: a runtime that gives up earlier kills the plugin, and
// the agent sees the connection close.
const timeout = time.Minute

func main() {
	out, err := run(os.Getenv, os.Stdin)
	if err != nil {
		out = printed(err)
	}
	if _, writeErr := os.Stdout.Write(out); writeErr != nil {
		_, _ = os.Stderr.WriteString("muslin: print result: " + writeErr.Error() + "\n")
		os.Exit(1)
	}
	if err != nil {
		os.Exit(1)
	}
}

// run does what the runtime asks for and returns what goes to standard output.
func run(getenv func(string) string, stdin io.Reader) ([]byte, error) {
	verb := getenv("CNI_COMMAND")
	switch verb {
	case "":
		_, err := os.Stderr.WriteString("CNI plugin muslin " + version + "\nCNI protocol versions supported: " + versionList(", ") + "\n")
		return nil, err
	case "VERSION":
		return versionResult(), nil
	}
	c, err := read(verb, getenv, stdin)
	if err != nil {
		return nil, err
	}
	out, err := call(c)
	switch {
	case err == nil && verb == "ADD":
		return out, nil
	case err != nil && verb == "DEL":
		err = record(c, err)
	}
	return nil, explain(c, err)
}

func call(c request) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return client.Call(ctx, c.socket, c.verb, c.Request)
}

// record writes a DEL down when the agent is away, and the runtime may forget
// the pod. A slow agent is not away: the runtime asks again.
func record(c request, err error) error {
	var away *client.Unavailable
	if !errors.As(err, &away) {
		return err
	}
	_, recordErr := spool.Write(c.spool, c.Request)
	if recordErr == nil {
		return nil
	}
	return errors.Join(err, recordErr)
}

// explain keeps the agent's own errors and turns its silence into one that says
// what to look at.
func explain(c request, err error) error {
	var said *client.Error
	if err == nil || errors.As(err, &said) {
		return err
	}
	code := codeTryAgainLater
	if c.verb == client.Status {
		code = codePluginNotAvailable // the code that STATUS has for it
	}
	return &client.Error{Code: code, Msg: err.Error(), Details: "is the muslin-agent pod of this node running, and does it serve " +
		c.socket + "? See: kubectl -n muslin-system get pods -o wide"}
}
