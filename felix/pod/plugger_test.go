package pod

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/muslin-net/muslin/felix/internal/nstest"
	"github.com/muslin-net/muslin/pkg/model"
)

func open(t *testing.T, node *nstest.NS) *Plugger {
	t.Helper()
	p, err := New(Options{NetNS: node.Path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func spec(n int, ns *nstest.NS) Spec {
	pod := fmt.Sprintf("pod-%d", n)
	return Spec{
		ContainerID: fmt.Sprintf("%064d", n), Interface: "eth0", NetNS: ns.Path, Namespace: "default", Pod: pod,
		HostInterface: HostInterface("default", pod),
		Addresses:     []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.65.0.%d", n)), netip.MustParseAddr(fmt.Sprintf("fd65::%d", n))},
		MTU:           1400,
	}
}

func attach(t *testing.T, p *Plugger, s Spec) model.Endpoint {
	t.Helper()
	e, err := p.Attach(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func list(t *testing.T, p *Plugger) []model.Endpoint {
	t.Helper()
	out, err := p.List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

var addr = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

// route does what felix/route does with an endpoint.
func route(node *nstest.NS, e model.Endpoint) {
	for _, a := range e.Addresses {
		node.Run("ip", "route", "replace", a.String(), "dev", e.HostInterface, "proto", "109", "metric", "1024")
	}
}

func TestTwoPodsReachEachOther(t *testing.T) {
	node, a, b := nstest.New(t), nstest.New(t), nstest.New(t)
	node.Run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	node.Veth("eth0", nstest.New(t), "sw", []string{"10.1.0.1/24", "fd01::1/64"}, []string{"10.1.0.254/24", "fd01::254/64"})
	p := open(t, node)
	for i, ns := range []*nstest.NS{a, b} {
		route(node, attach(t, p, spec(i+1, ns)))
	}
	// The first packet has to get through: no duplicate detection, no question
	// who the gateway is, no delayed answer.
	for _, dst := range []string{"10.65.0.2", "fd65::2"} {
		a.Run("ping", "-c", "1", "-W", "5", dst)
	}
	for _, dst := range []string{"10.65.0.1", "fd65::1"} {
		b.Run("ping", "-c", "1", "-W", "5", dst)
		node.Run("ping", "-c", "1", "-W", "5", dst)
	}
	// A pod that has lost its neighbour entries asks, and the node answers as
	// soon as it has a route to anywhere.
	node.IP("route add default via 10.1.0.254")
	a.IP("neigh flush nud permanent dev eth0")
	a.Run("ping", "-c", "1", "-W", "5", "10.65.0.2")
	a.Run("ping", "-c", "1", "-W", "5", "fd65::2")
}

func TestAttachLeavesTheLinksAsDocumented(t *testing.T) {
	node, pod := nstest.New(t), nstest.New(t)
	p := open(t, node)
	s := spec(1, pod)
	s.Queues = 2
	e := attach(t, p, s)
	want := model.Endpoint{
		ContainerID: s.ContainerID, Interface: "eth0", Namespace: "default", Pod: "pod-1",
		HostInterface: s.HostInterface, Addresses: s.Addresses, MAC: s.mac().String(),
	}
	if diff := cmp.Diff(want, e, addr); diff != "" {
		t.Errorf("endpoint (-want +got):\n%s", diff)
	}
	host := node.IP("-d -o link show dev " + s.HostInterface)
	for _, w := range []string{"link/ether ee:ee:ee:ee:ee:ee", "mtu 1400", "UP", "numtxqueues 2", "addrgenmode none"} {
		if !strings.Contains(host, w) {
			t.Errorf("host link lacks %q: %s", w, host)
		}
	}
	inside := pod.IP("-d -o link show dev eth0")
	for _, w := range []string{s.mac().String(), "mtu 1400", "UP"} {
		if !strings.Contains(inside, w) {
			t.Errorf("pod link lacks %q: %s", w, inside)
		}
	}
	if got := pod.IP("-o addr show dev eth0"); strings.Contains(got, "tentative") || strings.Count(got, "\n") != 3 {
		t.Errorf("addresses in the pod: %s", got)
	}
	for ns, values := range map[*nstest.NS]map[string]string{
		node: {
			"net.ipv4.conf." + s.HostInterface + ".proxy_arp":      "1",
			"net.ipv4.conf." + s.HostInterface + ".forwarding":     "1",
			"net.ipv4.conf." + s.HostInterface + ".send_redirects": "0",
			"net.ipv4.neigh." + s.HostInterface + ".proxy_delay":   "0",
		},
		pod: {"net.ipv4.conf.eth0.forwarding": "0"},
	} {
		for key, want := range values {
			if got := strings.TrimSpace(ns.Run("sysctl", "-n", key)); got != want {
				t.Errorf("%s = %s, want %s", key, got, want)
			}
		}
	}
	if got := node.IP("route show proto 109"); got != "" {
		t.Errorf("Attach wrote routes of the node: %s", got)
	}
}

// TestFirstPacketArrives: what is sent to a pod as soon as Attach has returned
// is answered, in both families.
func TestFirstPacketArrives(t *testing.T) {
	node := nstest.New(t)
	node.Veth("eth0", nstest.New(t), "sw", []string{"10.1.0.1/24", "fd01::1/64"}, []string{"10.1.0.254/24", "fd01::254/64"})
	p := open(t, node)
	for i := range 40 {
		ns := nstest.New(t)
		side, err := p.enter(ns.Path)
		if err != nil {
			t.Fatal(err)
		}
		e := attach(t, p, spec(i+1, ns))
		for _, a := range e.Addresses {
			if local, err := isLocal(side.conn, a); err != nil || !local {
				t.Errorf("pod %d: %s is not the pod's own when Attach returns: %v", i+1, a, err)
			}
		}
		side.Close()
		route(node, e)
		for _, a := range e.Addresses {
			if out, err := node.Try("ping", "-c", "1", "-W", "2", a.String()); err != nil {
				t.Errorf("pod %d: the first packet to %s is lost: %s", i+1, a, out)
			}
		}
	}
}

func TestListReadsTheKernel(t *testing.T) {
	node := nstest.New(t)
	p := open(t, node)
	var want []model.Endpoint
	for i := range 3 {
		s := spec(i+1, nstest.New(t))
		if i == 1 {
			s.MAC = "02:00:00:00:00:07"
			s.SourcePrefixes = []netip.Prefix{netip.MustParsePrefix("10.99.0.0/24"), netip.MustParsePrefix("fd99::/64")}
		}
		want = append(want, attach(t, p, s))
	}
	node.IP("link add cali-other type veth peer name other")
	slices.SortFunc(want, func(a, b model.Endpoint) int { return strings.Compare(a.HostInterface, b.HostInterface) })
	if diff := cmp.Diff(want, list(t, open(t, node)), addr); diff != "" {
		t.Errorf("a fresh process sees (-want +got):\n%s", diff)
	}
}

func TestAttachAgain(t *testing.T) {
	node, one, two := nstest.New(t), nstest.New(t), nstest.New(t)
	p := open(t, node)
	s := spec(1, one)
	attach(t, p, s)
	before := node.IP("-o link show dev " + s.HostInterface)
	pod := one.IP("-o addr")
	t.Run("same container", func(t *testing.T) {
		one.IP("route del default")
		one.IP("addr del 10.65.0.1/32 dev eth0")
		attach(t, p, s)
		if diff := cmp.Diff(before, node.IP("-o link show dev "+s.HostInterface)); diff != "" {
			t.Errorf("the link is another one:\n%s", diff)
		}
		if err := p.Check(context.Background(), s); err != nil {
			t.Errorf("not put back: %v", err)
		}
		if got := one.IP("-o addr"); strings.Count(got, "\n") != strings.Count(pod, "\n") {
			t.Errorf("addresses before:\n%s\nafter:\n%s", pod, got)
		}
	})
	t.Run("another pod whose name collides", func(t *testing.T) {
		for name, other := range map[string]Spec{
			"pod":       {Namespace: "tenant", Pod: "bad"},
			"container": {},
			"namesake":  {Namespace: "tenant", Pod: s.Pod},
		} {
			bad := spec(9, two)
			bad.HostInterface, bad.Namespace, bad.Pod = s.HostInterface, other.Namespace, other.Pod
			if _, err := p.Attach(t.Context(), bad); !errors.Is(err, ErrNameTaken) || !strings.Contains(err.Error(), s.Pod) {
				t.Errorf("%s: %v", name, err)
			}
			if err := p.Detach(t.Context(), bad.ContainerID, bad.Interface, bad.HostInterface); err != nil {
				t.Error(err)
			}
		}
		if err := p.Check(t.Context(), s); err != nil {
			t.Errorf("the pod that was there first: %v", err)
		}
		node.IP("addr add 10.1.0.1/32 dev lo")
		route(node, s.endpoint())
		node.Run("ping", "-c", "1", "-W", "5", "10.65.0.1")
	})
	t.Run("a link of somebody else's", func(t *testing.T) {
		node.IP("link add cali0000other type bridge")
		node.IP("link set cali0000other up")
		foreign := spec(8, two)
		foreign.HostInterface = "cali0000other"
		if _, err := p.Attach(t.Context(), foreign); !errors.Is(err, ErrNameTaken) {
			t.Errorf("attach: %v", err)
		}
		node.IP("link show dev cali0000other")
	})
	t.Run("a name that is cut", func(t *testing.T) {
		long := spec(7, nstest.New(t))
		long.Pod = strings.Repeat("long", 60)
		attach(t, p, long)
		next := long
		next.ContainerID, next.Pod = "next", long.Pod[:len(long.Pod)-1]+"x"
		if _, err := p.Attach(t.Context(), next); !errors.Is(err, ErrNameTaken) {
			t.Errorf("attach: %v", err)
		}
		attach(t, p, long)
	})
	t.Run("other container of the same name", func(t *testing.T) {
		s2 := spec(1, two)
		s2.ContainerID = "next"
		attach(t, p, s2)
		if out, err := one.Try("ip", "link", "show", "dev", "eth0"); err == nil {
			t.Errorf("the old container still has %s", out)
		}
		if err := p.Detach(context.Background(), s.ContainerID, "eth0", s.HostInterface); err != nil {
			t.Fatal(err)
		}
		if err := p.Check(context.Background(), s2); err != nil {
			t.Errorf("a late detach of the old container hit the new one: %v", err)
		}
	})
}

func TestDetach(t *testing.T) {
	node := nstest.New(t)
	p := open(t, node)
	var specs []Spec
	for i := range 20 {
		specs = append(specs, spec(i+1, nstest.New(t)))
		attach(t, p, specs[i])
	}
	done := make(chan error)
	for i, s := range specs[:19] {
		hint := s.HostInterface
		if i%2 == 0 {
			hint = ""
		}
		go func() { done <- p.Detach(context.Background(), s.ContainerID, s.Interface, hint) }()
	}
	for range 19 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	left := list(t, p)
	if len(left) != 1 || left[0].ContainerID != specs[19].ContainerID {
		t.Errorf("left: %v", left)
	}
	for _, s := range specs[:2] {
		if err := p.Detach(context.Background(), s.ContainerID, s.Interface, s.HostInterface); err != nil {
			t.Errorf("detach of the absent: %v", err)
		}
	}
}

// A process was killed between making a link and writing whose it is.
func TestDetachTakesWhatIsHalfMade(t *testing.T) {
	node := nstest.New(t)
	p := open(t, node)
	s := spec(1, nstest.New(t))
	node.IP("link add " + s.HostInterface + " type veth peer name other")
	if err := p.Detach(context.Background(), s.ContainerID, s.Interface, s.HostInterface); err != nil {
		t.Fatal(err)
	}
	if out := node.IP("-o link show type veth"); out != "" {
		t.Errorf("left: %s", out)
	}
	node.IP("link add " + s.HostInterface + " type veth peer name other")
	node.IP("link set " + s.HostInterface + " up") // somebody uses it
	if err := p.Detach(context.Background(), s.ContainerID, s.Interface, s.HostInterface); err != nil {
		t.Fatal(err)
	}
	if out := node.IP("-o link show type veth"); out == "" {
		t.Error("a link in use, which is not ours, was taken")
	}
}

func TestCheckNamesWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(node, pod *nstest.NS, s *Spec)
		want  string
	}{
		"address":    {func(_, pod *nstest.NS, _ *Spec) { pod.IP("addr del fd65::1/128 dev eth0") }, "lacks address fd65::1"},
		"route":      {func(_, pod *nstest.NS, _ *Spec) { pod.IP("route del default") }, "no default route via 169.254.1.1"},
		"pod down":   {func(_, pod *nstest.NS, _ *Spec) { pod.IP("link set eth0 down") }, "link eth0 is down"},
		"host down":  {func(n, _ *nstest.NS, s *Spec) { n.IP("link set " + s.HostInterface + " down") }, "is down"},
		"gone":       {func(n, _ *nstest.NS, s *Spec) { n.IP("link del " + s.HostInterface) }, "no such device"},
		"mac":        {func(_, pod *nstest.NS, _ *Spec) { pod.IP("link set eth0 address 02:00:00:00:00:99") }, "annotation cni.projectcalico.org/hwAddr"},
		"other pod":  {func(_, _ *nstest.NS, s *Spec) { s.ContainerID = "x" }, "belongs to"},
		"other addr": {func(_, _ *nstest.NS, s *Spec) { s.Addresses = s.Addresses[:1] }, "is set up for addresses"},
	} {
		t.Run(name, func(t *testing.T) {
			node, pod := nstest.New(t), nstest.New(t)
			p := open(t, node)
			s := spec(1, pod)
			attach(t, p, s)
			if err := p.Check(context.Background(), s); err != nil {
				t.Fatal(err)
			}
			c.spoil(node, pod, &s)
			if err := p.Check(context.Background(), s); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestAttachRefusesBadSpecs(t *testing.T) {
	node, pod := nstest.New(t), nstest.New(t)
	p := open(t, node)
	for name, c := range map[string]struct {
		spoil func(s *Spec)
		want  string
	}{
		"own namespace":  {func(s *Spec) { s.NetNS = node.Path }, "it is the node's own"},
		"no namespace":   {func(s *Spec) { s.NetNS = "/nonexistent" }, "no such file"},
		"no address":     {func(s *Spec) { s.Addresses = nil }, "no address"},
		"long name":      {func(s *Spec) { s.HostInterface = "cali0123456789ab" }, "1 to 15 bytes"},
		"mac":            {func(s *Spec) { s.MAC = "hello" }, "hello is not 6 bytes"},
		"slash in id":    {func(s *Spec) { s.ContainerID = "a/b" }, "container id"},
		"taken in pod":   {func(s *Spec) { s.Interface = "lo" }, "one of the names is taken"},
		"too many words": {func(s *Spec) { s.SourcePrefixes = make([]netip.Prefix, 40) }, "which has 255"},
	} {
		t.Run(name, func(t *testing.T) {
			s := spec(1, pod)
			c.spoil(&s)
			if _, err := p.Attach(context.Background(), s); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if left := list(t, p); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestAttachWhereIPv6IsOff(t *testing.T) {
	node, pod := nstest.New(t), nstest.New(t)
	pod.Run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
	p := open(t, node)
	s := spec(1, pod)
	attach(t, p, s)
	if err := p.Check(context.Background(), s); err != nil {
		t.Error(err)
	}
}

func TestAliasCutsNamesOnly(t *testing.T) {
	s := spec(1, &nstest.NS{})
	s.Namespace, s.Pod = strings.Repeat("n", 63), strings.Repeat("p", 253)
	alias, err := s.alias()
	if err != nil || len(alias) != aliasMax {
		t.Fatalf("alias of %d bytes, %v", len(alias), err)
	}
	e, ok := parseAlias(alias, s.HostInterface)
	if !ok || e.ContainerID != s.ContainerID || !slices.Equal(e.Addresses, s.Addresses) || !strings.HasSuffix(e.Pod, "~") {
		t.Errorf("read back: %+v", e)
	}
	for _, bad := range []string{"", "eth0", "muslin:", "muslin:a/b", "muslin:ab 10.0.0.1 n/p", "muslin:a/b ten n/p", "calico:a/b 10.0.0.1 n/p"} {
		if e, ok := parseAlias(bad, "cali0"); ok {
			t.Errorf("%q is taken for %+v", bad, e)
		}
	}
}

func TestAliasKeepsTheNetworkWithoutIPAM(t *testing.T) {
	s := spec(1, &nstest.NS{})
	for _, network := range []string{"", "k8s-pod-network"} {
		s.WithoutIPAM = network
		alias, err := s.alias()
		if err != nil {
			t.Fatal(err)
		}
		e, ok := parseAlias(alias, s.HostInterface)
		if !ok || e.WithoutIPAM != network || e.Namespace != s.Namespace || e.Pod != s.Pod || !slices.Equal(e.Addresses, s.Addresses) {
			t.Errorf("%q read back: %+v", alias, e)
		}
	}
	s.WithoutIPAM = "two words"
	if err := s.valid(); err == nil || !strings.Contains(err.Error(), "name of the CNI network") {
		t.Errorf("a name with a space: %v", err)
	}
}

func TestHostInterface(t *testing.T) {
	// sha1 of "default.nginx", as Calico makes it.
	if got := HostInterface("default", "nginx"); got != "calic440f455693" {
		t.Errorf("got %s", got)
	}
}
