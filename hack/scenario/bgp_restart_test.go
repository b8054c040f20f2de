package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/muslin-net/muslin/hack/image"
)

// rack1 is what the two routers of rack r1 say of node a1.
type rack1 struct {
	*redundant
	bird, frr string // their names
	node      netip.Addr
	block     string
}

func (r *redundant) rack1(t *testing.T, ctx context.Context) rack1 {
	t.Helper()
	n, _ := r.Topology().Node("a1")
	rack := r.Topology().Rack(n.Rack)
	block, err := spoken{r.LightCluster}.blockOf(ctx, "a1")
	if err != nil {
		t.Fatal(err)
	}
	return rack1{r, rack.Router, rack.Second, n.Address.V4, block}
}

// birdSession is BIRD's view of its session with the node.
func (v rack1) birdSession(ctx context.Context) (string, error) {
	out, err := v.Machine(v.bird).Exec(ctx, "birdc", "show", "protocols", "all")
	if err != nil {
		return "", err
	}
	for section := range strings.SplitSeq(string(out), "\n\n") {
		if strings.Contains(section, "Neighbor address: "+v.node.String()+"\n") {
			return section, nil
		}
	}
	return "", fmt.Errorf("%s has no session with %s:\n%s", v.bird, v.node, out)
}

// birdRoute is what BIRD has of the block from the node; empty when it has none.
func (v rack1) birdRoute(ctx context.Context) (string, error) {
	out, err := v.Machine(v.bird).Exec(ctx, "birdc", "show", "route", v.block, "all", "where", "from", "=", v.node.String())
	if err != nil && !strings.Contains(string(out), "Network not found") {
		return "", err
	}
	if !strings.Contains(string(out), v.block) {
		return "", nil
	}
	return string(out), nil
}

// frrNeighbor is what FRR says of its session with the node.
type frrNeighbor struct {
	BGPState               string
	ConnectionsEstablished int
	GracefulRestartInfo    struct {
		RBit        bool
		IPv4Unicast struct{ FBit bool }
	}
}

func (v rack1) frrSession(ctx context.Context) (frrNeighbor, error) {
	out, err := v.Machine(v.frr).Exec(ctx, "vtysh", "-c", "show bgp neighbors "+v.node.String()+" json")
	if err != nil {
		return frrNeighbor{}, err
	}
	var view map[string]frrNeighbor
	if err := json.Unmarshal(out, &view); err != nil {
		return frrNeighbor{}, fmt.Errorf("read %q: %w", out, err)
	}
	return view[v.node.String()], nil
}

// frrRoute is a path to the node's block that FRR has from the node.
type frrRoute struct {
	Stale     bool
	Community struct {
		String string `json:"string"`
	}
	Peer struct {
		PeerID string `json:"peerId"`
	}
}

func (v rack1) frrRoute(ctx context.Context) (frrRoute, bool, error) {
	out, err := v.Machine(v.frr).Exec(ctx, "vtysh", "-c", "show bgp ipv4 unicast "+v.block+" json")
	if err != nil {
		return frrRoute{}, false, err
	}
	var view struct{ Paths []frrRoute }
	if err := json.Unmarshal(out, &view); err != nil {
		return frrRoute{}, false, fmt.Errorf("read %q: %w", out, err)
	}
	i := slices.IndexFunc(view.Paths, func(p frrRoute) bool { return p.Peer.PeerID == v.node.String() })
	if i < 0 {
		return frrRoute{}, false, nil
	}
	return view.Paths[i], true, nil
}

// witness looks at both routers' tables again and again; the returned function
// ends that and says how often it looked and when the block was missing.
func (v rack1) witness(ctx context.Context) func() (looks int, missing []string) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	var looks int
	var missing []string
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			looks++
			bird, birdErr := v.birdRoute(ctx)
			_, has, frrErr := v.frrRoute(ctx)
			if ctx.Err() == nil && (birdErr != nil || frrErr != nil || bird == "" || !has) {
				missing = append(missing, fmt.Sprintf("look %d: BIRD %q (%v), FRR %v (%v)", looks, bird, birdErr, has, frrErr))
			}
		}
	}()
	return func() (int, []string) { cancel(); <-done; return looks, missing }
}

