package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/muslin-net/muslin/hack/lab"
	"github.com/muslin-net/muslin/hack/lab/topology"
)

// restarts is how often an agent is killed under traffic.
const restarts = 10

// TestCluster is one story told on one cluster: bring it up and look at it, then
// hurt it in the ways it must survive.
func TestCluster(t *testing.T) {
	tell(t, "mtest", []part{
		{"report", story.reportIsComplete},
		{"path", story.pathIsRouted},
		{"blocks", story.routersSeeBlocks},
		{"bad objects", story.badObjects},
		{"bad pods", story.badPodsSayWhy},
		{"host port", story.hostPort},
		{"network policy", story.networkPolicy},
		{"encapsulation", story.encapsulation},
		{"without BGP", story.withoutBGP},
		{"restarts", story.agentRestarts},
		{"power", story.powerCut},
	})
}

// TestOperator is the story of one who works with muslinctl: finds what is
// broken and looks before leaping.
func TestOperator(t *testing.T) {
	tell(t, "mops", []part{
		{"faults are named", story.faultsAreNamed},
		{"previews come true", story.previewsComeTrue},
		{"verbs on nodes", story.verbsOnNodes},
	})
}

// TestInstallation is the story of one who installs: hands the installation
// over to Helm, cleans a node, and takes everything away in the end.
func TestInstallation(t *testing.T) {
	tell(t, "minst", []part{
		{"by Helm", story.byHelm},
		{"node cleaned up", story.nodeCleanedUp},
		{"uninstall", story.uninstall},
	})
}

// part is a chapter of a story.
type part struct {
	name string
	do   func(story, *testing.T, context.Context)
}

// tell brings a cluster up by the main job and plays the parts on it in order;
// each leaves the cluster as it found it.
func tell(t *testing.T, name string, parts []part) {
	t.Parallel() // mostly waits; beside other labs
	ctx, cancel := context.WithTimeout(t.Context(), Timeout)
	defer cancel()
	source, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	options := lab.Options{Name: name}
	clean := func() {
		if err := lab.Down(context.WithoutCancel(ctx), options); err != nil {
			t.Errorf("lab down: %v", err)
		}
	}
	clean()
	t.Cleanup(clean)
	c, report, err := MainJob(ctx, MainJobOptions{
		Lab: options, Topology: filepath.Join(source, "hack/lab/topologies/two-racks.yaml"), Source: source, Out: os.Stdout,
	})
	t.Log(report)
	if err != nil {
		t.Fatal(err)
	}
	s := story{Cluster: c, report: report}
	for _, p := range parts {
		t.Run(p.name, func(t *testing.T) { p.do(s, t, ctx) })
	}
}

type story struct {
	*Cluster
	report *Report
}

// reportIsComplete: 8 pods on 4 nodes, every kind of connection tried, a size
// of the image within its bound.
func (s story) reportIsComplete(t *testing.T, _ context.Context) {
	perNode := map[string]int{}
	for _, p := range s.report.Pods {
		perNode[p.Node]++
	}
	if len(s.report.Pods) != 8 || len(perNode) != 4 {
		t.Errorf("%d pods on %d nodes, want 8 on 4", len(s.report.Pods), len(perNode))
	}
	kinds := map[string]bool{}
	for _, try := range s.report.Tries {
		kinds[try.Kind] = true
	}
	if len(kinds) != 8 {
		t.Errorf("the matrix has %d kinds of connections, want 8: %v", len(kinds), kinds)
	}
	if mb := float64(s.report.Image.Compressed) / 1e6; mb > 35 {
		t.Errorf("image is %.1f MB compressed, bound is 35", mb)
	}
}

// pathIsRouted: node, router, router, node, pod, each once.
func (s story) pathIsRouted(t *testing.T, _ context.Context) {
	from, to := acrossRacks(s.Cluster, s.report.Pods)
	rackFrom, rackTo := s.rackOf(from.Node), s.rackOf(to.Node)
	want := []netip.Addr{s.nodeAddr(from.Node), rackFrom.Gateway.V4, s.router(rackTo.Router).Core.V4, s.nodeAddr(to.Node), to.IP}
	lines := strings.Split(strings.TrimSpace(s.report.Trace), "\n")[1:]
	if len(lines) != len(want) {
		t.Fatalf("%d hops, want %d:\n%s", len(lines), len(want), s.report.Trace)
	}
	for i, w := range want {
		if !strings.Contains(lines[i], w.String()) {
			t.Errorf("hop %d is %q, want %s", i+1, lines[i], w)
		}
	}
}

