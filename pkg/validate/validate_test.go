package validate_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/selector"
	"github.com/muslin-net/muslin/pkg/validate"
)

func pool(name, cidr string, age int, change ...func(*model.Pool)) validate.Pool {
	p := validate.Pool{
		Pool:    model.Pool{Name: name, CIDR: netip.MustParsePrefix(cidr)},
		Created: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(-time.Duration(age) * time.Hour),
	}
	for _, f := range change {
		f(&p.Pool)
	}
	return p
}

func TestOverlaps(t *testing.T) {
	for name, c := range map[string]struct {
		pools []validate.Pool
		want  map[string]string
	}{
		"none":                    {[]validate.Pool{pool("a", "10.0.0.0/16", 1), pool("b", "10.1.0.0/16", 1), pool("c", "fd00::/48", 1)}, map[string]string{}},
		"the younger one":         {[]validate.Pool{pool("a", "10.0.0.0/16", 1), pool("b", "10.0.1.0/24", 2)}, map[string]string{"a": "b"}},
		"equal ages, by name":     {[]validate.Pool{pool("b", "10.0.0.0/16", 1), pool("a", "10.0.1.0/24", 1)}, map[string]string{"b": "a"}},
		"the same twice":          {[]validate.Pool{pool("a", "10.0.0.0/16", 2), pool("b", "10.0.0.0/16", 1)}, map[string]string{"b": "a"}},
		"three in a chain":        {[]validate.Pool{pool("a", "10.0.0.0/24", 3), pool("b", "10.0.0.0/16", 2), pool("c", "10.0.9.0/24", 1)}, map[string]string{"b": "a"}},
		"one young over two":      {[]validate.Pool{pool("a", "10.0.0.0/24", 3), pool("b", "10.0.1.0/24", 2), pool("c", "10.0.0.0/16", 1)}, map[string]string{"c": "a"}},
		"families do not overlap": {[]validate.Pool{pool("a", "0.0.0.0/0", 3), pool("b", "::/0", 2)}, map[string]string{}},
	} {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(c.want, validate.Overlaps(c.pools)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestPools(t *testing.T) {
	got := validate.Pools([]validate.Pool{
		pool("old", "10.0.0.0/16", 9),
		pool("young", "10.0.1.0/24", 1),
		pool("off", "10.1.0.0/16", 1, func(p *model.Pool) { p.Disabled = true }),
		pool("going", "10.2.0.0/16", 1, func(p *model.Pool) { p.Deleting, p.Disabled = true, true }),
	})
	want := map[string]validate.Verdict{
		"old":   {Allocatable: true, Reason: "OK", Message: "addresses are taken from this pool"},
		"young": {Reason: "CIDROverlap", Message: "spec.cidr: 10.0.1.0/24 overlaps 10.0.0.0/16 of the older IPPool old; no address is taken from this pool: delete one of the two"},
		"off":   {Reason: "PoolDisabled", Message: "spec.disabled: no new address is taken from this pool"},
		"going": {Reason: "Terminating", Message: "the pool is being deleted; it goes when its blocks are empty"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func sel(t *testing.T, text string) model.Selector {
	t.Helper()
	s, err := selector.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestBGP(t *testing.T) {
	yes, ten, twenty := true, 10, 20
	all, err := selector.Parse("all()")
	if err != nil {
		t.Fatal(err)
	}
	tor := netip.MustParseAddr("192.0.2.1")
	for name, c := range map[string]struct {
		s    model.Snapshot
		want []string
	}{
		"all well": {model.Snapshot{
			Nodes:   []model.Node{{Name: "n1"}},
			BGP:     []model.BGPConfiguration{{Name: "default", MeshEnabled: &yes, ASN: 1, Communities: map[string]string{"a": "1:2"}, PrefixAdvertisements: []model.PrefixAdvertisement{{Communities: []string{"a", "1:2:3"}}}}, {Name: "node.n1", ListenPort: 1179}},
			Filters: []model.BGPFilter{{Name: "f", ExportV4: []model.FilterRule{{PeerType: "eBGP", Communities: []string{"1:1"}, Accept: true}, {}}}},
			Peers:   []model.BGPPeer{{Name: "p", Node: "n1", PeerIP: tor, Filters: []string{"f"}, ReachableBy: tor, Password: &model.PasswordRef{Known: true}}},
		}, nil},
		"node's object": {model.Snapshot{
			BGP: []model.BGPConfiguration{{Name: "node.n9", ListenPort: 1179}},
		}, []string{
			"BGPConfiguration node.n9: metadata.name: there is no node n9",
		}},
		"communities": {model.Snapshot{
			BGP: []model.BGPConfiguration{{Name: "default", Communities: map[string]string{"a": "1"}, PrefixAdvertisements: []model.PrefixAdvertisement{{Communities: []string{"a", "b", "65536:1"}}}, MeshPassword: &model.PasswordRef{SecretName: "s", Key: "k"}}},
		}, []string{
			`BGPConfiguration default: spec.nodeMeshPassword.secretKeyRef: key "k" of Secret s cannot be read in Muslin's namespace; the sessions of the mesh are withheld until it can`,
			`BGPConfiguration default: spec.communities: a: "1" is not a community: want aa:nn of two 16-bit numbers or aa:nn:mm of three 32-bit numbers`,
			`BGPConfiguration default: spec.prefixAdvertisements[0].communities[1]: "b" is neither a name in spec.communities nor a community aa:nn or aa:nn:mm`,
			`BGPConfiguration default: spec.prefixAdvertisements[0].communities[2]: "65536:1" is neither a name in spec.communities nor a community aa:nn or aa:nn:mm`,
		}},
		"filter": {model.Snapshot{
			Filters: []model.BGPFilter{{Name: "f",
				ImportV6: []model.FilterRule{{Accept: true}, {PeerType: "iBGP"}},
				ExportV4: []model.FilterRule{{CIDR: netip.MustParsePrefix("10.0.0.0/8"), MinLength: &twenty, MaxLength: &ten, Communities: []string{"x"}, Operations: []model.FilterOperation{{AddCommunity: "1:2:3:4"}, {SetPriority: &ten}}}}}},
		}, []string{
			`BGPFilter f: spec.exportV4[0].communities: "x" is not a community: want aa:nn of two 16-bit numbers or aa:nn:mm of three 32-bit numbers`,
			`BGPFilter f: spec.exportV4[0].operations[0].addCommunity: "1:2:3:4" is not a community: want aa:nn of two 16-bit numbers or aa:nn:mm of three 32-bit numbers`,
			`BGPFilter f: spec.exportV4[0].prefixLength: min 20 is greater than max 10: the rule matches nothing`,
			`BGPFilter f: spec.importV6[1]: is never reached: rule 0 matches every route`,
		}},
		"filter by Service": {model.Snapshot{
			BGP:     []model.BGPConfiguration{{Name: "default", ServiceLoadBalancers: []netip.Prefix{netip.MustParsePrefix("172.20.0.0/16")}}},
			Filters: []model.BGPFilter{{Name: "f", Services: all, AggregationLength: 16, AggregationLengthV6: 48}, {Name: "g", Services: all, AggregationLength: 15}},
		}, []string{
			`BGPFilter f: metadata.annotations[muslin.io/aggregation-length-v6]: /48 reaches beyond every range of service addresses in BGPConfiguration default; addresses are announced one by one`,
			`BGPFilter g: metadata.annotations[muslin.io/aggregation-length]: /15 reaches beyond every range of service addresses in BGPConfiguration default; addresses are announced one by one`,
		}},
		"filter of no Service": {model.Snapshot{
			BGP:     []model.BGPConfiguration{{Name: "default"}},
			Filters: []model.BGPFilter{{Name: "f", Services: all}},
		}, []string{
			`BGPFilter f: metadata.annotations[muslin.io/service-selector]: BGPConfiguration default names no serviceLoadBalancerIPs, serviceExternalIPs or serviceClusterIPs: no Service is announced`,
		}},
		"peer": {model.Snapshot{
			Nodes: []model.Node{{Name: "n1"}},
			Peers: []model.BGPPeer{{Name: "p", Node: "n2", PeerIP: tor, Filters: []string{"f"}, ReachableBy: netip.MustParseAddr("fd00::1"), Password: &model.PasswordRef{SecretName: "s", Key: "k"}}},
		}, []string{
			"BGPPeer p: spec.node: there is no node n2",
			"BGPPeer p: spec.filters[0]: there is no BGPFilter f that can be used",
			`BGPPeer p: spec.password.secretKeyRef: key "k" of Secret s cannot be read in Muslin's namespace; the session is withheld until it can`,
			"BGPPeer p: spec.reachableBy: fd00::1 is of another address family than peerIP 192.0.2.1",
		}},
		"selectors": {model.Snapshot{
			Nodes: []model.Node{{Name: "n1", Labels: map[string]string{"rack": "a"}}},
			Peers: []model.BGPPeer{
				{Name: "a", PeerIP: tor, NodeSelector: sel(t, "rack == 'a'")}, {Name: "b", PeerIP: tor, NodeSelector: sel(t, "rack == 'b'")},
				{Name: "c", PeerSelector: sel(t, "has(reflector)")}, {Name: "d", PeerSelector: all},
			},
		}, []string{
			"BGPPeer b: spec.nodeSelector: no node has such labels: nobody has the session",
			"BGPPeer c: spec.peerSelector: no node has such labels: there is nobody to peer with",
		}},
		"rivals": {model.Snapshot{
			Nodes: []model.Node{{Name: "n1", Labels: map[string]string{"x": ""}}},
			Peers: []model.BGPPeer{
				{Name: "a", PeerIP: tor}, {Name: "b", PeerIP: tor}, {Name: "c", PeerIP: tor, PeerPort: 1179},
				{Name: "d", PeerIP: tor, NodeSelector: sel(t, "has(x)")}, {Name: "e", PeerIP: tor, NodeSelector: sel(t, "has( x )")},
				{Name: "f", PeerSelector: sel(t, "all()")}, {Name: "g", PeerSelector: sel(t, "all()")},
			},
		}, []string{
			"BGPPeer b: spec.peerIP: BGPPeer a peers with 192.0.2.1 from the same nodes; delete one of the two",
			"BGPPeer e: spec.peerIP: BGPPeer d peers with 192.0.2.1 from the same nodes; delete one of the two",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			var nodes validate.Nodes
			nodes.See(c.s.Nodes)
			for _, p := range validate.BGP(c.s, &nodes) {
				got = append(got, p.String())
				if p.Reason == "" {
					t.Errorf("%s: no reason", p)
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}
