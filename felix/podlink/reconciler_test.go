package podlink

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nstest"
)

const (
	device = "cali0001"
	podMAC = "02:00:00:00:00:05"
)

// lab is a node with one pod, wired as felix/pod does.
type lab struct {
	node, pod *nstest.NS
	folder    string
	link      felix.PodLink
	log       bytes.Buffer
}

func newLab(t *testing.T) *lab {
	l := &lab{node: nstest.New(t), pod: nstest.New(t), folder: t.TempDir()}
	l.node.IP("link add " + device + " mtu 1400 type veth peer name eth0 mtu 1400 address " + podMAC + " netns " + l.pod.Path)
	l.pod.IP("link set eth0 up")
	l.pod.IP("addr add 10.65.0.5/32 dev eth0")
	l.link = felix.PodLink{
		Device: device, Link: l.node.Index(device), Gateway: felix.PodGateway6, MAC: podMAC,
		Addresses: []netip.Addr{netip.MustParseAddr("10.65.0.5"), netip.MustParseAddr("fd65::5")},
	}
	return l
}

// visible puts the pod's namespace where a runtime would.
func (l *lab) visible(t *testing.T) {
	t.Helper()
	if err := os.Symlink(l.pod.Path, filepath.Join(l.folder, "cni-1")); err != nil {
		t.Fatal(err)
	}
}

