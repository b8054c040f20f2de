package tunnel

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nstest"
)

func newNode(t *testing.T) *nstest.NS {
	node := nstest.New(t)
	node.Veth("eth0", nstest.New(t), "sw", []string{"10.1.0.1/24", "fd01::1/64"}, []string{"10.1.0.254/24", "fd01::254/64"})
	return node
}

func open(t *testing.T, node *nstest.NS) *Reconciler {
	t.Helper()
	r, err := New(Options{NetNS: node.Path, Grace: 50 * time.Millisecond, Overlap: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func peer(address, mac, node string) felix.TunnelPeer {
	return felix.TunnelPeer{Address: netip.MustParseAddr(address), MAC: mac, Node: netip.MustParseAddr(node)}
}

// wanted are both VXLAN devices with two peers each.
func wanted(t *testing.T, node *nstest.NS) []felix.Tunnel {
	parent := node.Index("eth0")
	return []felix.Tunnel{
		{Kind: felix.VXLAN, Name: felix.VXLANDevice, Address: netip.MustParseAddr("10.65.254.1"), Local: netip.MustParseAddr("10.1.0.1"),
			Parent: parent, MTU: 1450, MAC: "66:00:00:00:00:01", VNI: 4096, Port: 4789,
			Peers: []felix.TunnelPeer{peer("10.65.254.2", "66:00:00:00:00:02", "10.1.0.2"), peer("10.65.254.3", "66:00:00:00:00:03", "10.2.0.3")}},
		{Kind: felix.VXLAN, Name: felix.VXLANDeviceV6, Address: netip.MustParseAddr("fd65::ffff:1"), Local: netip.MustParseAddr("fd01::1"),
			Parent: parent, MTU: 1430, MAC: "66:00:00:00:06:01", VNI: 4096, Port: 4789,
			Peers: []felix.TunnelPeer{peer("fd65::ffff:2", "66:00:00:00:06:02", "fd01::2"), peer("fd65::ffff:3", "66:00:00:00:06:03", "fd02::3")}},
	}
}

func apply(t *testing.T, r *Reconciler, tunnels []felix.Tunnel) {
	t.Helper()
	if err := r.Apply(context.Background(), felix.State{Tunnels: tunnels, Prune: true}); err != nil {
		t.Fatal(err)
	}
}

// show is what iproute2 knows of the devices.
func show(node *nstest.NS) string {
	var b strings.Builder
	for _, dev := range []string{felix.VXLANDevice, felix.VXLANDeviceV6} {
		link, err := node.Try("ip", "-d", "-o", "link", "show", "dev", dev)
		if err != nil {
			continue
		}
		b.WriteString(strings.Join(strings.Fields(link), " ") + "\n")
		b.WriteString(node.Run("ip", "-o", "addr", "show", "dev", dev))
		b.WriteString(node.Run("ip", "neigh", "show", "dev", dev, "nud", "permanent"))
		b.WriteString(node.Run("ip", "-6", "neigh", "show", "dev", dev, "nud", "permanent"))
		b.WriteString(node.Run("bridge", "fdb", "show", "dev", dev))
	}
	return strings.ReplaceAll(b.String(), "tentative ", "") // that ends by itself
}

func wantAll(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("lacks %q:\n%s", w, text)
		}
	}
}

func TestDevices(t *testing.T) {
	node := newNode(t)
	r := open(t, node)
	want := wanted(t, node)
	apply(t, r, want)
	wantAll(t, show(node),
		"link/ether 66:00:00:00:00:01", "vxlan id 4096 local 10.1.0.1 dev eth0", "dstport 4789 nolearning", "mtu 1450", "alias muslin:tunnel",
		"inet 10.65.254.1/32", "10.65.254.2 lladdr 66:00:00:00:00:02 PERMANENT", "66:00:00:00:00:03 dst 10.2.0.3 self permanent",
		"vxlan id 4096 local fd01::1 dev eth0", "mtu 1430", "inet6 fd65::ffff:1/128",
		"fd65::ffff:2 lladdr 66:00:00:00:06:02 PERMANENT", "66:00:00:00:06:03 dst fd02::3 self permanent")

	want = wanted(t, node)
	want[0].MTU, want[0].MAC, want[0].Address = 1400, "66:00:00:00:00:aa", netip.MustParseAddr("10.65.254.11")
	want[0].Peers = []felix.TunnelPeer{peer("10.65.254.2", "66:00:00:00:00:02", "10.1.0.22"), peer("10.65.254.4", "66:00:00:00:00:04", "10.2.0.4")}
	before := node.Index(felix.VXLANDevice)
	apply(t, r, want)
	got := show(node)
	wantAll(t, got, "mtu 1400", "link/ether 66:00:00:00:00:aa", "inet 10.65.254.11/32", "66:00:00:00:00:02 dst 10.1.0.22", "10.65.254.4 lladdr")
	for _, gone := range []string{"10.65.254.1/32", "10.65.254.3", "66:00:00:00:00:03 dst"} {
		if strings.Contains(got, gone) {
			t.Errorf("still there: %s\n%s", gone, got)
		}
	}
	if after := node.Index(felix.VXLANDevice); after != before {
		t.Errorf("the device was replaced although everything could be changed in place")
	}
	want[0].Local = netip.MustParseAddr("10.1.0.11")
	apply(t, r, want)
	wantAll(t, show(node), "vxlan id 4096 local 10.1.0.11", "10.65.254.4 lladdr")
}

func TestAdoption(t *testing.T) {
	node := newNode(t)
	want := wanted(t, node)
	apply(t, open(t, node), want)
	before := show(node)
	m := node.Monitor("link", "address", "neigh")
	fresh := open(t, node)
	apply(t, fresh, want)
	if lines := m.Lines(); len(lines) != 0 {
		t.Errorf("a fresh process touched what is as wanted: %q", lines)
	}
	if diff := cmp.Diff(before, show(node)); diff != "" {
		t.Errorf("changed:\n%s", diff)
	}
}

func TestDriftIsRepaired(t *testing.T) {
	node := newNode(t)
	r := open(t, node)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	<-r.Ready()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	want := wanted(t, node)
	apply(t, r, want)
	if n := r.Drift(); n != 0 {
		t.Errorf("our own changes are counted as drift: %d", n)
	}
	text := show(node)
	strip := func(s string) string { // indexes, order, and what the kernel adds by itself
		var out []string
		for _, l := range strings.Split(s, "\n") {
			if strings.Contains(l, "inet6 fe80") {
				continue
			}
			if _, rest, ok := strings.Cut(l, ": "); ok {
				l = rest
			}
			out = append(out, l)
		}
		slices.Sort(out)
		return strings.Join(out, "\n")
	}
	for _, spoil := range []string{
		"ip link set vxlan.calico down",
		"ip link set vxlan.calico mtu 1200",
		"ip link set vxlan.calico address 02:00:00:00:00:09",
		"ip addr flush dev vxlan.calico",
		"ip addr add 10.66.0.1/32 dev vxlan.calico",
		"ip neigh del 10.65.254.2 dev vxlan.calico",
		"bridge fdb del 66:00:00:00:00:02 dev vxlan.calico",
		"ip -6 neigh flush dev vxlan-v6.calico nud permanent",
		"ip link del vxlan-v6.calico",
	} {
		words := strings.Fields(spoil)
		node.Run(words[0], words[1:]...)
		select {
		case <-r.Changed():
		case <-time.After(2 * time.Minute):
			t.Fatalf("no hint after %s", spoil)
		}
		apply(t, r, want)
		if diff := cmp.Diff(strip(text), strip(show(node))); diff != "" {
			t.Errorf("after %s (-want +got):\n%s", spoil, diff)
		}
	}
	if n := r.Drift(); n < 5 { // address, neighbours, forward, device
		t.Errorf("drift counted: %d", n)
	}
}

func TestRetirement(t *testing.T) {
	node := newNode(t)
	r := open(t, node)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	apply(t, r, wanted(t, node))
	node.IP("route add 10.65.2.0/26 via 10.65.254.3 dev vxlan.calico onlink proto 109")

	if err := r.Apply(ctx, felix.State{}); err != nil { // nothing heard yet
		t.Fatal(err)
	}
	if got := show(node); !strings.Contains(got, felix.VXLANDeviceV6) {
		t.Fatal("deleted before every source was heard")
	}
	apply(t, r, nil)
	nstest.Eventually(t, "the device without routes goes", func() bool {
		select {
		case <-r.Changed():
			apply(t, r, nil)
		default:
		}
		return !strings.Contains(show(node), felix.VXLANDeviceV6)
	})
	if got := show(node); !strings.Contains(got, felix.VXLANDevice) {
		t.Fatal("the device went although a route of ours goes over it")
	}
	node.IP("route del 10.65.2.0/26 proto 109")
	nstest.Eventually(t, "the other one goes, too", func() bool {
		select {
		case <-r.Changed():
			apply(t, r, nil)
		default:
		}
		return show(node) == ""
	})
}

func TestForeignDevice(t *testing.T) {
	node := newNode(t)
	node.IP("link add vxlan.calico type vxlan id 4096 dstport 4789 local 10.1.0.1 dev eth0 nolearning")
	r := open(t, node)
	apply(t, r, nil)
	time.Sleep(60 * time.Millisecond) // longer than a device of ours would linger
	apply(t, r, nil)
	before := node.Index(felix.VXLANDevice)
	apply(t, r, wanted(t, node))
	if node.Index(felix.VXLANDevice) != before {
		t.Error("a device that fits was not taken over in place")
	}
	wantAll(t, show(node), "alias muslin:tunnel", "inet 10.65.254.1/32")
}

func TestIPIPSaysWhatTheKernelLacks(t *testing.T) {
	node := newNode(t)
	r := open(t, node)
	tunnels := append(wanted(t, node), felix.Tunnel{Kind: felix.IPIP, Name: felix.IPIPDevice,
		Address: netip.MustParseAddr("10.65.255.1"), Local: netip.MustParseAddr("10.1.0.1"), MTU: 1480})
	err := r.Apply(context.Background(), felix.State{Tunnels: tunnels})
	if _, lacking := node.Try("ip", "link", "add", "probe", "type", "ipip", "local", "10.1.0.1"); lacking == nil {
		if err != nil {
			t.Fatal(err)
		}
		wantAll(t, node.IP("-d addr show dev tunl0"), "inet 10.65.255.1/32", "mtu 1480", "UP")
		return
	}
	if err == nil || !strings.Contains(err.Error(), "tunnel device tunl0") || !strings.Contains(err.Error(), "the kernel has no such kind of device") {
		t.Errorf("error: %v", err)
	}
	wantAll(t, show(node), "inet 10.65.254.1/32", "inet6 fd65::ffff:1/128")
}
