package gobgp

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/bgp/internal/bgptest"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/selector"
)

// field is one field with one value, judged by a BIRD on the other side.
type field struct {
	name    string
	as      int                                       // BIRD's AS; 0: 65001
	bird    string                                    // options of BIRD's session
	static  string                                    // BIRD's static routes, IPv4
	change  func(*model.Snapshot, *model.BGPPeer)     // what is set
	at      []string                                  // in "show route all" at BIRD
	not     []string                                  // not there
	session []string                                  // in "show protocols all node"
	learned []string                                  // at the speaker
	reasons []string                                  // of refusals
	refused []string                                  // not learned
	extra   func(*testing.T, *process, *bgptest.BIRD) // further checks
}

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func one[T any](v T) *T { return &v }

// filter gives the peer a filter with one export or import rule.
func filter(export bool, r model.FilterRule) func(*model.Snapshot, *model.BGPPeer) {
	return func(s *model.Snapshot, p *model.BGPPeer) {
		f := model.BGPFilter{Name: "f"}
		if export {
			f.ExportV4 = []model.FilterRule{r}
		} else {
			f.ImportV4 = []model.FilterRule{r}
		}
		s.Filters, p.Filters = []model.BGPFilter{f}, []string{"f"}
	}
}

func peer(f func(*model.BGPPeer)) func(*model.Snapshot, *model.BGPPeer) {
	return func(_ *model.Snapshot, p *model.BGPPeer) { f(p) }
}

// byLabel gives the peer filters by Service: gold ones one by one, tin ones in
// aggregates, no others.
func byLabel(s *model.Snapshot, p *model.BGPPeer) {
	in := model.FilterRule{CIDR: pfx("172.20.0.0/16"), MatchOperator: "In"}
	accept, marked := in, in
	accept.Accept, marked.Accept = true, true
	marked.Operations = []model.FilterOperation{{AddCommunity: "65000:80"}, {AddCommunity: "64512:1:2"}, {SetPriority: one(512)}}
	s.BGP[0].ServiceLoadBalancers = prefixes("172.20.0.0/16")
	s.Filters = []model.BGPFilter{
		{Name: "gold", Services: selector.Equal("tier", "gold"), ExportV4: []model.FilterRule{marked}},
		{Name: "tin", Services: selector.Equal("tier", "tin"), AggregationLength: 28, ExportV4: []model.FilterRule{accept}},
		{Name: "rest", ExportV4: []model.FilterRule{in}},
	}
	p.Filters = []string{"gold", "tin", "rest"}
	for tier, a := range map[string]string{"gold": "172.20.0.1", "tin": "172.20.1.1", "lead": "172.20.2.1"} {
		s.Services = append(s.Services, model.Service{Name: tier, Labels: map[string]string{"tier": tier},
			LoadBalancerIPs: []netip.Addr{netip.MustParseAddr(a)}, IPv4: model.Endpoints{Anywhere: true}})
	}
}

const (
	own      = "10.244.1.0/26"
	borrowed = "10.244.9.9/32"
	two      = "route 10.244.50.0/26 blackhole; route 10.244.60.0/26 blackhole;"
)

