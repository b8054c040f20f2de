package tunnel

import (
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nstest"
)

const (
	next = "vxlan.next"
	last = "vxlan.last"
)

// shape is the VNI and port of a device, with its index; empty if there is none.
func shape(node *nstest.NS, device string) string {
	text, err := node.Try("ip", "-d", "-o", "link", "show", "dev", device)
	if err != nil {
		return ""
	}
	index, rest, _ := strings.Cut(text, ":")
	word := func(after string) string {
		_, rest, _ := strings.Cut(rest, after)
		return strings.Fields(rest)[0]
	}
	return index + ": " + word("vxlan id ") + "/" + word("dstport ")
}

func awaitShape(t *testing.T, r *Reconciler, want []felix.Tunnel, what string, ok func() bool) {
	t.Helper()
	nstest.Eventually(t, what, func() bool {
		apply(t, r, want)
		return ok()
	})
}

// slow is a reconciler whose heirs wait for ever.
func slow(t *testing.T, node *nstest.NS) *Reconciler {
	r := open(t, node)
	r.overlap = time.Hour
	return r
}

func TestAnotherNetworkComesBeside(t *testing.T) {
	node := newNode(t)
	want := wanted(t, node)
	apply(t, open(t, node), want)
	was := shape(node, felix.VXLANDevice)

	want = wanted(t, node)
	want[0].VNI, want[0].Port = 5000, 8472
	want[0].Peers = append(want[0].Peers, peer("10.65.254.4", "66:00:00:00:00:04", "10.2.0.4"))
	apply(t, slow(t, node), want)
	successor := shape(node, next)
	if got := shape(node, felix.VXLANDevice); got != was || !strings.HasSuffix(successor, "5000/8472") {
		t.Fatalf("device %s, was %s; heir %s", got, was, successor)
	}
	// Both serve meanwhile: new nodes, too.
	for _, device := range []string{felix.VXLANDevice, next} {
		wantAll(t, node.IP("neigh show dev "+device), "10.65.254.2 lladdr 66:00:00:00:00:02", "10.65.254.4 lladdr")
		wantAll(t, node.IP("-d addr show dev "+device), "inet 10.65.254.1/32", "mtu 1450", "link/ether 66:00:00:00:00:01", ",UP", "alias muslin:tunnel")
	}
	// A fresh process goes on where the other was, and touches nothing.
	m := node.Monitor("link", "address", "neigh")
	apply(t, slow(t, node), want)
	if lines := m.Lines(); len(lines) != 0 {
		t.Errorf("a fresh process touched what is as wanted: %q", lines)
	}
	r := open(t, node)
	awaitShape(t, r, want, "the heir has the name", func() bool { return shape(node, felix.VXLANDevice) == successor })
	if got := shape(node, last); got != was {
		t.Errorf("predecessor %s, want %s", got, was)
	}
	// What is used stays.
	node.IP("route add 10.65.2.0/26 via 10.65.254.3 dev " + last + " onlink proto 109")
	time.Sleep(2 * r.grace)
	apply(t, r, want)
	if got := shape(node, last); got != was {
		t.Errorf("the predecessor went although a route of ours goes over it")
	}
	node.IP("route del 10.65.2.0/26 proto 109")
	awaitShape(t, r, want, "the predecessor goes", func() bool { return shape(node, last) == "" })
	if got := shape(node, felix.VXLANDevice); got != successor {
		t.Errorf("device %s, want %s", got, successor)
	}
}

func TestAnotherNetworkIsRevoked(t *testing.T) {
	node := newNode(t)
	first, second, third := wanted(t, node), wanted(t, node), wanted(t, node)
	second[0].VNI, third[0].Port = 5000, 8472
	r := slow(t, node)
	apply(t, r, first)
	was := shape(node, felix.VXLANDevice)
	apply(t, r, second)
	apply(t, r, third) // a change of mind: another heir
	if got := shape(node, next); !strings.HasSuffix(got, "4096/8472") {
		t.Errorf("heir: %s", got)
	}
	awaitShape(t, r, first, "the heir goes", func() bool { return shape(node, next) == "" })
	if got := shape(node, felix.VXLANDevice); got != was {
		t.Errorf("device %s, was %s", got, was)
	}
}

// TestBetweenTwoNames is a process that ended after the one name was given and
// before the other was.
func TestBetweenTwoNames(t *testing.T) {
	node := newNode(t)
	want := wanted(t, node)
	apply(t, open(t, node), want)
	want[0].VNI = 5000
	apply(t, slow(t, node), want)
	successor := shape(node, next)
	node.IP("link set " + felix.VXLANDevice + " down") // Linux before 6.2 renames no other
	node.IP("link set " + felix.VXLANDevice + " name " + last)
	node.IP("link set " + last + " up")
	r := open(t, node)
	apply(t, r, want)
	if got := shape(node, felix.VXLANDevice); got != successor || shape(node, next) != "" {
		t.Errorf("device %s, heir was %s", got, successor)
	}
	awaitShape(t, r, want, "the predecessor goes", func() bool { return shape(node, last) == "" })
}
