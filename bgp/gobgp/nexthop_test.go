package gobgp

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/bgp/internal/bgptest"
	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/radv"
	"github.com/muslin-net/muslin/felix/route"
	"github.com/muslin-net/muslin/pkg/model"
)

// IPv4 routes over an IPv6 session, with IPv6 next hops where the peer sends
// them (RFC 8950).
func TestIPv4OverIPv6(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b := n.Host(1), n.Host(2)
	bird := b.StartBIRD(`protocol static { ipv4; route 10.244.50.0/26 blackhole; }
protocol static { ipv6; route fd44:50::/64 blackhole; }
protocol bgp node { local fd09::2 as 65001; neighbor fd09::1 as 64512; connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv4 { extended next hop on; import all; export all; }; ipv6 { import all; export all; }; }
`)
	s := startSpeaker(t, a, "")
	s.apply(desired(t, withPeer(clusterOf(a), b.V6, 65001)))
	s.established(b.V6)
	bgptest.Eventually(t, "learned", bgptest.Contains(s.learned, "10.244.50.0/26 via [fd09::2]", "fd44:50::/64 via [fd09::2]"))
	bgptest.Eventually(t, "told", bgptest.Contains(bird.Routes, own, "BGP.next_hop: 10.9.0.1", "fd44::40/122", "BGP.next_hop: fd09::1"))
}

// A router known by its link-local address alone, which knows the node by the link
// alone: it hears from its router advertisements who that is. One that has a global address on
// the link too sends both as next hop (RFC 2545 section 3), and nobody but itself
// knows a way to the global one.
func TestUnnumbered(t *testing.T) {
	t.Run("no global address", func(t *testing.T) { unnumbered(t, "true") })
	t.Run("global address of its own", func(t *testing.T) { unnumbered(t, "ip addr add 2001:db8:9::2/64 dev e0 nodad") })
}

func unnumbered(t *testing.T, setUp string) {
	t.Parallel()
	n := bgptest.New(t)
	a, b := n.Host(1), n.Host(2)
	for _, h := range []*bgptest.Host{a, b} { // addresses on the loopback, none on the link
		h.Run("ip addr flush dev e0 scope global; ip addr add " + h.V4 + "/32 dev lo; ip addr add " + h.V6 + "/128 dev lo")
	}
	b.Run(setUp)
	frr := b.StartFRR(`router bgp 65001
 bgp router-id 10.9.0.2
 no bgp ebgp-requires-policy
 no bgp network import-check
 no bgp default ipv4-unicast
 neighbor e0 interface remote-as external
 neighbor e0 timers connect 1
 address-family ipv4 unicast
  neighbor e0 activate
  network 10.244.50.0/26
 exit-address-family
 address-family ipv6 unicast
  neighbor e0 activate
  network fd44:50::/64
 exit-address-family
`)
	s := startSpeaker(t, a, "")
	peer := linkLocalOf(b) + "%e0"
	snap := withPeer(clusterOf(a), peer, 65001)
	snap.Peers[0].Name = "router"
	s.apply(desired(t, snap))
	kernel := startKernel(t, a)
	kernel.apply(snap, nil) // FRR knows no neighbour on e0 before it hears of one
	s.established(peer)
	bgptest.Eventually(t, "learned", bgptest.Contains(s.learned, "10.244.50.0/26 via ["+peer+"]", "fd44:50::/64 via ["+peer+"]"))
	bgptest.Eventually(t, "v4 at FRR", bgptest.Contains(func() string { return frr.Ask("show bgp ipv4 unicast 10.244.1.0/26") }, "valid", linkLocalOf(a)))
	bgptest.Eventually(t, "v6 at FRR", bgptest.Contains(func() string { return frr.Ask("show bgp ipv6 unicast fd44::40/122") }, "valid", linkLocalOf(a)))
	bgptest.Eventually(t, "in the router's kernel", bgptest.Contains(func() string { return b.Run("ip route show 10.244.1.0/26") }, "via inet6 "+linkLocalOf(a)+" dev e0"))

	kernel.apply(snap, s.state().Learned)
	for show, want := range map[string]string{"ip route show 10.244.50.0/26": "via inet6 ", "ip -6 route show fd44:50::/64": "via "} {
		if got := a.Run(show); !strings.Contains(got, want+linkLocalOf(b)+" dev e0") {
			t.Errorf("%s: %q", show, got)
		}
	}
}

