//go:build vmtest

package acceptance

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nstest"
	"github.com/muslin-net/muslin/felix/tunnel"
	"github.com/muslin-net/muslin/pkg/model"
)

var ipip = encapsulation{
	devices: []string{felix.IPIPDevice},
	set:     func(p *model.Pool, e model.Encap) { p.IPIP, p.VXLAN = e, model.EncapNever },
}

func TestIPIPChangesWithoutLoss(t *testing.T) { changeUnderTraffic(t, ipip) }

// device is tunl0 as a node wants it.
func device(address string) felix.State {
	return felix.State{Prune: true, Tunnels: []felix.Tunnel{{
		Kind: felix.IPIP, Name: felix.IPIPDevice, Address: netip.MustParseAddr(address), Local: netip.MustParseAddr("10.1.0.1"), MTU: 1460,
	}}}
}

func reconciler(t *testing.T, ns *nstest.NS) *tunnel.Reconciler {
	t.Helper()
	r, err := tunnel.New(tunnel.Options{NetNS: ns.Path, Grace: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func apply(t *testing.T, r *tunnel.Reconciler, s felix.State) {
	t.Helper()
	if err := r.Apply(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// shows compares what ip tells of tunl0 with words that have to be there, or
// not (those with a "!").
func shows(t *testing.T, ns *nstest.NS, when string, words ...string) {
	t.Helper()
	text := ns.IP("-d addr show dev tunl0")
	for _, word := range words {
		word, absent := strings.CutPrefix(word, "!")
		if strings.Contains(text, word) == absent {
			t.Errorf("%s: %q is to be there: %t\n%s", when, word, !absent, text)
		}
	}
}

func TestIPIPDeviceIsAdopted(t *testing.T) {
	ns := nstest.New(t)
	apply(t, reconciler(t, ns), device("10.65.1.1"))
	shows(t, ns, "made", "alias muslin:tunnel", "inet 10.65.1.1/32", "mtu 1460", ",UP", "ipip any remote any local any")
	monitor := ns.Monitor("link", "address")
	apply(t, reconciler(t, ns), device("10.65.1.1"))
	if lines := monitor.Lines(); len(lines) > 0 {
		t.Errorf("a fresh process touched what is as wanted: %q", lines)
	}
	apply(t, reconciler(t, ns), device("10.65.1.9"))
	shows(t, ns, "another address", "inet 10.65.1.9/32", "!10.65.1.1/32")
}

func TestIPIPDeviceIsRepaired(t *testing.T) {
	ns := nstest.New(t)
	r := reconciler(t, ns)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	<-r.Ready()
	apply(t, r, device("10.65.1.1"))
	for _, spoil := range []string{"link set tunl0 down", "link set tunl0 mtu 1200", "addr flush dev tunl0", "addr add 10.66.0.1/32 dev tunl0"} {
		ns.IP(spoil)
		select {
		case <-r.Changed():
		case <-time.After(3 * time.Minute):
			t.Fatalf("no hint after ip %s", spoil)
		}
		apply(t, r, device("10.65.1.1"))
		shows(t, ns, spoil, "inet 10.65.1.1/32", "mtu 1460", ",UP", "!10.66.0.1")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestIPIPDeviceIsRetired(t *testing.T) {
	ns := nstest.New(t)
	r := reconciler(t, ns)
	apply(t, r, device("10.65.1.1"))
	ns.IP("route add 10.65.2.0/26 via 10.1.0.2 dev tunl0 onlink proto 109")
	apply(t, r, felix.State{Prune: true})
	time.Sleep(10 * time.Millisecond) // longer than it lingers
	apply(t, r, felix.State{Prune: true})
	shows(t, ns, "a route of ours is left", "inet 10.65.1.1/32", ",UP")
	ns.IP("route del 10.65.2.0/26 proto 109")
	apply(t, r, felix.State{Prune: true})
	shows(t, ns, "no route is left", "!inet", "!,UP", "!alias")
	apply(t, r, device("10.65.1.1"))
	shows(t, ns, "wanted again", "inet 10.65.1.1/32", "alias muslin:tunnel", ",UP")
}
