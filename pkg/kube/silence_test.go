package kube_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

// TestSilentServerIsTold: while the server does not answer, or not for a kind whose
// CRD was taken away, there is one problem that says since when and why, and one
// line of the log; when it answers again there is no problem.
func TestSilentServerIsTold(t *testing.T) {
	t.Parallel()
	own := kubetest.StartWithCRDs(t)
	var log logged
	c, err := kube.New(own.Config(), kube.Options{Node: "n1", Blocks: kube.OwnBlocks, Policy: true, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = c.Run(ctx) })
	defer running.Wait()
	defer cancel()
	announced := func(what ...string) func() string {
		return func() string {
			got := fmt.Sprint(c.Problems())
			for _, word := range what {
				if !strings.Contains(got, word) {
					return fmt.Sprintf("problems are %s, want one of %q", got, word)
				}
			}
			if len(what) == 0 && got != "[]" {
				return "problems are " + got
			}
			return ""
		}
	}
	<-c.Ready()
	eventually(t, c, announced())
	own.Kill()
	eventually(t, c, announced("Node n1: since 20", "gives no ", "nodes", "ippools", "refused"))
	own.Restart(t)
	eventually(t, c, announced())
	if got := log.count("does not answer"); got != 1 {
		t.Errorf("the log says %d times that the server does not answer, want once", got)
	}
	own.MustKubectl(t, "", "delete", "crd", "bgppeers.projectcalico.org")
	eventually(t, c, announced("bgppeers", "could not find the requested resource"))
	own.InstallCRDs(t)
	eventually(t, c, announced())
	if log.count("level=ERROR") > 0 {
		t.Errorf("errors are logged:\n%s", log.text.String())
	}
}

// logged is a log to be looked at while it is written.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

// TestServerThatDoesNotHear: where packets to the server are lost it is told, too,
// and not after minutes: client-go takes a watch that times out for one without events.
func TestServerThatDoesNotHear(t *testing.T) {
	t.Parallel()
	own := kubetest.StartWithCRDs(t)
	config := own.Config()
	var mu sync.Mutex
	var open []net.Conn
	config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		conn, err := own.Dial(ctx, network, address)
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			open = append(open, conn)
		}
		return conn, err
	}
	c := watchAs(t, config, kube.Options{Node: "n1"})
	nft := func(command string) {
		t.Helper()
		if out, err := own.Exec("nft", command).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	nft("table inet loss { chain in { type filter hook input priority 0; tcp dport 6443 drop; }; }")
	mu.Lock()
	for _, conn := range open {
		_ = conn.Close()
	}
	mu.Unlock()
	eventually(t, c, func() string {
		if got := fmt.Sprint(c.Problems()); !strings.Contains(got, "gives no ") {
			return "problems are " + got
		}
		return ""
	})
	nft("delete table inet loss")
	eventually(t, c, func() string {
		if got := c.Problems(); len(got) != 0 {
			return fmt.Sprint("problems are ", got)
		}
		return ""
	})
}
