package radv

import (
	"context"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/felix/internal/nstest"
)

const mac = "02:00:00:00:00:01"

// wire is a router at the other end of the node's link e0.
type wire struct {
	t            *testing.T
	node, router *nstest.NS
	fd           int // the router's, for ICMPv6
	link         felix.AdvertisedLink
	a            *Advertiser
}

func plug(t *testing.T, interval time.Duration) *wire {
	t.Helper()
	node, router := nstest.New(t), nstest.New(t)
	node.Veth("e0", router, "e1", []string{"fe80::1/64"}, []string{"fe80::2/64"})
	a, err := New(Options{NetNS: node.Path, Interval: interval})
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{t: t, node: node, router: router, a: a, link: felix.AdvertisedLink{Device: "e0", Link: node.Index("e0"), MAC: mac}}
	ns, err := nl.Open(router.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := ns.Do(func() (err error) {
		w.fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	must(t, unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 30}))
	must(t, unix.SetsockoptInt(w.fd, unix.SOL_IPV6, unix.IPV6_RECVHOPLIMIT, 1))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		must(t, <-done)
		must(t, a.Close())
		must(t, unix.Close(w.fd))
	})
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// apply names the links to advertise on.
func (w *wire) apply(links ...felix.AdvertisedLink) {
	w.t.Helper()
	must(w.t, w.a.Apply(w.t.Context(), felix.State{Advertised: links}))
}

// solicit asks all routers, with a hop limit.
func (w *wire) solicit(hops int) {
	w.t.Helper()
	must(w.t, unix.SetsockoptInt(w.fd, unix.SOL_IPV6, unix.IPV6_MULTICAST_HOPS, hops))
	to := &unix.SockaddrInet6{Addr: allRouters.As16(), ZoneId: uint32(w.router.Index("e1"))}
	must(w.t, unix.Sendto(w.fd, []byte{solicitation, 0, 0, 0, 0, 0, 0, 0}, 0, to))
}

// next is the next advertisement that the router hears, less its checksum.
func (w *wire) next() (text string, hops int) {
	w.t.Helper()
	var message, control [256]byte
	for {
		n, nc, _, _, err := unix.Recvmsg(w.fd, message[:], control[:], 0)
		must(w.t, err)
		if n >= 4 && message[0] == advertisement {
			_, hops = origin(control[:nc])
			message[2], message[3] = 0, 0
			return hex.EncodeToString(message[:n]), hops
		}
	}
}

// An advertisement says who is there, and makes the node nobody's default router.
func TestAdvertisement(t *testing.T) {
	w := plug(t, time.Hour)
	w.apply(w.link)
	const want = "86000000" + "00000000" + "00000000" + "00000000" + "0101020000000001"
	if text, hops := w.next(); text != want || hops != 255 {
		t.Errorf("got %s with hop limit %d, want %s", text, hops, want)
	}
	w.apply(w.link) // nothing new
	w.apply()
	w.apply(w.link)
	if text, _ := w.next(); text != want {
		t.Errorf("named again: got %s", text)
	}
}

// Who asks is answered, if it is on the link itself: a router has put down the hop
// limit of what comes from elsewhere.
func TestSolicited(t *testing.T) {
	w := plug(t, time.Hour)
	w.apply(w.link)
	w.next()
	w.solicit(64)
	w.solicit(255)
	w.next()
	other := w.link
	other.MAC = "02:00:00:00:00:02"
	w.apply(other)
	if text, _ := w.next(); !strings.HasSuffix(text, "0101020000000002") {
		t.Errorf("a solicitation from elsewhere was answered: %s", text)
	}
}

// A link that goes while it is in use is told of once and holds up no other.
func TestLinkGoes(t *testing.T) {
	w := plug(t, 10*time.Millisecond)
	gone := felix.AdvertisedLink{Device: "d0", MAC: mac}
	w.node.IP("link add d0 type veth peer name d1")
	w.node.IP("link set d0 up")
	w.node.IP("link set d1 up")
	gone.Link = w.node.Index("d0")
	nstest.Eventually(t, "the link has an address of its own", func() bool {
		return w.a.Apply(t.Context(), felix.State{Advertised: []felix.AdvertisedLink{gone, w.link}}) == nil
	})
	w.node.IP("link del d0")
	select {
	case <-w.a.Changed():
	case <-t.Context().Done():
	}
	err := w.a.Apply(t.Context(), felix.State{Advertised: []felix.AdvertisedLink{gone, w.link}})
	if err == nil || !strings.Contains(err.Error(), "on d0: ") {
		t.Errorf("got %v", err)
	}
	w.apply(w.link)
	for range 3 {
		w.next()
	}
}

func TestPeriod(t *testing.T) {
	w := plug(t, 10*time.Millisecond)
	w.apply(w.link)
	for range 3 {
		w.next()
	}
}