var fields = []field{
	{name: "plain", at: []string{own, borrowed, "BGP.as_path: 64512", "BGP.next_hop: 10.9.0.1"}, not: []string{"local_pref: 2147"}},
	{name: "internal", as: 64512, at: []string{own, "BGP.local_pref: 2147482623", "BGP.next_hop: 10.9.0.1"}},
	{name: "localASNumber", change: peer(func(p *model.BGPPeer) { p.LocalASN = 65300 }), at: []string{own, "BGP.as_path: 65300\n"}},
	{name: "maxRestartTime", bird: "graceful restart on;", change: peer(func(p *model.BGPPeer) { p.MaxRestartTime = 77 * second }),
		at: []string{own}, session: []string{"Restart time: 77"}},
	{name: "keepaliveTime", change: peer(func(p *model.BGPPeer) { p.KeepaliveTime = 5 * second }), at: []string{own},
		extra: func(t *testing.T, s *process, _ *bgptest.BIRD) {
			bgptest.Eventually(t, "keepalive", func() string {
				if k := s.state().Peers[0].Keepalive; k != 5*second {
					return k.String()
				}
				return ""
			})
		}},
	{name: "hold-time", change: peer(func(p *model.BGPPeer) { p.Annotations = map[string]string{"muslin.io/hold-time": "33s"} }),
		at: []string{own}, session: []string{"/33"}},
	{name: "graceful-restart-off", bird: "graceful restart on;", change: peer(annotated("muslin.io/graceful-restart", "Off")), at: []string{own},
		extra: func(t *testing.T, _ *process, bird *bgptest.BIRD) {
			_, neighbor, _ := strings.Cut(bird.Protocol("node"), "Neighbor capabilities")
			if strings.Contains(neighbor, "Graceful restart") {
				t.Errorf("graceful restart is offered:\n%s", neighbor)
			}
		}},
	{name: "multihop-ttl", change: peer(annotated("muslin.io/multihop-ttl", "3")), at: []string{own}},
	{name: "passive", change: peer(annotated("muslin.io/connect", "Passive")), at: []string{own},
		extra: func(t *testing.T, s *process, _ *bgptest.BIRD) {
			if bad := bgptest.Contains(func() string { return s.host.Run("ss -tnH state established") }, "10.9.0.1:179")(); bad != "" {
				t.Errorf("it was the node that connected: %s", bad)
			}
		}},
	{name: "connect-retry", change: peer(annotated("muslin.io/connect-retry", "1s")), at: []string{own}},
	{name: "ttlSecurity", bird: "ttl security on; multihop 1;", change: peer(func(p *model.BGPPeer) { p.TTLSecurity = 1 }), at: []string{own}},
	{name: "sourceAddress-None", change: peer(func(p *model.BGPPeer) { p.AnySource = true }), at: []string{own, "BGP.next_hop: 10.9.0.1"}},
	{name: "numAllowedLocalASNumbers", static: "route 10.244.50.0/26 blackhole { bgp_path.prepend(64512); };",
		change: peer(func(p *model.BGPPeer) { p.NumAllowedLocalASNs = 1 }), learned: []string{"10.244.50.0/26"}},
	{name: "no-allowed-local-as", static: "route 10.244.50.0/26 blackhole { bgp_path.prepend(64512); }; route 10.244.60.0/26 blackhole;",
		learned: []string{"10.244.60.0/26"}, refused: []string{"10.244.50.0/26"}, reasons: []string{"10.244.50.0/26: as path loop"}},

	{name: "export-reject", change: filter(true, model.FilterRule{CIDR: pfx(own), MatchOperator: "Equal"}), at: []string{borrowed}, not: []string{own}},
	{name: "export-not-equal", change: filter(true, model.FilterRule{CIDR: pfx(own), MatchOperator: "NotEqual"}), at: []string{own}, not: []string{borrowed}},
	{name: "export-in", change: filter(true, model.FilterRule{CIDR: pfx("10.244.0.0/20"), MatchOperator: "In"}), not: []string{own, borrowed}},
	{name: "export-not-in", change: filter(true, model.FilterRule{CIDR: pfx("10.244.1.0/24"), MatchOperator: "NotIn"}), at: []string{own}, not: []string{borrowed}},
	{name: "export-lengths", change: filter(true, model.FilterRule{CIDR: pfx("10.244.0.0/16"), MatchOperator: "In", MinLength: one(27), MaxLength: one(32)}),
		at: []string{own}, not: []string{borrowed}},
	{name: "export-from-peers", change: filter(true, model.FilterRule{Source: "RemotePeers"}), at: []string{own, borrowed}},
	{name: "export-peer-type", change: filter(true, model.FilterRule{PeerType: "iBGP"}), at: []string{own, borrowed}},
	{name: "add-community", change: filter(true, model.FilterRule{Accept: true, Operations: []model.FilterOperation{{AddCommunity: "65000:7"}, {AddCommunity: "65000:8"}}}),
		at: []string{own, "BGP.community: (65000,7) (65000,8)"}},
	{name: "add-large-community", change: filter(true, model.FilterRule{Accept: true, Operations: []model.FilterOperation{{AddCommunity: "64512:4000000000:3"}}}),
		at: []string{own, "BGP.large_community: (64512, 4000000000, 3)"}},
	{name: "prepend-own", change: filter(true, model.FilterRule{Accept: true, Operations: []model.FilterOperation{{PrependASPath: []model.ASN{64512, 64512}}}}),
		at: []string{own, "BGP.as_path: 64512 64512 64512\n"}},
	{name: "prepend-others", change: filter(true, model.FilterRule{Accept: true, Operations: []model.FilterOperation{{PrependASPath: []model.ASN{65100, 65200}}, {AddCommunity: "1:2:3"}}}),
		at: []string{own, "BGP.as_path: 64512 65100 65200 64512\n", "BGP.large_community: (1, 2, 3)\n"}},
	{name: "prepend-internal", as: 64512, change: filter(true, model.FilterRule{Accept: true, Operations: []model.FilterOperation{{PrependASPath: []model.ASN{65100, 65200}}}}),
		at: []string{own, "BGP.as_path: 65100 65200\n"}},
	{name: "set-priority", as: 64512, change: filter(true, model.FilterRule{Accept: true, Operations: []model.FilterOperation{{SetPriority: one(512)}}}),
		at: []string{own, "BGP.local_pref: 2147483135"}},
	{name: "match-priority", as: 64512, change: filter(true, model.FilterRule{Priority: one(1024)}), not: []string{own}},

	{name: "import-reject", static: two, change: filter(false, model.FilterRule{CIDR: pfx("10.244.50.0/26"), MatchOperator: "Equal"}),
		learned: []string{"10.244.60.0/26"}, refused: []string{"10.244.50.0/26"}, reasons: []string{"10.244.50.0/26: filter f importV4[0]"}},
	{name: "import-community", static: "route 10.244.50.0/26 blackhole { bgp_community.add((65000,1)); }; route 10.244.60.0/26 blackhole;",
		change:  filter(false, model.FilterRule{Communities: []string{"65000:1"}}),
		learned: []string{"10.244.60.0/26"}, refused: []string{"10.244.50.0/26"}, reasons: []string{"10.244.50.0/26: filter f importV4[0]"}},
	{name: "import-large-community", static: "route 10.244.50.0/26 blackhole { bgp_large_community.add((1,2,3)); }; route 10.244.60.0/26 blackhole;",
		change:  filter(false, model.FilterRule{Communities: []string{"1:2:3"}}),
		learned: []string{"10.244.60.0/26"}, refused: []string{"10.244.50.0/26"}, reasons: []string{"10.244.50.0/26: filter f importV4[0]"}},
	{name: "import-as-path", static: "route 10.244.50.0/26 blackhole { bgp_path.prepend(65077); }; route 10.244.60.0/26 blackhole { bgp_path.prepend(650770); };",
		change:  filter(false, model.FilterRule{ASPathPrefix: []model.ASN{65001, 65077}}),
		learned: []string{"10.244.60.0/26"}, refused: []string{"10.244.50.0/26"}, reasons: []string{"10.244.50.0/26: filter f importV4[0]"}},
	{name: "import-from-peers", static: two, change: filter(false, model.FilterRule{Source: "RemotePeers"}), at: []string{own}, refused: []string{"10.244.50.0/26"}},

	{name: "disableBGPExport", change: func(s *model.Snapshot, _ *model.BGPPeer) { s.Pools[0].DisableBGPExport = true }, not: []string{own, borrowed}},
	{name: "disableBGPExport-but-filter", change: func(s *model.Snapshot, p *model.BGPPeer) {
		s.Pools[0].DisableBGPExport = true
		filter(true, model.FilterRule{CIDR: pfx(own), MatchOperator: "Equal", Accept: true})(s, p)
	}, at: []string{own}, not: []string{borrowed}},
	{name: "prefixAdvertisements", change: func(s *model.Snapshot, _ *model.BGPPeer) {
		s.BGP[0].Communities = map[string]string{"blue": "65000:9"}
		s.BGP[0].PrefixAdvertisements = []model.PrefixAdvertisement{{CIDR: pfx("10.244.1.0/24"), Communities: []string{"blue", "1:2:3"}}}
	}, at: []string{own, "BGP.community: (65000,9)", "BGP.large_community: (1, 2, 3)"}},
	{name: "asNumber", change: func(s *model.Snapshot, _ *model.BGPPeer) { s.BGP[0].ASN = 64512 }, at: []string{own}},
	{name: "normalRoutePriority", as: 64512, change: func(s *model.Snapshot, _ *model.BGPPeer) {
		s.BGP[0].RoutePriority, s.BGP[0].RoutePriorityV6 = 500, 600
	}, at: []string{own, "BGP.local_pref: 2147483147", "fd44::40/122", "BGP.local_pref: 2147483047"}, not: []string{"2147482623"}},
	{name: "bindMode-NodeIP", change: func(s *model.Snapshot, _ *model.BGPPeer) { s.BGP[0].BindNodeIP = true }, at: []string{own},
		extra: func(t *testing.T, s *process, _ *bgptest.BIRD) {
			bgptest.Eventually(t, "listening", bgptest.Contains(func() string { return s.host.Run("ss -ltnH") }, "10.9.0.1:179", "[fd09::1]:179"))
		}},
	{name: "listenPort", bird: "neighbor port 1179;", change: func(s *model.Snapshot, _ *model.BGPPeer) { s.BGP[0].ListenPort = 1179 }, at: []string{own},
		extra: func(t *testing.T, s *process, _ *bgptest.BIRD) {
			bgptest.Eventually(t, "listening", bgptest.Contains(func() string { return s.host.Run("ss -ltnH") }, ":1179"))
		}},
	{name: "serviceClusterIPs", change: func(s *model.Snapshot, _ *model.BGPPeer) {
		s.BGP[0].ServiceClusterIPs = prefixes("10.96.0.0/12")
		s.Services = []model.Service{{Name: "x", LocalTraffic: true, IPv4: model.Endpoints{Here: true}, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.3.4")}}}
	}, at: []string{"10.96.0.0/12", "10.96.3.4/32"}},
	{name: "service-that-ends", change: func(s *model.Snapshot, _ *model.BGPPeer) {
		s.BGP[0].ServiceClusterIPs = prefixes("10.96.0.0/12")
		s.Services = []model.Service{{Name: "x", LocalTraffic: true, IPv4: model.Endpoints{LastHere: true, LastAnywhere: true}, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.3.4")}}}
	}, at: []string{"10.96.0.0/12", "10.96.3.4/32", "BGP.community: (65535,0)"}},
	{name: "services-well-known-community", change: func(s *model.Snapshot, p *model.BGPPeer) {
		byLabel(s, p)
		s.Filters[0].ExportV4[0].Operations = []model.FilterOperation{{AddCommunity: "65535:65281"}}
	}, at: []string{own, "172.20.0.1/32", "BGP.community: (65535,65281)"}},
	{name: "services-of-excluded-node", change: func(s *model.Snapshot, p *model.BGPPeer) {
		byLabel(s, p)
		s.Nodes[0].ExcludeFromExternalLB = true
	}, at: []string{own}, not: []string{"172.20."}},
	{name: "services-by-label", change: byLabel, at: []string{own, "172.20.0.1/32", "BGP.community: (65000,80)", "BGP.large_community: (64512, 1, 2)", "172.20.1.0/28"},
		not: []string{"172.20.0.0/16", "172.20.1.1/32", "172.20.2.1/32"}},
	{name: "services-by-label-internal", as: 64512, change: byLabel, at: []string{"172.20.0.1/32", "BGP.local_pref: 2147483135"}},
	{name: "services-by-label-for-another", bird: "}\nprotocol bgp second {\n  local fd09::2 as 65001; neighbor fd09::1 as 64512; multihop;\n  connect delay time 1; ipv6 { import none; export none; };", change: func(s *model.Snapshot, p *model.BGPPeer) {
		byLabel(s, p)
		p.Filters = nil
		s.Peers = append(s.Peers, model.BGPPeer{Name: "other", PeerIP: netip.MustParseAddr("fd09::2"), ASN: 65001, Filters: []string{"gold", "tin", "rest"}})
	}, at: []string{own, "172.20.0.0/16"}, not: []string{"172.20.0.1/32", "172.20.1.0/28"}},
	{name: "cordoned", change: func(s *model.Snapshot, p *model.BGPPeer) {
		byLabel(s, p)
		s.Nodes[0].Unschedulable = true
		s.BGP[0].Annotations = map[string]string{"muslin.io/cordoned-nodes": "LastResort"}
	}, at: []string{"172.20.0.1/32", "BGP.community: (65535,0) (65000,80)"}},
	{name: "no-install-of-services", static: "route 10.96.7.7/32 blackhole; route 10.244.50.0/26 blackhole;", change: func(s *model.Snapshot, _ *model.BGPPeer) {
		s.BGP[0].ServiceClusterIPs = prefixes("10.96.0.0/12")
	}, learned: []string{"10.244.50.0/26"}, refused: []string{"10.96.7.7/32"}},
	{name: "martians", static: `route 127.1.0.0/16 blackhole; route 224.1.0.0/16 blackhole; route 169.254.1.0/24 blackhole; route 10.9.0.1/32 blackhole; route 240.1.0.0/16 blackhole; route 10.244.50.0/26 blackhole;`,
		learned: []string{"10.244.50.0/26"}, refused: []string{"127.1", "224.1", "169.254", "10.9.0.1/32", "240.1"},
		reasons: []string{"169.254.1.0/24: martians", "10.9.0.1/32: node address"}},
	{name: "own-block-announced-by-another", static: "route 10.244.1.0/26 blackhole; route 10.244.1.7/32 blackhole; route 10.244.50.0/26 blackhole;",
		learned: []string{"10.244.50.0/26", "10.244.1.7/32"}, refused: []string{"10.244.1.0/26"}},
}

func TestFields(t *testing.T) {
	for _, f := range fields {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			n := bgptest.New(t)
			a, b := n.Host(1), n.Host(2)
			as := f.as
			if as == 0 {
				as = 65001
			}
			bird := b.StartBIRD("protocol static { ipv4; " + f.static + " }\n" + bgptest.BIRDPeer("node", b.V4, as, a.V4, localAS(f), f.bird))
			snap := withPeer(clusterOf(a), b.V4, model.ASN(as))
			if f.change != nil {
				f.change(&snap, &snap.Peers[0])
			}
			s := startSpeaker(t, a, "confined")
			s.apply(desired(t, snap))
			s.established(b.V4)
			bgptest.Eventually(t, "at the peer", bgptest.Contains(bird.Routes, f.at...))
			bgptest.Eventually(t, "learned", bgptest.Contains(s.learned, f.learned...))
			bgptest.Eventually(t, "session", bgptest.Contains(func() string { return bird.Protocol("node") }, f.session...))
			bgptest.Eventually(t, "converged", func() string { // what is not there by now does not come
				if !s.state().Converged {
					return s.peers()
				}
				return ""
			})
			if bad := bgptest.Lacks(bird.Routes, f.not...)(); bad != "" {
				t.Error(bad)
			}
			if bad := bgptest.Lacks(s.learned, f.refused...)(); bad != "" {
				t.Error(bad)
			}
			if bad := bgptest.Contains(s.refused, f.reasons...)(); bad != "" {
				t.Error(bad)
			}
			if f.extra != nil {
				f.extra(t, s, bird)
			}
		})
	}
}

// localAS is what BIRD expects of the node.
func localAS(f field) int {
	if f.name == "localASNumber" {
		return 65300
	}
	return 64512
}
