package felix_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nstest"
	"github.com/muslin-net/muslin/felix/link"
	"github.com/muslin-net/muslin/felix/nft"
	"github.com/muslin-net/muslin/felix/pod"
	"github.com/muslin-net/muslin/felix/podlink"
	"github.com/muslin-net/muslin/felix/route"
	"github.com/muslin-net/muslin/felix/sysctl"
	"github.com/muslin-net/muslin/felix/tunnel"
	"github.com/muslin-net/muslin/pkg/model"
)

// The whole data plane of two nodes in two subnets, with a router between them
// and a pod on each, wired as the agent wires it.
//
//	pod 10.65.1.1 ─ a 10.1.0.1 ─ router ─ b 10.2.0.1 ─ pod 10.65.2.1

const interrupt = syscall.SIGINT

var discard = slog.New(slog.NewTextHandler(io.Discard, nil))

type cluster struct {
	router *nstest.NS
	a, b   *node
}

type node struct {
	t         testing.TB
	name      string
	ns        *nstest.NS
	podNS     *nstest.NS
	view      *kernelView
	folder    string // where its pods' namespaces are
	router    string // hardware address of the router's end of eth0
	pods      *pod.Plugger
	mu        sync.Mutex
	input     felix.Input // what comes from elsewhere than the kernel
	requested int         // counts changes of input
	done      int         // the newest of them that the kernel has
	change    chan struct{}
	plane     *plane
}

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func ip(s string) netip.Addr    { return netip.MustParseAddr(s) }

func newCluster(t testing.TB) *cluster {
	c := &cluster{router: nstest.New(t)}
	c.router.Run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	c.a, c.b = c.node(t, "a", 1, 2), c.node(t, "b", 2, 1)
	return c
}

// node makes node number n, which knows node number other.
func (c *cluster) node(t testing.TB, name string, n, other int) *node {
	x := &node{t: t, name: name, ns: nstest.New(t), podNS: nstest.New(t), change: make(chan struct{}, 1)}
	at := func(format string, n int) string { return fmt.Sprintf(format, n) }
	x.ns.Veth("eth0", c.router, at("to%d", n),
		[]string{at("10.%d.0.1/24", n), at("fd0%d::1/64", n)}, []string{at("10.%d.0.254/24", n), at("fd0%d::254/64", n)})
	x.folder = t.TempDir()
	if err := os.Symlink(x.podNS.Path, filepath.Join(x.folder, "pod")); err != nil {
		t.Fatal(err)
	}
	x.view = newKernelView(t, x.ns.Path)
	x.router = strings.Fields(c.router.IP(at("-o link show dev to%d", n)))[16]
	c.router.IP(at("route add 10.65.%d.0/26 via ", n) + at("10.%d.0.1", n)) // what BGP tells it
	c.router.IP(at("-6 route add fd65::%d:0/122 via ", n) + at("fd0%d::1", n))
	x.ns.IP(at("route add default via 10.%d.0.254", n))
	x.ns.IP(at("-6 route add default via fd0%d::254", n))
	x.input = felix.Input{
		Self: model.NodeName(name), LearnedSynced: true, HostSynced: true, EndpointsSynced: true,
		OwnTunnels: felix.TunnelAddresses{VXLAN: ip(at("10.65.%d.60", n)), VXLANV6: ip(at("fd65::%d:3c", n))},
		Snapshot: model.Snapshot{
			Synced: true,
			Pools:  []model.Pool{{Name: "v4", CIDR: pfx("10.65.0.0/16"), NATOutgoing: true}, {Name: "v6", CIDR: pfx("fd65::/48")}},
			Blocks: []model.Block{
				{CIDR: pfx(at("10.65.%d.0/26", n)), Node: model.NodeName(name), State: model.BlockConfirmed},
				{CIDR: pfx(at("fd65::%d:0/122", n)), Node: model.NodeName(name), State: model.BlockConfirmed},
			},
		},
		Learned: []model.Learned{
			{Prefix: pfx(at("10.65.%d.0/26", other)), Multipath: &model.Multipath{NextHops: []netip.Addr{ip(at("10.%d.0.1", other))}}},
			{Prefix: pfx(at("fd65::%d:0/122", other)), Multipath: &model.Multipath{NextHops: []netip.Addr{ip(at("fd0%d::1", other))}}},
		},
	}
	for i, name := range []string{"a", "b"} {
		x.input.Snapshot.Nodes = append(x.input.Snapshot.Nodes, model.Node{
			Name: model.NodeName(name), IPv4: pfx(at("10.%d.0.1/24", i+1)), IPv6: pfx(at("fd0%d::1/64", i+1)),
		})
	}
	var err error
	if x.pods, err = pod.New(pod.Options{NetNS: x.ns.Path, Logger: discard}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.pods.Close() })
	x.start()
	x.attach(at("10.65.%d.1", n), at("fd65::%d:1", n))
	x.settle()
	return x
}