// agentRestarts: the agent is restarted, killed and upgraded while packets go
// to and from a pod of its node. Both routers wait for it, and say so. No BFD is
// on: with it the routers would give the node up at once, since they cannot know
// that it still forwards.
func (r *redundant) agentRestarts(t *testing.T, ctx context.Context) {
	v := r.rack1(t, ctx)
	for _, verb := range []struct {
		name   string
		signal syscall.Signal
		before func(*testing.T, context.Context)
	}{
		{"restarted", syscall.SIGTERM, func(*testing.T, context.Context) {}},
		{"killed", syscall.SIGKILL, func(*testing.T, context.Context) {}},
		{"upgraded", syscall.SIGTERM, r.newProgram},
	} {
		t.Run(verb.name, func(t *testing.T) {
			r.await(t, ctx, "sessions", func() error { return v.settled(ctx) })
			verb.before(t, ctx)
			for _, w := range r.paths() {
				r.awaitPath(t, ctx, w, true)
			}
			out, in := r.stream(t, ctx, r.paths()[0]), r.stream(t, ctx, r.paths()[1])
			witness := v.witness(ctx)
			if err := r.endProgram("muslin-agent", "a1", verb.signal); err != nil {
				t.Fatal(err)
			}
			r.await(t, ctx, "routers wait for the node", func() error { return v.waiting(ctx) })
			if err := r.StartAgent("a1"); err != nil {
				t.Fatal(err)
			}
			r.await(t, ctx, "the restart was graceful", func() error { return v.recovered(ctx) })
			time.Sleep(7 * time.Second) // longer than the agent holds its updates back
			looks, missing := witness()
			t.Logf("%s: the routers' tables were looked at %d times", verb.name, looks)
			if len(missing) > 0 || looks == 0 {
				t.Errorf("the block was missing: %v", missing)
			}
			for what, stop := range map[string]func() (streamed, sunk){"from the node": out, "to the node": in} {
				sent, got := stop()
				t.Logf("%s, %s: %d sent, %d received, longest gap %.0f ms", verb.name, what, sent.Sent, got.Received, got.LongestGapMs)
				if sent.Sent != got.Received || sent.Failed != 0 || sent.Sent == 0 {
					t.Errorf("%s: sent %+v, received %+v, want none lost", what, sent, got)
				}
			}
		})
	}
}

// settled: both sessions are up and nothing is stale.
func (v rack1) settled(ctx context.Context) error {
	session, err := v.birdSession(ctx)
	if err != nil {
		return err
	}
	neighbor, err := v.frrSession(ctx)
	if err != nil {
		return err
	}
	route, has, err := v.frrRoute(ctx)
	if err != nil {
		return err
	}
	if !strings.Contains(session, "BGP state:          Established") || neighbor.BGPState != "Established" || !has || route.Stale {
		return fmt.Errorf("FRR %+v %+v, BIRD:\n%s", neighbor, route, session)
	}
	return nil
}

// waiting: both routers know that the node restarts, and keep its routes.
func (v rack1) waiting(ctx context.Context) error {
	session, err := v.birdSession(ctx)
	if err != nil {
		return err
	}
	route, _, err := v.frrRoute(ctx)
	if err != nil {
		return err
	}
	if !strings.Contains(session, "Neighbor graceful restart active") || !route.Stale {
		return fmt.Errorf("FRR %+v, BIRD:\n%s", route, session)
	}
	return nil
}

// recovered: both sessions are up again, the node said that it had restarted
// and kept its forwarding, and nothing is stale any more.
func (v rack1) recovered(ctx context.Context) error {
	if err := v.settled(ctx); err != nil {
		return err
	}
	session, err := v.birdSession(ctx)
	if err != nil {
		return err
	}
	neighbor, err := v.frrSession(ctx)
	if err != nil {
		return err
	}
	gr := neighbor.GracefulRestartInfo
	for _, word := range []string{"Restart recovery", "AF preserved: ipv4"} {
		if !strings.Contains(session, word) {
			return fmt.Errorf("BIRD does not say %q:\n%s", word, session)
		}
	}
	if strings.Contains(session, "graceful restart active") || !gr.RBit || !gr.IPv4Unicast.FBit {
		return fmt.Errorf("FRR %+v, BIRD:\n%s", gr, session)
	}
	return nil
}

// newProgram has agents started from now on run another version.
func (r *redundant) newProgram(t *testing.T, ctx context.Context) {
	t.Helper()
	var agent []image.Program
	for _, p := range image.Present(r.Source) {
		if filepath.Base(p.Path) == "muslin-agent" {
			agent = append(agent, p)
		}
	}
	was := r.bin
	t.Cleanup(func() { r.bin = was })
	// In a directory of its own: machines do not see a file that is replaced.
	r.bin = filepath.Join(was, "next")
	if _, err := image.Build(ctx, image.BuildOptions{Root: r.Source, Out: r.bin, Version: "next"}, agent); err != nil {
		t.Fatal(err)
	}
	if out, err := r.Machine("a1").Exec(ctx, filepath.Join(r.bin, "muslin-agent"), "version"); err != nil || !strings.HasPrefix(string(out), "next") {
		t.Fatalf("the new program is %q: %v", out, err)
	}
}