func (s story) rackOf(node string) topology.Rack {
	for _, r := range s.Topology().Racks {
		if r.Name == s.rack(node) {
			return r
		}
	}
	return topology.Rack{}
}

func (s story) router(name string) topology.Router {
	for _, r := range s.Topology().Routers {
		if r.Name == name {
			return r
		}
	}
	return topology.Router{}
}

// routersSeeBlocks: a router's kernel has one route a block of its cluster and
// none for a pod, and every node has every other node's blocks by the right
// next hop.
func (s story) routersSeeBlocks(t *testing.T, ctx context.Context) {
	blocks := s.blocks(t, ctx)
	for _, r := range s.Topology().Routers {
		s.wantBlocks(t, r.Name, blocks, func(node string) netip.Addr {
			if rack := s.rackOf(node); rack.Router != r.Name {
				return s.router(rack.Router).Core.V4
			}
			return s.nodeAddr(node)
		}, "")
	}
	for _, n := range s.FullNodes() {
		s.wantBlocks(t, n, blocks, func(node string) netip.Addr {
			if s.rack(node) == s.rack(n) {
				return s.nodeAddr(node)
			}
			return s.rackOf(n).Gateway.V4
		}, n)
	}
}

// blocks maps each confirmed block to its node.
func (s story) blocks(t *testing.T, ctx context.Context) map[netip.Prefix]string {
	t.Helper()
	blocks := map[netip.Prefix]string{}
	for _, n := range s.FullNodes() {
		status, err := s.Agent(ctx, n)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range status.Blocks {
			blocks[b.CIDR] = n
		}
	}
	if len(blocks) < len(s.FullNodes()) {
		t.Fatalf("%d blocks for %d nodes: %v", len(blocks), len(s.FullNodes()), blocks)
	}
	return blocks
}

var pods = netip.MustParsePrefix("10.244.0.0/16")

func (s story) wantBlocks(t *testing.T, machine string, blocks map[netip.Prefix]string, via func(node string) netip.Addr, self string) {
	t.Helper()
	routes, err := s.Fabric.Routes(machine)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[netip.Prefix]bool{}
	for _, r := range routes {
		if !pods.Contains(r.To.Addr()) || !r.Via.IsValid() {
			continue // pods of this node, and its own blocks' blackholes
		}
		owner, known := blocks[r.To]
		switch {
		case !known:
			t.Errorf("%s: route to %s is no block", machine, r.To)
		case r.Via != via(owner):
			t.Errorf("%s: block %s of %s is via %s, want %s", machine, r.To, owner, r.Via, via(owner))
		case self != "" && r.Protocol != 109:
			t.Errorf("%s: route to %s has protocol %d", machine, r.To, r.Protocol)
		}
		seen[r.To] = true
	}
	for b, owner := range blocks {
		if owner != self && !seen[b] {
			t.Errorf("%s: no route to block %s of %s", machine, b, owner)
		}
	}
}