func (l *lab) open(t *testing.T) *Reconciler {
	t.Helper()
	r, err := New(Options{NetNS: l.node.Path, Namespaces: []string{l.folder, "/does/not/exist"}, Logger: slog.New(slog.NewTextHandler(&l.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func (l *lab) apply(t *testing.T, r *Reconciler, mtu int) {
	t.Helper()
	s := felix.State{Pods: []felix.PodLink{l.link}, MTU: felix.MTU{Pod: mtu}}
	if err := r.Apply(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// show is the node's end as iproute2 knows it.
func (l *lab) show() string {
	return l.node.IP("-o link show dev "+device) + l.node.IP("-6 -o addr show dev "+device+" to fe80::ecee:eeff:feee:eeee") +
		l.node.IP("neigh show dev "+device+" nud permanent") + l.node.IP("-6 neigh show dev "+device+" nud permanent")
}

func (l *lab) want(t *testing.T, words ...string) {
	t.Helper()
	for _, w := range words {
		if text := l.show(); !strings.Contains(text, w) {
			t.Errorf("lacks %q:\n%s", w, text)
		}
	}
}

var whole = []string{",UP", "fe80::ecee:eeff:feee:eeee/64", "10.65.0.5 lladdr " + podMAC, "fd65::5 lladdr " + podMAC}

func TestWhatALinkLosesIsPutBack(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	<-r.Ready()
	l.apply(t, r, 0)
	l.want(t, whole...)
	select {
	case <-r.Changed():
		t.Error("our own changes are taken for somebody else's")
	default:
	}
	before := r.Drift()
	for _, spoil := range []string{
		"link set " + device + " down", "-6 addr flush dev " + device, "neigh del 10.65.0.5 dev " + device,
		"-6 neigh flush dev " + device + " nud permanent",
	} {
		l.node.IP(spoil)
		select {
		case <-r.Changed():
		case <-time.After(3 * time.Minute):
			t.Fatalf("no hint after ip %s", spoil)
		}
		l.apply(t, r, 0)
		l.want(t, whole...)
	}
	if n := r.Drift(); before != 0 || n < 4 {
		t.Errorf("drift counted: %d before, %d after", before, n)
	}
	l.node.IP("link del " + device)
	l.apply(t, r, 0) // gone with its pod: no error
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestNeighbourThatTheKernelForgets: an entry beside those of the pod's addresses, as a pod's
// link-local address has one for a while, comes and goes without anything to be put back.
func TestNeighbourThatTheKernelForgets(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	<-r.Ready()
	l.apply(t, r, 0)
	for _, other := range []string{"10.65.0.99", "fe80::99"} {
		l.node.IP("neigh add " + other + " lladdr " + podMAC + " nud stale dev " + device)
		l.node.IP("neigh del " + other + " dev " + device)
	}
	l.node.IP("neigh del 10.65.0.5 dev " + device) // the last event: those before have been seen with it
	select {
	case <-r.Changed():
	case <-time.After(3 * time.Minute):
		t.Fatal("no hint")
	}
	if n := r.Drift(); n != 1 {
		t.Errorf("drift counted: %d, want the pod's own entry alone", n)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAdoptionTouchesNothing(t *testing.T) {
	l := newLab(t)
	l.visible(t)
	l.apply(t, l.open(t), 1400)
	nstest.Eventually(t, "the kernel has no more to say of the links", func() bool {
		m := l.node.Monitor("link", "address", "neigh")
		time.Sleep(300 * time.Millisecond)
		return len(m.Lines()) == 0
	})
	m := l.node.Monitor("link", "address", "neigh")
	l.apply(t, l.open(t), 1400)
	if lines := m.Lines(); len(lines) > 0 {
		t.Errorf("a fresh process touched what is as wanted: %q", lines)
	}
}

func TestRunningPodsFollowTheMTU(t *testing.T) {
	l := newLab(t)
	l.visible(t)
	r := l.open(t)
	for _, mtu := range []string{"1400", "1380", "1500"} {
		l.apply(t, r, map[string]int{"1400": 1400, "1380": 1380, "1500": 1500}[mtu])
		l.want(t, "mtu "+mtu+" ")
		if got := l.pod.IP("-o link show dev eth0"); !strings.Contains(got, "mtu "+mtu+" ") {
			t.Errorf("the pod's end: %s", got)
		}
	}
	l.node.IP("link set " + device + " mtu 1450") // by somebody else
	l.apply(t, r, 1500)
	l.want(t, "mtu 1500 ")
	l.link.MTU = 1500 // asked for by the CNI configuration
	l.apply(t, r, 1300)
	l.want(t, "mtu 1500 ")
}

func TestNamespaceThatIsNotFoundKeepsBothEnds(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	l.apply(t, r, 1300)
	l.apply(t, r, 1310)
	l.want(t, "mtu 1400 ")
	if got := l.pod.IP("-o link show dev eth0"); !strings.Contains(got, "mtu 1400 ") {
		t.Errorf("the pod's end: %s", got)
	}
	if lines := strings.Split(l.log.String(), "\n"); slices.IndexFunc(lines, func(s string) bool {
		return strings.Contains(s, "keep their MTU") && strings.Contains(s, device)
	}) < 0 || strings.Count(l.log.String(), "keep their MTU") != 1 {
		t.Errorf("it is to be said once that the pod keeps its MTU: %s", l.log.String())
	}
}

func TestPeeringAddressesComeAndGo(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	apply := func(prune bool, peering ...string) {
		t.Helper()
		l.link.Peering = nil
		for _, a := range peering {
			l.link.Peering = append(l.link.Peering, netip.MustParseAddr(a))
		}
		if err := r.Apply(t.Context(), felix.State{Pods: []felix.PodLink{l.link}, Prune: prune}); err != nil {
			t.Fatal(err)
		}
	}
	show := func() string { return l.node.IP("-o addr show dev " + device) }
	wants := func(peering bool) {
		t.Helper()
		for _, text := range []string{"inet 169.254.0.179/32 scope host", "inet6 fd12::179/128 scope global nodad deprecated noprefixroute"} {
			if got := show(); strings.Contains(got, text) != peering {
				t.Errorf("has %q: %v, want %v:\n%s", text, !peering, peering, got)
			}
		}
		l.want(t, whole...)
	}
	l.node.IP("addr add 192.0.2.1/24 dev " + device) // somebody else's: no host address
	apply(true)
	wants(false)
	apply(true, "169.254.0.179", "fd12::179")
	wants(true)
	if routes := l.node.IP("-6 route show dev " + device); strings.Contains(routes, "fd12::179") {
		t.Errorf("the address made a route: %s", routes)
	}
	l.node.IP("addr del 169.254.0.179/32 dev " + device)
	apply(true, "169.254.0.179", "fd12::179") // after what the kernel has told
	wants(true)
	apply(false) // not before all is known
	wants(true)
	r = l.open(t) // another process finds it
	apply(true)
	wants(false)
	if got := show(); !strings.Contains(got, "192.0.2.1/24") {
		t.Errorf("another's address is gone:\n%s", got)
	}
}

// TestAdvertisedToTheNode adopts the link of a pod that has made itself the node's
// router: the kernel listens no more, and what it made of it goes.
func TestAdvertisedToTheNode(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	l.apply(t, r, 1400)
	l.node.IP("-6 addr add 2001:db8:bad::1/64 dev " + device + " valid_lft 1800 preferred_lft 1800 nodad")
	for _, name := range []string{"accept_ra", "accept_redirects"} {
		if now := l.node.Run("sysctl", "-n", "net.ipv6.conf."+device+"."+name); now != "0\n" {
			t.Errorf("%s of a link that was kept is %s", name, now)
		}
		l.node.Run("sysctl", "-qw", "net.ipv6.conf."+device+"."+name+"=1")
	}
	fresh := l.open(t)
	l.apply(t, fresh, 1400)
	for _, name := range []string{"accept_ra", "accept_redirects"} {
		if now := l.node.Run("sysctl", "-n", "net.ipv6.conf."+device+"."+name); now != "0\n" {
			t.Errorf("%s of an adopted link is %s", name, now)
		}
	}
	if left := l.node.IP("-6 -o addr show dev " + device + " scope global"); left != "" {
		t.Errorf("the address that the pod gave the node's end is left: %s", left)
	}
	if !strings.Contains(l.show(), "fe80::ecee:eeff:feee:eeee") {
		t.Error("the gateway's address is gone, too")
	}
}

// Reverse path filtering is strict, but for a pod that may send from anywhere, and
// stays so when somebody sets what all links have.
func TestReversePath(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	<-r.Ready()
	const key = "net.ipv4.conf." + device + ".rp_filter"
	check := func(want string) {
		t.Helper()
		l.apply(t, r, 0)
		if got := strings.TrimSpace(l.node.Run("sysctl", "-n", key)); got != want {
			t.Errorf("rp_filter is %s, want %s", got, want)
		}
	}
	check("1")
	l.node.Run("sysctl", "-qw", key+"=2")
	select {
	case <-r.Changed():
	case <-time.After(time.Minute):
		t.Fatal("no hint")
	}
	check("1")
	l.link.AnySource = true
	check("0")
	l.link.AnySource = false
	check("1")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