func (x *node) attach(addrs ...string) {
	x.t.Helper()
	s := pod.Spec{ContainerID: "c-" + x.name, Interface: "eth0", NetNS: x.podNS.Path, Namespace: "ns", Pod: x.name,
		HostInterface: pod.HostInterface("ns", x.name), MTU: 1400, FixedMTU: true}
	for _, a := range addrs {
		s.Addresses = append(s.Addresses, ip(a))
	}
	e, err := x.pods.Attach(context.Background(), s)
	if err != nil {
		x.t.Fatal(err)
	}
	x.set(func(in *felix.Input) { in.Endpoints = append(slices.Clone(in.Endpoints), e) })
}

// set changes what the node knows, and has it look.
func (x *node) set(f func(*felix.Input)) {
	x.mu.Lock()
	f(&x.input)
	x.requested++
	x.mu.Unlock()
	select {
	case x.change <- struct{}{}:
	default:
	}
}

// plane is one process's worth of reconcilers.
type plane struct {
	links    *link.Watcher
	routes   *route.Reconciler
	rules    *nft.Reconciler
	tunnels  *tunnel.Reconciler
	podLinks *podlink.Reconciler
	knobs    *sysctl.Writer
	stop     func()
}

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// start runs the reconcilers of a node, as a new process would.
func (x *node) start() {
	t, path := x.t, x.ns.Path
	p := &plane{knobs: sysctl.New(sysctl.Options{NetNS: path, Logger: discard})}
	var err error
	p.links, err = link.New(link.Options{NetNS: path, Logger: discard})
	must(t, p.links, err)
	p.routes, err = route.New(route.Options{NetNS: path, Logger: discard})
	must(t, p.routes, err)
	p.rules, err = nft.New(nft.Options{NetNS: path, Logger: discard})
	must(t, p.rules, err)
	p.tunnels, err = tunnel.New(tunnel.Options{NetNS: path, Logger: discard, Grace: 500 * time.Millisecond})
	must(t, p.tunnels, err)
	p.podLinks, err = podlink.New(podlink.Options{NetNS: path, Logger: discard, Namespaces: []string{x.folder}})
	must(t, p.podLinks, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{p.links.Run, p.routes.Run, p.rules.Run, p.tunnels.Run, p.podLinks.Run} {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				t.Errorf("node %s: %v", x.name, err)
			}
		})
	}
	<-p.links.Ready()
	x.plane = p
	wg.Go(func() { x.loop(ctx, p) })
	p.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		p.links.Close()
		p.routes.Close()
		p.rules.Close()
		p.tunnels.Close()
		p.podLinks.Close()
	})
	t.Cleanup(p.stop)
}

func (x *node) loop(ctx context.Context, p *plane) {
	stated := ""
	for ctx.Err() == nil {
		var retry <-chan time.Time
		if err := x.step(ctx, p); err != nil {
			if ctx.Err() == nil && err.Error() != stated {
				stated = err.Error()
				x.t.Logf("%s: %v", x.name, err)
			}
			retry = time.After(20 * time.Millisecond)
		}
		select {
		case <-ctx.Done():
		case <-x.change:
		case <-p.links.Changed():
		case <-p.routes.Changed():
		case <-p.rules.Changed():
		case <-p.tunnels.Changed():
		case <-p.podLinks.Changed():
		case <-retry:
		}
	}
}

func (x *node) step(ctx context.Context, p *plane) error {
	x.mu.Lock()
	requested := x.requested
	x.mu.Unlock()
	s := x.desired(p)
	for _, apply := range []func(context.Context, felix.State) error{p.knobs.Apply, p.rules.Apply, p.tunnels.Apply, p.podLinks.Apply, p.routes.Apply} {
		if err := apply(ctx, s); err != nil {
			return err
		}
	}
	x.mu.Lock()
	x.done = max(x.done, requested)
	x.mu.Unlock()
	return nil
}

// settled reports whether the kernel has all that the node was told.
func (x *node) settled() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.done == x.requested
}

func (x *node) desired(p *plane) felix.State {
	x.mu.Lock()
	in := x.input
	x.mu.Unlock()
	in.Host = p.links.Host()
	s, _ := felix.Desired(in)
	return s
}