// agentRestarts: kill -9 of the agent under a ping of 100 packets a second
// across racks, again and again: nothing is lost, and no route is touched.
func (s story) agentRestarts(t *testing.T, ctx context.Context) {
	from, to := acrossRacks(s.Cluster, s.report.Pods)
	monitor := s.monitorRoutes(t, ctx, from.Node)
	ping := s.startPing(t, ctx, from, to)
	for i := range restarts {
		pid := s.agentPID(t, ctx, from.Node)
		if _, err := s.Machine(from.Node).Exec(ctx, "kill", "-9", pid); err != nil {
			t.Fatal(err)
		}
		err := s.eventually(ctx, 2*time.Minute, func() error {
			if now, err := s.findAgent(ctx, from.Node); err != nil || now == pid {
				return fmt.Errorf("kill %d: agent not back: %s: %w", i+1, now, err)
			}
			return s.sessionsUp(ctx, from.Node)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	result := ping()
	t.Logf("%d kills: %d sent, %d lost, longest %.1f ms", restarts, result.Sent, result.Lost, result.MaxMs)
	if result.Lost != 0 || result.Failed != 0 || result.Sent < 100*restarts {
		t.Errorf("ping: %+v, want none lost", result)
	}
	if lines := monitor(); len(lines) > 0 {
		t.Errorf("routes were touched:\n%s", strings.Join(lines, "\n"))
	}
}

// encapsulation: the pool changes from no tunnel to VXLAN across subnets, to
// VXLAN always, and back, under traffic between racks; nothing is lost.
func (s story) encapsulation(t *testing.T, ctx context.Context) {
	from, to := acrossRacks(s.Cluster, s.report.Pods)
	neighbour := s.report.Pods[0]
	for _, p := range s.report.Pods {
		if p.Node != from.Node && s.rack(p.Node) == s.rack(from.Node) {
			neighbour = p
		}
	}
	ping := s.startPing(t, ctx, from, to)
	near := s.startPing(t, ctx, from, neighbour)
	for _, step := range []struct {
		mode               string
		farDevice, nearDev string
	}{
		{"CrossSubnet", "vxlan.calico", "eth0"},
		{"Always", "vxlan.calico", "vxlan.calico"},
		{"Never", "eth0", "eth0"},
	} {
		s.setVXLAN(t, ctx, step.mode)
		if err := s.eventually(ctx, time.Minute, func() error {
			for _, node := range []string{from.Node, to.Node} {
				peer, dev := to, step.farDevice
				if node == to.Node {
					peer = from
				}
				if err := s.leavesBy(ctx, node, peer.IP, dev); err != nil {
					return err
				}
			}
			return s.leavesBy(ctx, from.Node, neighbour.IP, step.nearDev)
		}); err != nil {
			t.Fatalf("vxlanMode %s: %v", step.mode, err)
		}
	}
	for name, stop := range map[string]func() pingResult{"other rack": ping, "same rack": near} {
		r := stop()
		t.Logf("%s: %d sent, %d lost, longest %.1f ms", name, r.Sent, r.Lost, r.MaxMs)
		if r.Lost != 0 || r.Failed != 0 || r.Sent == 0 {
			t.Errorf("%s: %+v, want none lost", name, r)
		}
	}
}

func (s story) setVXLAN(t *testing.T, ctx context.Context, mode string) {
	t.Helper()
	if _, err := s.Kubectl(ctx, "", "patch", "ippool.projectcalico.org", "default-ipv4-ippool", "--type=merge", "-p", `{"spec":{"vxlanMode":"`+mode+`"}}`); err != nil {
		t.Fatal(err)
	}
}

// leavesBy tells whether a node sends to an address by a device.
func (s story) leavesBy(ctx context.Context, node string, to netip.Addr, device string) error {
	out, err := s.Machine(node).Exec(ctx, "ip", "route", "get", to.String())
	if err != nil {
		return err
	}
	if !strings.Contains(string(out), " dev "+device+" ") {
		return fmt.Errorf("%s: %s", node, strings.TrimSpace(string(out)))
	}
	return nil
}

func (s story) sessionsUp(ctx context.Context, node string) error {
	status, err := s.Agent(ctx, node)
	if err != nil {
		return err
	}
	if len(status.Waiting) > 0 || len(status.Peers) != s.families()*len(s.FullNodes()) {
		return fmt.Errorf("agent waits for %q, %d peers", status.Waiting, len(status.Peers))
	}
	for _, p := range status.Peers {
		if p.State != "Established" {
			return fmt.Errorf("session with %s is %s", p.Address, p.State)
		}
	}
	return nil
}

func (s story) agentPID(t *testing.T, ctx context.Context, node string) string {
	t.Helper()
	pid, err := s.findAgent(ctx, node)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func (s story) findAgent(ctx context.Context, node string) (string, error) {
	out, err := s.Machine(node).Exec(ctx, "pgrep", "-o", "-f", "^/usr/bin/muslin-agent( run)?$")
	return strings.TrimSpace(string(out)), err
}

// monitorRoutes watches a node's route changes of protocol 109 and returns a
// function that ends the watch and gives its lines.
func (s story) monitorRoutes(t *testing.T, ctx context.Context, node string) func() []string {
	t.Helper()
	var out strings.Builder
	cmd := s.Machine(node).Command(ctx, "ip", "monitor", "route")
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond) // until it listens
	return func() []string {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		var ours []string
		for line := range strings.Lines(out.String()) {
			if strings.Contains(line, "proto 109") {
				ours = append(ours, strings.TrimSpace(line))
			}
		}
		return ours
	}
}

type pingResult struct {
	Sent, Received, Lost, Failed int
	MaxMs                        float64
}

// startPing pings at 100 packets a second from a pod until the returned
// function is called.
func (s story) startPing(t *testing.T, ctx context.Context, from, to Pod) func() pingResult {
	t.Helper()
	return s.pingFrom(t, ctx, from.Node, s.podNetns(t, ctx, from), to.IP.String())
}

// pingFrom pings at 100 packets a second from a network namespace of a machine,
// its own when none is named, until the returned function is called.
func (c *Cluster) pingFrom(t *testing.T, ctx context.Context, machine, netns, target string) func() pingResult {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	t.Cleanup(cancel)
	argv := []string{"probe", "ping", "-i", "10ms", target}
	if netns != "" {
		argv = append([]string{"ip", "netns", "exec", netns}, argv...)
	}
	var out, errs strings.Builder
	cmd := c.Machine(machine).Command(ctx, argv...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() pingResult {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		var r pingResult
		if err := json.Unmarshal([]byte(out.String()), &r); err != nil {
			t.Fatalf("ping said %q, %q: %v", out.String(), errs.String(), err)
		}
		return r
	}
}

// podNetns names the network namespace of a pod on its node.
func (s story) podNetns(t *testing.T, ctx context.Context, p Pod) string {
	t.Helper()
	out, err := s.Machine(p.Node).Exec(ctx, "sh", "-c", "for n in $(ls /run/netns); do ip -n $n -o addr | grep -q ' "+p.IP.String()+"/32 ' && echo $n; done; true")
	if err != nil || len(out) == 0 {
		t.Fatalf("no network namespace with %s on %s: %v", p.IP, p.Node, err)
	}
	return strings.TrimSpace(string(out))
}

// shortHold has the sessions of a node with the others begin anew with a hold time that
// is worth waiting for.
func (s story) shortHold(t *testing.T, ctx context.Context, node string) {
	t.Helper()
	const short = `apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default, annotations: {muslin.io/hold-time: 15s}}
spec: {asNumber: 64512}
`
	s.kubectlOK(t, ctx, short, "apply", "-f", "-")
	t.Cleanup(func() { s.kubectlOK(t, ctx, short, "delete", "-f", "-") })
	pid := s.agentPID(t, ctx, node)
	if _, err := s.Machine(node).Exec(ctx, "kill", "-9", pid); err != nil {
		t.Fatal(err)
	}
	if err := s.eventually(ctx, 2*time.Minute, func() error {
		if now, err := s.findAgent(ctx, node); err != nil || now == pid {
			return fmt.Errorf("agent not back: %s: %w", now, err)
		}
		return s.sessionsUp(ctx, node)
	}); err != nil {
		t.Fatal(err)
	}
}

// powerCut: a node loses power; its blocks leave the others' tables. Power is
// back: the blocks return, and so do its pods.
func (s story) powerCut(t *testing.T, ctx context.Context) {
	const victim, witness = "n4", "n1"
	blocks := s.blocks(t, ctx)
	has := func() error {
		routes, err := s.Fabric.Routes(witness)
		if err != nil {
			return err
		}
		for _, r := range routes {
			if blocks[r.To] == victim {
				return nil
			}
		}
		return fmt.Errorf("%s has no block of %s", witness, victim)
	}
	hasNot := func() error {
		if has() == nil {
			return fmt.Errorf("%s still has a block of %s", witness, victim)
		}
		return nil
	}
	if err := has(); err != nil {
		t.Fatal(err)
	}
	s.shortHold(t, ctx, victim)
	if err := s.Machine(victim).PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := s.eventually(ctx, 4*time.Minute, hasNot); err != nil {
		t.Fatal(err)
	}
	t.Logf("blocks of %s left %s after %s", victim, witness, time.Since(began).Round(time.Second))
	if err := s.Machine(victim).PowerOn(ctx); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	if err := s.eventually(ctx, 3*time.Minute, has); err != nil {
		t.Fatal(err)
	}
	t.Logf("blocks of %s are back after %s", victim, time.Since(began).Round(time.Second))
	if err := s.eventually(ctx, 3*time.Minute, func() error {
		pods, err := s.Pods(ctx)
		if err != nil {
			return err
		}
		if len(pods) != 8 {
			return fmt.Errorf("%d pods are ready, want 8", len(pods))
		}
		tries, err := s.Matrix(ctx, pods)
		if err != nil {
			return err
		}
		return failedTries(tries)
	}); err != nil {
		t.Fatal(err)
	}
}
