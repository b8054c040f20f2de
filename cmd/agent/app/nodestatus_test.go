package app

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
)

func addrOf(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefixOf(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func TestRoutesOfAStatus(t *testing.T) {
	state := felix.State{Routes: []felix.Route{
		{Prefix: prefixOf("10.244.1.0/26"), NextHopGroup: &felix.NextHopGroup{Type: felix.Blackhole}},
		{Prefix: prefixOf("10.244.1.5/32"), NextHopGroup: &felix.NextHopGroup{LinkScope: true, NextHops: []felix.NextHop{{Device: "cali1"}}}},
		{Prefix: prefixOf("10.244.2.0/26"), NextHopGroup: &felix.NextHopGroup{NextHops: []felix.NextHop{{Gateway: addrOf("192.0.2.2"), Device: "eth0"}}}},
		{Prefix: prefixOf("10.244.3.0/26"), NextHopGroup: &felix.NextHopGroup{NextHops: []felix.NextHop{{Gateway: addrOf("192.0.2.253"), Device: "eth0"}, {Gateway: addrOf("192.0.2.254"), Device: "eth0"}}}},
	}}
	learned := []model.Learned{
		{Prefix: prefixOf("10.244.2.0/26"), Multipath: &model.Multipath{NextHops: []netip.Addr{addrOf("192.0.2.2")}, From: []netip.Addr{addrOf("192.0.2.2")}, Mesh: true}},
		{Prefix: prefixOf("10.244.3.0/26"), Multipath: &model.Multipath{NextHops: []netip.Addr{addrOf("192.0.2.253"), addrOf("192.0.2.254")}, From: []netip.Addr{addrOf("192.0.2.1"), addrOf("192.0.2.254")}}},
		{Prefix: prefixOf("fd00::/64"), Multipath: &model.Multipath{NextHops: []netip.Addr{addrOf("fd01::1")}, From: []netip.Addr{addrOf("fd01::1")}}},
	}
	host := model.Host{
		Links: []model.Link{{Index: 2, Name: "eth0"}},
		Routes: []model.HostRoute{
			{Prefix: prefixOf("192.0.2.0/24"), LinkIndex: 2},
			{Prefix: prefixOf("0.0.0.0/0"), Gateways: []netip.Addr{addrOf("192.0.2.1")}, LinkIndex: 2},
		},
	}
	row := func(kind, to, via, dev, from, peer string) kube.NodeRoute {
		return kube.NodeRoute{Type: kind, Destination: to, Gateway: via, Interface: dev, LearnedFrom: kube.LearnedFrom{SourceType: from, PeerIP: peer}}
	}
	want := &kube.RouteStatus{
		V4: []kube.NodeRoute{
			row("FIB", "10.244.1.0/26", "N/A", "blackhole", "Static", ""),
			row("FIB", "10.244.1.5/32", "N/A", "cali1", "Kernel", ""),
			row("FIB", "10.244.2.0/26", "192.0.2.2", "eth0", "NodeMesh", "192.0.2.2"),
			row("FIB", "10.244.3.0/26", "192.0.2.253", "eth0", "BGPPeer", "192.0.2.1"),
			row("FIB", "10.244.3.0/26", "192.0.2.254", "eth0", "BGPPeer", "192.0.2.254"),
			row("FIB", "192.0.2.0/24", "N/A", "eth0", "Direct", ""),
			row("FIB", "0.0.0.0/0", "192.0.2.1", "eth0", "Kernel", ""),
		},
		V6: []kube.NodeRoute{row("RIB", "fd00::/64", "fd01::1", "", "BGPPeer", "fd01::1")},
	}
	if d := cmp.Diff(want, routesOf(state, learned, host)); d != "" {
		t.Errorf("routes (-want +got):\n%s", d)
	}
}

func TestRoutesOfAStatusAreBounded(t *testing.T) {
	var state felix.State
	for i := range routesInStatus + 10 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
		state.Routes = append(state.Routes, felix.Route{Prefix: p, NextHopGroup: &felix.NextHopGroup{Type: felix.Blackhole}})
	}
	if n := len(routesOf(state, nil, model.Host{}).V4); n != routesInStatus {
		t.Errorf("%d routes", n)
	}
}

func TestSessionsOfAStatus(t *testing.T) {
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	got := sessionsOf([]model.PeerStatus{
		{Address: addrOf("192.0.2.2"), Kind: "NodeMesh", State: "Established", Since: since, LastError: "of a session before"},
		{Address: addrOf("192.0.2.254"), Kind: "GlobalPeer", State: "Active", LastError: "connection refused"},
		{Address: addrOf("fd01::1"), Kind: "NodePeer", State: "OpenSent"},
	})
	want := &kube.BGPStatus{
		EstablishedV4: 1, NotEstablishedV4: 1, NotEstablishedV6: 1,
		PeersV4: []kube.NodePeer{
			{PeerIP: "192.0.2.2", Type: "NodeMesh", State: "Established", Since: "2026-01-02T03:04:05Z"},
			{PeerIP: "192.0.2.254", Type: "GlobalPeer", State: "Active", LastError: "connection refused"},
		},
		PeersV6: []kube.NodePeer{{PeerIP: "fd01::1", Type: "NodePeer", State: "OpenSent"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("sessions (-want +got):\n%s", d)
	}
}

func TestDaemonsOfAStatus(t *testing.T) {
	self := model.Node{IPv4: prefixOf("192.0.2.1/24")}
	config := bgp.Config{ASN: 64512, RouterID: addrOf("192.0.2.1")}
	got := daemons(self, config, "muslin dev", time.Unix(0, 0), time.Unix(60, 0))
	want := &kube.DaemonStatus{
		V4: kube.Daemon{State: "Ready", Version: "muslin dev", RouterID: "192.0.2.1", BootTime: "1970-01-01T00:00:00Z", ReconfigurationWas: "1970-01-01T00:01:00Z"},
		V6: kube.Daemon{State: "NotReady"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("daemons (-want +got):\n%s", d)
	}
	if got := daemons(self, bgp.Config{}, "x", time.Unix(0, 0), time.Time{}); got.V4.State != "NotReady" {
		t.Errorf("not configured yet: %+v", got)
	}
}