// kernel is a host's, as the agent of node "a" keeps it for BGP's sake.
type kernel struct {
	t      *testing.T
	host   *bgptest.Host
	routes *route.Reconciler
	radv   *radv.Advertiser
}

func startKernel(t *testing.T, h *bgptest.Host) *kernel {
	t.Helper()
	ns := "/run/netns/" + h.NS
	routes, err := route.New(route.Options{NetNS: ns})
	if err != nil {
		t.Fatal(err)
	}
	advertiser, err := radv.New(radv.Options{NetNS: ns})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := advertiser.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		running.Wait()
		if err := errors.Join(routes.Close(), advertiser.Close()); err != nil {
			t.Error(err)
		}
	})
	return &kernel{t, h, routes, advertiser}
}

// apply has the kernel do what it has to when BGP has learned routes.
func (k *kernel) apply(snap model.Snapshot, learned []model.Learned) {
	k.t.Helper()
	words := strings.Fields(k.host.Run(`cat /sys/class/net/e0/ifindex /sys/class/net/e0/address`))
	index, err := strconv.Atoi(words[0])
	if err != nil {
		k.t.Fatal(err)
	}
	state, _ := felix.Desired(felix.Input{
		Self: "a", Snapshot: snap, Learned: learned, LearnedSynced: true, Unnumbered: []string{"e0"},
		Host: model.Host{Links: []model.Link{
			{Index: 1, Name: "lo", Up: true, AdminUp: true, Addresses: prefixes(k.host.V4+"/32", k.host.V6+"/128")},
			{Index: index, Name: "e0", Up: true, AdminUp: true, MAC: words[1], MTU: 1500, Addresses: prefixes(linkLocalOf(k.host) + "/64")},
		}}, HostSynced: true,
	})
	for _, apply := range []func(context.Context, felix.State) error{k.radv.Apply, k.routes.Apply} {
		if err := apply(k.t.Context(), state); err != nil {
			k.t.Fatal(err)
		}
	}
}

// cable joins two hosts by a cable of its own, with addresses of subnets that
// nobody else knows; the second host loses the net.
func cable(a, b *bgptest.Host) {
	b.Run("ip link set e0 down")
	a.Run("ip link add e1 type veth peer name e1 netns " + b.NS)
	for h, last := range map[*bgptest.Host]string{a: "1", b: "254"} {
		h.Run("ip addr add 10.8.0." + last + "/24 dev e1; ip addr add fd08::" + last + "/64 dev e1 nodad; ip link set e1 up")
	}
}

// nextHopsOf is what the kernel of a host has on its two uplinks.
func nextHopsOf(a *bgptest.Host) bgp.FIB {
	return bgp.NewFIB(model.Host{Links: []model.Link{
		{Index: 2, Name: "e0", Addresses: prefixes(a.V4+"/24", a.V6+"/64")},
		{Index: 3, Name: "e1", Addresses: prefixes("10.8.0.1/24", "fd08::1/64")},
	}}, nil)
}

