package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/muslin-net/muslin/hack/lab/topology"
)

// redundant is what TestTwoRoutersARack tells in chapters.
type redundant struct {
	*LightCluster
	pods    map[string]netip.Addr // by node
	without time.Duration         // how long traffic stood still when a router died unwatched
}

// TestTwoRoutersARack: racks with two routers each, one BIRD and one FRR. Both
// carry traffic; the agent is restarted, killed and upgraded, and told of many
// changes; a router is lost, unwatched, watched by BFD, and after it was drained.
// Four agents.
func TestTwoRoutersARack(t *testing.T) {
	t.Parallel() // mostly waits; beside other labs
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	c := lightCluster(t, ctx, "bgplab", "../lab/topologies/two-routers.yaml")
	r := &redundant{LightCluster: c, pods: map[string]netip.Addr{}}
	r.kubectl(t, ctx, r.secondPeers(), "apply", "-f", "-")
	if err := c.StartAgents(); err != nil {
		t.Fatal(err)
	}
	r.await(t, ctx, "agents", func() error { return r.ready(ctx) })
	tellChapters(t, ctx, []chapter{
		{"both routers carry", r.bothCarry}, {"agent restarts", r.agentRestarts}, {"many changes", r.manyChanges},
		{"router dies unwatched", r.diesUnwatched}, {"router dies watched", r.diesWatched},
		{"router drained first", r.drainedFirst},
	})
}

// ready: no agent waits for anything.
func (r *redundant) ready(ctx context.Context) error {
	for _, n := range r.Topology().Nodes {
		out, err := r.Machine(n.Name).Exec(ctx, filepath.Join(r.bin, "muslin-agent"), "status")
		if err != nil {
			return err
		}
		var s AgentStatus
		if err := json.Unmarshal(out, &s); err != nil {
			return err
		}
		if len(s.Waiting) > 0 {
			return fmt.Errorf("agent of %s waits for %v", n.Name, s.Waiting)
		}
	}
	return nil
}

// secondPeers has a BGPPeer for each rack's second router.
func (r *redundant) secondPeers() string {
	var docs []string
	for _, rack := range r.Topology().Racks {
		docs = append(docs, fmt.Sprintf(`apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: second-%s}
spec: {peerIP: %q, asNumber: %d, nodeSelector: "rack == '%s'"}
`, rack.Name, rack.SecondGateway.V4, r.Topology().Router(rack.Second).AS, rack.Name))
	}
	return strings.Join(docs, "---\n")
}

// path is one direction of traffic across racks: over the second router of the
// sender's rack, which is the one that dies.
type path struct {
	from, to, router string
	second           netip.Addr // that router's address in the sender's rack
}

// paths: the second router of r1 is FRR, that of r2 BIRD.
func (r *redundant) paths() []path {
	out := []path{{from: "a1", to: "b1"}, {from: "b1", to: "a1"}}
	for i := range out {
		n, _ := r.Topology().Node(out[i].from)
		rack := r.Topology().Rack(n.Rack)
		out[i].router, out[i].second = rack.Second, rack.SecondGateway.V4
	}
	return out
}

// gateways are the next hops that a node's kernel has for another node's pod.
func (r *redundant) gateways(ctx context.Context, node string, pod netip.Addr) ([]string, error) {
	out, err := r.Machine(node).Exec(ctx, "ip", "-json", "route", "show", "match", pod.String())
	if err != nil {
		return nil, err
	}
	var routes []struct {
		Dst, Gateway string
		Nexthops     []struct{ Gateway string }
	}
	if err := json.Unmarshal(out, &routes); err != nil {
		return nil, fmt.Errorf("read %q: %w", out, err)
	}
	var found []string
	for _, route := range routes {
		if route.Dst == "default" {
			continue
		}
		if route.Gateway != "" {
			found = append(found, route.Gateway)
		}
		for _, h := range route.Nexthops {
			found = append(found, h.Gateway)
		}
	}
	slices.Sort(found)
	return found, nil
}

