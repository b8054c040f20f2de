package app_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// holder has both ports of BGP and BFD, as a daemon that somebody left on the node.
const holder = `router id 10.9.9.9;
protocol device {}
protocol bfd {}
protocol bgp holder { local as 65999; neighbor 10.1.0.99 as 65998; ipv4 { import all; export none; }; }
`

// TestPortsOfAnotherDaemon has BIRD on the node before the agent: the node is not
// ready, and says which ports and what to change; it is ready once BIRD is gone.
func TestPortsOfAnotherDaemon(t *testing.T) {
	t.Parallel()
	n := newRoutedNode(t, "", 1)
	n.server.MustKubectl(t, "", "annotate", "bgppeers.projectcalico.org", "tor", "muslin.io/bfd=300ms")
	conf := filepath.Join(n.server.Dir, "holder.conf")
	if err := os.WriteFile(conf, []byte(holder), 0o600); err != nil {
		t.Fatal(err)
	}
	bird := n.server.Exec("bird", "-f", "-c", conf, "-s", filepath.Join(n.server.Dir, "holder.ctl"), "-P", filepath.Join(n.server.Dir, "holder.pid"))
	n.start(bird)
	holds := func() bool {
		return strings.Contains(n.inside("ss", "-ltnH"), ":179 ") && strings.Contains(n.inside("ss", "-lunH"), ":3784 ")
	}
	n.await("has another daemon", holds)
	n.startAgent()
	t.Cleanup(n.kill)
	n.await("names port and field", func() bool {
		return strings.Contains(n.problems(), "BGPConfiguration default: spec.listenPort: another process of node bench listens on TCP port 179") &&
			strings.Contains(n.problems(), "UDP port 3784")
	})
	n.await("waits for BGP alone", func() bool {
		w := n.waiting()
		return len(w) == 1 && strings.HasPrefix(w[0], "bgp-sessions: ") && strings.Contains(w[0], "port 179")
	})
	n.await("has the condition", func() bool { return strings.HasPrefix(n.node(problemPath), "True") })
	if got := n.node(`{.status.conditions[?(@.type=="NetworkUnavailable")].status}`); got == "False" {
		t.Error("the node has a network, without BGP")
	}
	_ = bird.Process.Kill()
	_ = bird.Wait()
	n.await("is ready", func() bool { return len(n.waiting()) == 0 })
	n.await("is announced", func() bool { return strings.Contains(n.received(), "10.77.") })
	n.await("has no complaint", func() bool { return n.problems() == "" })
}
