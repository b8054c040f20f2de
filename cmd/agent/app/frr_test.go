package app_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const frrPeer = `apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: frr}
spec: {peerIP: 10.2.0.254, asNumber: 65002, sourceAddress: None}
`

const frrConf = `log file bgpd.log
router bgp 65002
 bgp router-id 10.2.0.254
 no bgp ebgp-requires-policy
 neighbor 10.2.0.1 remote-as 64512
 neighbor 10.2.0.1 timers connect 1
 neighbor 10.2.0.1 advertisement-interval 0
`

// frr is FRR as a second router of a node, on a link of its own.
type frr struct {
	n   *crowdedNode
	dir string
}

// startFRR joins a namespace with FRR's bgpd in it to the node, which peers with it.
func (n *crowdedNode) startFRR() frr {
	n.t.Helper()
	f := frr{n, n.t.TempDir()}
	rack := n.server.Netns + "-frr"
	n.run(exec.Command("ip", "netns", "add", rack))
	n.t.Cleanup(func() { n.run(exec.Command("ip", "netns", "del", rack)) })
	n.inside("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth0", "netns", rack)
	n.inside("ip", "addr", "add", "10.2.0.1/24", "dev", "eth1")
	n.inside("ip", "link", "set", "eth1", "up")
	n.run(exec.Command("ip", "-n", rack, "addr", "add", "10.2.0.254/24", "dev", "eth0"))
	n.run(exec.Command("ip", "-n", rack, "link", "set", "eth0", "up"))
	if err := os.WriteFile(filepath.Join(f.dir, "bgpd.conf"), []byte(frrConf), 0o600); err != nil {
		n.t.Fatal(err)
	}
	bgpd := exec.Command("ip", "netns", "exec", rack, "/usr/lib/frr/bgpd", "-S", "-n", "-P", "0", "-f", "bgpd.conf", "-i", "bgpd.pid", "-z", "zserv.api", "--vty_socket", f.dir)
	bgpd.Dir = f.dir
	n.start(bgpd)
	n.server.MustKubectl(n.t, frrPeer, "apply", "-f", "-")
	n.await("has a session with FRR", func() bool { return len(f.received()) > 0 })
	return f
}

// received are the prefixes that FRR has of the node.
func (f frr) received() (list []string) {
	f.n.t.Helper()
	out, err := exec.Command("vtysh", "--vty_socket", f.dir, "-d", "bgpd", "-c", "show bgp ipv4 unicast neighbors 10.2.0.1 routes json").CombinedOutput()
	if err != nil {
		return nil // it does not listen yet
	}
	var table struct{ Routes map[string]any }
	if err := json.Unmarshal(out, &table); err != nil {
		f.n.t.Fatalf("%v: %s", err, out)
	}
	for p := range table.Routes {
		list = append(list, p)
	}
	slices.Sort(list)
	return list
}

// TestServicesAtFRR: as TestServicesAtTheRouter, one address after the other, with FRR and
// BIRD beside each other: both see each address come and go.
func TestServicesAtFRR(t *testing.T) {
	t.Parallel()
	n := newBalancedNode(t)
	f := n.startFRR()
	bird := func() (list []string) {
		list = slices.DeleteFunc(n.received(), func(p string) bool { return !strings.HasPrefix(p, "203.0.113.") })
		slices.Sort(list)
		return list
	}
	services := func() (list []string) {
		return slices.DeleteFunc(f.received(), func(p string) bool { return !strings.HasPrefix(p, "203.0.113.") })
	}
	n.await("announces the range to FRR", func() bool { return slices.Equal(services(), []string{"203.0.113.0/24"}) })
	const count = 8
	var slowest [2]time.Duration
	step := func(what int, do func(int), i, want int) {
		began := time.Now()
		do(i)
		n.await(fmt.Sprintf("announces %d addresses to both", want), func() bool { return len(services()) == want+1 && slices.Equal(bird(), services()) })
		slowest[what] = max(slowest[what], time.Since(began))
	}
	for i := range count {
		step(0, n.create, i, i+1)
	}
	for i := range count {
		step(1, n.delete, i, count-i-1)
	}
	t.Logf("at both routers after %s at the most, and gone after %s", slowest[0], slowest[1])
}
