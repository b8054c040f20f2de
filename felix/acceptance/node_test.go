package acceptance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nl"
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

// node is a node: a namespace with the whole data plane and one pod.
type node struct {
	model.Node // with the tunnel addresses it was assigned
	ns         *nstest.NS
	pod        *nstest.NS
	endpoint   model.Endpoint
	blocks     []netip.Prefix
	kernel     *netlink.Handle // to ask it what it does

	links   *link.Watcher
	pods    *podlink.Reconciler
	plugger *pod.Plugger
	tunnels *tunnel.Reconciler
	nft     *nft.Reconciler
	routes  *route.Reconciler
	knobs   *sysctl.Writer
	look    chan struct{} // the snapshot has changed
	stepped func(model.Host)

	mu       sync.Mutex // guards what follows
	snapshot model.Snapshot
	learned  []model.Learned
	others   []model.Endpoint // beside endpoint
	failure  error            // of the last step
	mtu      int              // of pods, likewise
	problems []model.Problem
}

// newNode makes node number i of a cluster, without uplink. Its addresses have
// i in them.
func newNode(t *testing.T, i int, name model.NodeName, subnet int) *node {
	t.Helper()
	n := &node{
		Node: model.Node{
			Name:        name,
			IPv4:        netip.MustParsePrefix(fmt.Sprintf("10.%d.0.%d/24", subnet, i)),
			IPv6:        netip.MustParsePrefix(fmt.Sprintf("fd0%d::%d/64", subnet, i)),
			IPIPTunnel:  netip.MustParseAddr(fmt.Sprintf("10.65.%d.1", i)),
			VXLANTunnel: netip.MustParseAddr(fmt.Sprintf("10.65.%d.2", i)),

			VXLANTunnelV6: netip.MustParseAddr(fmt.Sprintf("fd65::%d:2", i)),
		},
		ns: nstest.New(t), pod: nstest.New(t),
		blocks: []netip.Prefix{
			netip.MustParsePrefix(fmt.Sprintf("10.65.%d.0/26", i)),
			netip.MustParsePrefix(fmt.Sprintf("fd65::%d:0/122", i)),
		},
		look: make(chan struct{}, 1),
	}
	n.open(t)
	var err error
	if n.plugger, err = pod.New(pod.Options{NetNS: n.ns.Path}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.plugger.Close() })
	n.endpoint, err = n.plugger.Attach(t.Context(), pod.Spec{
		ContainerID: fmt.Sprintf("%064d", i), Interface: "eth0", NetNS: n.pod.Path,
		Namespace: "default", Pod: "pod", HostInterface: pod.HostInterface("default", "pod"),
		Addresses: []netip.Addr{
			netip.MustParseAddr(fmt.Sprintf("10.65.%d.10", i)), netip.MustParseAddr(fmt.Sprintf("fd65::%d:10", i)),
		},
		MTU: 1400,
	})
	if err != nil {
		t.Fatal(err)
	}
	echo(t, n.pod)
	return n
}

func (n *node) open(t *testing.T) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil)).With("node", n.Name)
	var errs [6]error
	n.links, errs[0] = link.New(link.Options{NetNS: n.ns.Path, Logger: log})
	n.tunnels, errs[1] = tunnel.New(tunnel.Options{NetNS: n.ns.Path, Logger: log, Overlap: overlap, Grace: grace})
	n.nft, errs[2] = nft.New(nft.Options{NetNS: n.ns.Path, Logger: log})
	n.routes, errs[3] = route.New(route.Options{NetNS: n.ns.Path, Logger: log})
	in, err := nl.Open(n.ns.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	n.kernel, errs[4] = in.Handle()
	n.pods, errs[5] = podlink.New(podlink.Options{NetNS: n.ns.Path, Logger: log})
	n.knobs = sysctl.New(sysctl.Options{NetNS: n.ns.Path, Logger: log})
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
}

// run keeps the node's kernel as its snapshot says until the test ends.
func (n *node) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	for _, task := range []func(context.Context) error{n.links.Run, n.tunnels.Run, n.nft.Run, n.pods.Run, n.routes.Run, n.loop} {
		tasks.Go(func() {
			if err := task(ctx); err != nil {
				t.Errorf("node %s: %v", n.Name, err)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		tasks.Wait()
		n.kernel.Close()
		for _, c := range []interface{ Close() error }{n.links, n.tunnels, n.nft, n.pods, n.routes} {
			if err := c.Close(); err != nil {
				t.Errorf("node %s: %v", n.Name, err)
			}
		}
	})
}

func (n *node) loop(ctx context.Context) error {
	select {
	case <-n.links.Ready():
	case <-ctx.Done():
		return nil
	}
	for {
		n.step(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-n.look:
		case <-n.links.Changed():
		case <-n.tunnels.Changed():
		case <-n.nft.Changed():
		case <-n.pods.Changed():
		case <-n.routes.Changed():
		}
	}
}

func (n *node) step(ctx context.Context) {
	host := n.links.Host()
	n.mu.Lock()
	in := felix.Input{
		Self: n.Name, Snapshot: n.snapshot, Learned: n.learned, LearnedSynced: true, Host: host, HostSynced: true,
		Endpoints: append([]model.Endpoint{n.endpoint}, n.others...), EndpointsSynced: true,
	}
	n.mu.Unlock()
	state, problems := felix.Desired(in)
	var errs []error
	for _, apply := range []func(context.Context, felix.State) error{n.knobs.Apply, n.tunnels.Apply, n.nft.Apply, n.pods.Apply, n.routes.Apply} {
		errs = append(errs, apply(ctx, state))
	}
	n.mu.Lock()
	n.failure, n.problems, n.mtu = errors.Join(errs...), problems, state.MTU.Pod
	n.mu.Unlock()
	if n.stepped != nil {
		n.stepped(host)
	}
}

// tell gives the node another view of the cluster.
func (n *node) tell(s model.Snapshot, learned []model.Learned) {
	n.mu.Lock()
	n.snapshot, n.learned = s, learned
	n.mu.Unlock()
	select {
	case n.look <- struct{}{}:
	default:
	}
}

// content fails the test when the last step of the node did not go well.
func (n *node) content(t *testing.T) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.failure != nil || len(n.problems) > 0 {
		t.Errorf("node %s: %v; problems: %v", n.Name, n.failure, n.problems)
	}
}

// group is the device that the kernel sends packets for a prefix to; empty if
// there is no such route, or none that can be read right now.
func (n *node) group(prefix netip.Prefix) string {
	family := netlink.FAMILY_V4
	if prefix.Addr().Is6() {
		family = netlink.FAMILY_V6
	}
	dst := &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
	routes, err := n.kernel.RouteListFiltered(family, &netlink.Route{Dst: dst}, netlink.RT_FILTER_DST)
	if err != nil || len(routes) != 1 {
		return ""
	}
	device, err := n.kernel.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return ""
	}
	return device.Attrs().Name
}

// received is how many packets came in by a device; 0 if there is none.
func (n *node) received(t *testing.T, device string) int {
	t.Helper()
	found, err := n.kernel.LinkByName(device)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return int(found.Attrs().Statistics.RxPackets)
}

// eventually is nstest.Eventually with a bound for a slow second kernel.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("waited in vain until %s", what)
}