// kernel is what the kernel says: our routes, our table, our tunnels.
func (x *node) kernel() string {
	routes := x.ns.IP("route show proto 109") + x.ns.IP("-6 route show proto 109")
	table, _ := x.ns.Try("nft", "list", "table", "inet", "muslin")
	return routes + table
}

// settle waits until the node's routes are in the kernel.
func (x *node) settle() {
	x.t.Helper()
	nstest.Eventually(x.t, "node "+x.name+" has its routes and rules", func() bool {
		return x.right() == ""
	})
}

// right says what is missing in the kernel of what is wanted now.
func (x *node) right() string {
	have := x.kernel()
	for _, r := range x.desired(x.plane).Routes {
		want := strings.Replace(strings.Replace(r.String(), " proto 109", "", 1), "\n\tnexthop", "", 1)
		want, _, _ = strings.Cut(want, " metric")
		want = strings.TrimSuffix(want, " onlink")
		if !strings.Contains(have, want) {
			return want
		}
	}
	if !strings.Contains(have, "masquerade") || !strings.Contains(have, "from-pod") {
		return "rules"
	}
	return ""
}

// traffic pings from pod to pod until stopped, and tells how many got lost.
func (c *cluster) traffic(t testing.TB, dst string) (stop func() (sent, lost int)) {
	cmd := c.a.podNS.Command("ping", "-i", "0.005", "-W", "2", dst)
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() (sent, lost int) {
		_ = cmd.Process.Signal(interrupt)
		_ = cmd.Wait()
		m := regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`).FindStringSubmatch(out.String())
		if m == nil {
			t.Fatalf("ping said: %s", out.String())
		}
		var received int
		fmt.Sscan(m[1], &sent)
		fmt.Sscan(m[2], &received)
		return sent, sent - received
	}
}

func (c *cluster) reach(t testing.TB) {
	t.Helper()
	for _, dst := range []string{"10.65.2.1", "fd65::2:1"} {
		if _, err := c.a.podNS.Try("ping", "-c", "1", "-W", "5", dst); err != nil {
			for _, ns := range []*nstest.NS{c.a.podNS, c.a.ns, c.router, c.b.ns, c.b.podNS} {
				t.Logf("%s%s", ns.IP("addr"), ns.IP("route"))
			}
			t.Fatalf("%v\n%s\n%s", err, c.a.kernel(), c.b.kernel())
		}
	}
}

// encap does what a change of the pools' VXLAN mode comes to: each node learns
// it when it does, publishes the addresses of its tunnels when they are up, and
// hears of the other's later. It waits until the routes say so.
func (c *cluster) encap(t testing.TB, mode model.Encap, dev string) {
	t.Helper()
	nodes := []*node{c.a, c.b}
	for _, x := range nodes {
		x.set(func(in *felix.Input) {
			in.Snapshot.Pools = slices.Clone(in.Snapshot.Pools)
			for i := range in.Snapshot.Pools {
				in.Snapshot.Pools[i].VXLAN = mode
			}
		})
		time.Sleep(20 * time.Millisecond)
	}
	for i, x := range nodes {
		var up felix.TunnelAddresses
		if mode != model.EncapNever {
			nstest.Eventually(t, "the tunnels of "+x.name+" are up", func() bool {
				// Not a device that is there from before and on its way out.
				if !x.settled() {
					return false
				}
				up = felix.ReadyTunnels(x.input.OwnTunnels, x.plane.links.Host())
				return up == x.input.OwnTunnels
			})
		}
		for _, y := range nodes {
			y.set(func(in *felix.Input) {
				in.Snapshot.Nodes = slices.Clone(in.Snapshot.Nodes)
				in.Snapshot.Nodes[i].VXLANTunnel, in.Snapshot.Nodes[i].VXLANTunnelV6 = up.VXLAN, up.VXLANV6
			})
			time.Sleep(20 * time.Millisecond)
		}
	}
	for _, x := range []*node{c.a, c.b} {
		nstest.Eventually(t, fmt.Sprintf("routes of %s go over %s", x.name, dev), func() bool {
			v4 := x.ns.IP("route show proto 109 root 10.65.0.0/16 type unicast")
			v6 := x.ns.IP("-6 route show proto 109 root fd65::/48 type unicast")
			return strings.Contains(v4, "/26 via") && strings.Contains(v6, "/122 via") &&
				strings.Count(v4+v6, "dev "+dev) >= 2
		})
	}
}

func TestEncapsulationChangesLoseNothing(t *testing.T) {
	c := newCluster(t)
	c.reach(t)
	stop4, stop6 := c.traffic(t, "10.65.2.1"), c.traffic(t, "fd65::2:1")
	for range 3 {
		c.encap(t, model.EncapAlways, "vxlan")
		c.encap(t, model.EncapNever, "eth0")
		c.encap(t, model.EncapCrossSubnet, "vxlan")
		c.encap(t, model.EncapNever, "eth0")
	}
	for _, x := range []*node{c.a, c.b} {
		nstest.Eventually(t, "the devices go", func() bool {
			out, _ := x.ns.Try("ip", "link", "show", "type", "vxlan")
			return out == ""
		})
	}
	for _, stop := range []func() (int, int){stop4, stop6} {
		if sent, lost := stop(); lost != 0 || sent < 50 {
			t.Errorf("%d of %d packets lost", lost, sent)
		}
	}
}

func TestRestartTouchesNothing(t *testing.T) {
	c := newCluster(t)
	c.encap(t, model.EncapCrossSubnet, "vxlan")
	c.a.settle()
	before := c.a.kernel()
	stop := c.traffic(t, "10.65.2.1")
	m := c.a.ns.Monitor("link", "address", "neigh")
	for range 3 {
		c.a.plane.stop()
		c.a.start()
		c.a.settle()
		// A whole round with every source heard.
		if err := c.a.step(context.Background(), c.a.plane); err != nil {
			t.Fatal(err)
		}
	}
	// The kernel's own: what it learns of neighbours, and the entries of multicast groups.
	own := []string{"STALE", "REACHABLE", "DELAY", "PROBE", "ff02::"}
	touched := slices.DeleteFunc(m.Lines(), func(l string) bool {
		return slices.ContainsFunc(own, func(word string) bool { return strings.Contains(l, word) })
	})
	if len(touched) != 0 {
		t.Errorf("a restart touched the kernel:\n%s", strings.Join(touched, "\n"))
	}
	if diff := cmp.Diff(before, c.a.kernel()); diff != "" {
		t.Errorf("the kernel changed:\n%s", diff)
	}
	if sent, lost := stop(); lost != 0 {
		t.Errorf("%d of %d packets lost", lost, sent)
	}
}

// TestHairpin has a pod reach itself through a service, as kube-proxy does it.
func TestHairpin(t *testing.T) {
	c := newCluster(t)
	c.a.ns.Run("nft", `add table ip proxy;
		add chain ip proxy pre { type nat hook prerouting priority -100; };
		add chain ip proxy post { type nat hook postrouting priority 100; };
		add rule ip proxy pre ip daddr 10.96.0.1 dnat to 10.65.1.1;
		add rule ip proxy post ip saddr 10.65.1.1 ip daddr 10.65.1.1 masquerade`)
	c.a.podNS.Run("ping", "-c", "3", "-i", "0.05", "-W", "5", "10.96.0.1")
	if got := c.a.podNS.Run("ping", "-c", "3", "-i", "0.05", "-W", "5", "10.96.0.1"); strings.Contains(got, "Redirect") {
		t.Errorf("the node sends the pod redirects: %s", got)
	}
}

// TestLivePodsLearnOfSmallerTunnels shows what a smaller tunnel means to a pod that was
// there before: the node says so, and the pod's kernel believes it.
func TestLivePodsLearnOfSmallerTunnels(t *testing.T) {
	c := newCluster(t)
	c.encap(t, model.EncapCrossSubnet, "vxlan")
	big := []string{"-c", "1", "-W", "2", "-M", "do", "-s", "1372", "10.65.2.1"} // 1400 bytes, the pod's MTU
	c.a.podNS.Run("ping", big...)
	for _, x := range []*node{c.a, c.b} {
		x.set(func(in *felix.Input) {
			in.Snapshot.Felix = []model.FelixConfiguration{{Name: "default", VXLANMTU: 1300}}
		})
		nstest.Eventually(t, "the tunnel's MTU changes in place", func() bool {
			return strings.Contains(x.ns.IP("link show vxlan.calico"), "mtu 1300")
		})
	}
	if out, err := c.a.podNS.Try("ping", big...); err == nil || !strings.Contains(out, "mtu = 1300") && !strings.Contains(out, "mtu=1300") {
		t.Errorf("the pod is not told of the smaller MTU: %v", err)
	}
	c.a.podNS.Run("ping", "-c", "1", "-W", "2", "-s", "1372", "10.65.2.1")
}