// await waits for something to be true of the cluster, with a bound that only
// ends what will never come.
func (r *redundant) await(t *testing.T, ctx context.Context, what string, check func() error) {
	t.Helper()
	if err := r.eventually(ctx, 90*time.Second, check); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// awaitPath waits until the sender's kernel does or does not use the second
// router, beside the first.
func (r *redundant) awaitPath(t *testing.T, ctx context.Context, w path, both bool) {
	t.Helper()
	want := 1
	if both {
		want = 2
	}
	r.await(t, ctx, fmt.Sprintf("%s to %s by %d routers", w.from, w.to, want), func() error {
		got, err := r.gateways(ctx, w.from, r.pods[w.to])
		if err != nil {
			return err
		}
		if len(got) != want || slices.Contains(got, w.second.String()) != both {
			return fmt.Errorf("next hops %v", got)
		}
		return nil
	})
}

// awaitForwarding waits until the second router's kernel has what it announces:
// routers that have just started announce it before.
func (r *redundant) awaitForwarding(t *testing.T, ctx context.Context, w path) {
	t.Helper()
	r.await(t, ctx, w.router+" forwards", func() error {
		next, err := r.gateways(ctx, w.router, r.pods[w.to])
		if err == nil && len(next) == 0 {
			err = fmt.Errorf("no route to %s", r.pods[w.to])
		}
		return err
	})
}

// bothCarry: the kernel balances over both routers, for blocks and for flows.
func (r *redundant) bothCarry(t *testing.T, ctx context.Context) {
	for _, node := range []string{"a1", "b1"} {
		// flows of one pair of pods are told apart by their ports
		if _, err := r.Machine(node).Exec(ctx, "sysctl", "-qw", "net.ipv4.fib_multipath_hash_policy=1"); err != nil {
			t.Fatal(err)
		}
		pod, err := r.AddLightPod(ctx, node, "pod-"+node)
		if err != nil {
			t.Fatal(err)
		}
		r.pods[node] = pod
	}
	for _, w := range r.paths() {
		r.awaitPath(t, ctx, w, true)
		before := r.forwarded(t, ctx, w)
		result := r.stream(t, ctx, w)
		time.Sleep(time.Second) // of traffic
		sent, got := result()
		carried := r.forwarded(t, ctx, w) - before
		t.Logf("%s to %s: %d sent, %d received, %d by way of %s", w.from, w.to, sent.Sent, got.Received, carried, w.router)
		if got.Received != sent.Sent || sent.Failed != 0 || carried < sent.Sent/10 || carried > sent.Sent*9/10 {
			t.Errorf("want nothing lost and a share over each router")
		}
	}
}

// forwarded counts the packets that the second router has sent to the core.
func (r *redundant) forwarded(t *testing.T, ctx context.Context, w path) int {
	t.Helper()
	out, err := r.Machine(w.router).Exec(ctx, "cat", "/sys/class/net/core/statistics/tx_packets")
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if _, err := fmt.Sscan(string(out), &n); err != nil {
		t.Fatal(err)
	}
	return n
}

type streamed struct{ Sent, Failed int }

type sunk struct {
	Received, Flows int
	LongestGapMs    float64
}

func (s sunk) gap() time.Duration { return time.Duration(s.LongestGapMs * float64(time.Millisecond)) }

// stream sends 1,000 packets a second from pod to pod in 16 flows, counted on
// both ends, until the returned function is called.
func (r *redundant) stream(t *testing.T, ctx context.Context, w path) func() (streamed, sunk) {
	t.Helper()
	const port = "9000"
	in := func(node string, argv ...string) (func(any), error) {
		var out strings.Builder
		cmd := r.Machine(node).Command(ctx, append([]string{"ip", "netns", "exec", "default-pod-" + node, "probe"}, argv...)...)
		cmd.Stdout, cmd.Stderr = &out, os.Stderr
		return func(result any) {
			t.Helper()
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait()
			if err := json.Unmarshal([]byte(out.String()), result); err != nil {
				t.Fatalf("probe %v said %q: %v", argv, out.String(), err)
			}
		}, cmd.Start()
	}
	sink, err := in(w.to, "sink", "-port", port)
	if err != nil {
		t.Fatal(err)
	}
	r.await(t, ctx, "sink listens", func() error {
		out, err := r.Pod(w.to, "default", "pod-"+w.to).Exec(ctx, "ss", "-lunH")
		if err == nil && !strings.Contains(string(out), ":"+port) {
			err = fmt.Errorf("sockets: %s", out)
		}
		return err
	})
	source, err := in(w.from, "stream", netip.AddrPortFrom(r.pods[w.to], 9000).String())
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond) // of traffic before anything happens
	return func() (s streamed, g sunk) {
		t.Helper()
		source(&s)
		time.Sleep(200 * time.Millisecond) // for what is on its way
		sink(&g)
		return s, g
	}
}

// loseRouter pulls the cables of the second router under traffic, so that nobody
// hears of it, waits until traffic has moved and some time more, and starts the
// router anew.
func (r *redundant) loseRouter(t *testing.T, ctx context.Context, w path) (streamed, sunk) {
	t.Helper()
	r.awaitPath(t, ctx, w, true)
	result := r.stream(t, ctx, w)
	if err := r.Fabric.LinkDown(w.router); err != nil {
		t.Fatal(err)
	}
	r.awaitPath(t, ctx, w, false)
	time.Sleep(time.Second) // of traffic over what is left
	sent, got := result()
	if err := r.Machine(w.router).PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
	if err := r.Machine(w.router).PowerOn(ctx); err != nil {
		t.Fatal(err)
	}
	return sent, got
}