// A router on the node's second uplink, which knows no way to the node's address.
func TestSecondUplink(t *testing.T) {
	none := func(p *model.BGPPeer) { p.AnySource = true }
	own := []string{"10.244.1.0/26", "fd44::40/122"}
	for name, far := range map[string]string{"IPv4": "10.8.0.254", "IPv6": "fd08::254"} {
		near := map[string]string{"IPv4": "10.8.0.1", "IPv6": "fd08::1"}[name]
		t.Run("FRR over "+name, func(t *testing.T) {
			t.Parallel()
			n := bgptest.New(t)
			a, b := n.Host(1), n.Host(2)
			cable(a, b)
			conf := bgptest.FRRPeer(65001, "10.8.0.254", near, 64512, "", "10.244.50.0/26", "fd44:50::/64")
			frr := b.StartFRR(strings.Replace(conf, " neighbor "+near+" ebgp-multihop 255\n", " neighbor "+near+" capability extended-nexthop\n", 1))
			s := startSpeaker(t, a, "")
			s.apply(desiredOn(t, withPeer(clusterOf(a), far, 65001, none), nextHopsOf(a)))
			s.established(far)
			for family, prefix := range map[string]string{"ipv4": own[0], "ipv6": own[1]} {
				bgptest.Eventually(t, "usable at FRR", func() string {
					got := frr.Ask("show bgp " + family + " unicast " + prefix)
					if strings.Contains(got, "inaccessible") || !strings.Contains(got, "valid, external") {
						return got
					}
					return ""
				})
			}
			bgptest.Eventually(t, "learned", bgptest.Contains(s.learned, "10.244.50.0/26 via [", "fd44:50::/64 via ["))
		})
		t.Run("BIRD over "+name, func(t *testing.T) {
			t.Parallel()
			n := bgptest.New(t)
			a, b := n.Host(1), n.Host(2)
			cable(a, b)
			bird := b.StartBIRD("protocol bgp node { local " + far + " as 65001; neighbor " + near + ` as 64512; connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv4 { extended next hop on; import all; export all; }; ipv6 { import all; export all; }; }
`)
			s := startSpeaker(t, a, "")
			s.apply(desiredOn(t, withPeer(clusterOf(a), far, 65001, none), nextHopsOf(a)))
			s.established(far)
			for prefix, nh := range map[string]string{own[0]: "BGP.next_hop: 10.8.0.1", own[1]: "BGP.next_hop: fd08::1"} {
				bgptest.Eventually(t, "reachable at BIRD", func() string {
					got := bird.Route(prefix)
					if strings.Contains(got, "unreachable") || !strings.Contains(got, "dev e1") && !strings.Contains(got, "on e1") || !strings.Contains(got, nh) {
						return got
					}
					return ""
				})
			}
		})
	}
}

// IPv6 over an IPv4 session, with routers that have no IPv6 address on the link but
// the link-local one, or that name none.
func TestIPv6OverIPv4(t *testing.T) {
	for name, tc := range map[string]struct {
		setUp, options string
		via            string // LL: the router's link-local address on the node's link; empty: refused
	}{
		"no global address":     {setUp: "ip addr flush dev e0 scope global; ip addr add 10.9.0.2/24 dev e0", via: "LL%e0"},
		"address of the node's": {setUp: "true", via: "fd09::2"},
		"mapped address":        {setUp: "true", options: "set ipv6 next-hop global ::ffff:10.9.0.2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := bgptest.New(t)
			a, b := n.Host(1), n.Host(2)
			b.Run(tc.setUp)
			conf := bgptest.FRRPeer(65001, b.V4, a.V4, 64512, "", "10.244.50.0/26", "fd44:50::/64")
			if tc.options != "" {
				conf = strings.Replace(conf, "address-family ipv6 unicast\n", "address-family ipv6 unicast\n  neighbor "+a.V4+" route-map out out\n", 1) +
					"route-map out permit 10\n " + tc.options + "\n"
			}
			b.StartFRR(conf)
			s := startSpeaker(t, a, "")
			s.apply(desiredOn(t, withPeer(clusterOf(a), b.V4, 65001), bgp.NewFIB(model.Host{Links: []model.Link{
				{Index: 2, Name: "e0", Addresses: []netip.Prefix{pfx(a.V4 + "/24"), pfx(a.V6 + "/64")}},
			}}, nil)))
			s.established(b.V4)
			bgptest.Eventually(t, "IPv4", bgptest.Contains(s.learned, "10.244.50.0/26 via ["+b.V4+"]"))
			if tc.via == "" {
				bgptest.Eventually(t, "refused", bgptest.Contains(s.refused, "fd44:50::/64: unusable next hop"))
				bgptest.Eventually(t, "told of", bgptest.Contains(s.odd, "fd44:50::/64 from "+b.V4+" by AS 0"))
				if bad := bgptest.Lacks(s.learned, "fd44:50::")(); bad != "" {
					t.Error(bad)
				}
				return
			}
			via := strings.Replace(tc.via, "LL", linkLocalOf(b), 1)
			bgptest.Eventually(t, "IPv6", bgptest.Contains(s.learned, "fd44:50::/64 via ["+via+"]"))
		})
	}
}