// diesUnwatched: traffic moves when the hold time has passed.
func (r *redundant) diesUnwatched(t *testing.T, ctx context.Context) {
	w := r.paths()[0]
	sent, got := r.loseRouter(t, ctx, w)
	r.without = got.gap()
	t.Logf("without BFD, hold time %s: traffic moved after %s; %d of %d packets lost", r.Topology().HoldTime, r.without.Round(time.Millisecond), sent.Sent-got.Received, sent.Sent)
	// The hold timer counts from the last message, at most a keepalive (a third)
	// before the cut.
	if least := r.Topology().HoldTime / 2; r.without < least {
		t.Errorf("the router was given up %s after its death, before its hold time could have passed", r.without)
	}
}

// diesWatched: with BFD traffic moves long before.
func (r *redundant) diesWatched(t *testing.T, ctx context.Context) {
	r.kubectl(t, ctx, "", "annotate", "bgppeer.projectcalico.org", "--all", "muslin.io/bfd="+r.Topology().BFD.String())
	for _, w := range r.paths() {
		r.awaitBFD(t, ctx, w)
		sent, got := r.loseRouter(t, ctx, w)
		kind := r.Topology().Router(w.router).Kind
		t.Logf("%s watched by BFD, %s × 3: traffic moved after %s; %d of %d packets lost", kind, r.Topology().BFD, got.gap().Round(time.Millisecond), sent.Sent-got.Received, sent.Sent)
		if got.gap() > r.without/2 {
			t.Errorf("%s: traffic stood still for %s, without BFD for %s", kind, got.gap(), r.without)
		}
	}
}

func (r *redundant) awaitBFD(t *testing.T, ctx context.Context, w path) {
	t.Helper()
	r.await(t, ctx, "BFD with "+w.router, func() error {
		out, err := r.Machine(w.from).Exec(ctx, filepath.Join(r.bin, "muslin-agent"), "status")
		if err != nil {
			return err
		}
		var s struct {
			Peers []struct {
				Address         netip.Addr
				State, BFDState string
			}
		}
		if err := json.Unmarshal(out, &s); err != nil {
			return err
		}
		for _, p := range s.Peers {
			if p.Address == w.second && p.State == "Established" && p.BFDState == "Up" {
				return nil
			}
		}
		return fmt.Errorf("peers %+v", s.Peers)
	})
}

// drainedFirst: a router that asks for other ways before it goes takes no
// packet with it.
func (r *redundant) drainedFirst(t *testing.T, ctx context.Context) {
	for _, w := range r.paths() {
		r.awaitBFD(t, ctx, w)
		r.awaitPath(t, ctx, w, true)
		r.awaitForwarding(t, ctx, w)
		result := r.stream(t, ctx, w)
		undo := r.drainRouter(t, ctx, w.router)
		r.awaitPath(t, ctx, w, false)
		time.Sleep(500 * time.Millisecond) // for what is on its way
		if err := r.Machine(w.router).PowerOff(ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second) // of traffic without it
		sent, got := result()
		kind := r.Topology().Router(w.router).Kind
		t.Logf("%s drained: %d sent, %d received, longest gap %.0f ms", kind, sent.Sent, got.Received, got.LongestGapMs)
		if sent.Sent != got.Received || sent.Failed != 0 || sent.Sent == 0 {
			t.Errorf("%s: sent %+v, received %+v, want none lost", kind, sent, got)
		}
		if err := r.Machine(w.router).PowerOn(ctx); err != nil {
			t.Fatal(err)
		}
		undo()
		r.awaitPath(t, ctx, w, true)
	}
}

// drainRouter puts a router into graceful shutdown (RFC 8326), as its operator
// would.
func (r *redundant) drainRouter(t *testing.T, ctx context.Context, router string) (undo func()) {
	t.Helper()
	description := r.Topology().Router(router)
	if description.Kind == topology.FRR {
		if _, err := r.Machine(router).Exec(ctx, "vtysh", "-c", "configure terminal", "-c", fmt.Sprintf("router bgp %d", description.AS), "-c", "bgp graceful-shutdown"); err != nil {
			t.Fatal(err)
		}
		return func() {} // FRR comes back with the configuration it started with
	}
	const conf = "/etc/bird/bird.conf"
	shell := func(script string) {
		t.Helper()
		if _, err := r.Machine(router).Exec(ctx, "sh", "-ec", script); err != nil {
			t.Fatal(err)
		}
	}
	shell(`cp ` + conf + ` ` + conf + `.was
sed -i 's/export where source ~ \[ RTS_DEVICE, RTS_BGP \]/export filter { bgp_community.add((65535,0)); if source ~ [ RTS_DEVICE, RTS_BGP ] then accept; reject; }/' ` + conf + `
! cmp -s ` + conf + ` ` + conf + `.was
birdc configure`)
	return func() {
		t.Helper()
		shell(`mv ` + conf + `.was ` + conf + ` && birdc configure`)
	}
}
