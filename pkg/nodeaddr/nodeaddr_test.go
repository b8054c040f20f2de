package nodeaddr_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/nodeaddr"
	"github.com/muslin-net/muslin/pkg/selector"
)

// host has an uplink of two families with a virtual IP, a second uplink, a
// container bridge before both, a pod's link and a loopback with a stable address.
var host = model.Host{
	Links: []model.Link{
		link(1, "lo", "", "127.0.0.1/8 10.255.0.1/32 ::1/128"),
		link(2, "docker0", "", "172.17.0.1/16"),
		link(3, "eth0", "", "10.1.1.5/32 10.1.1.11/24 fd00:1::11/64 fe80::1/64"),
		link(4, "eth1", "", "10.2.1.11/24"),
		link(5, "eth2", "", ""),
		link(6, "cali1", "muslin:x", "10.2.1.99/32"),
		{Index: 7, Name: "eth3", Addresses: []netip.Prefix{netip.MustParsePrefix("10.3.1.11/24")}}, // down
	},
	Routes: []model.HostRoute{
		{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Gateways: []netip.Addr{netip.MustParseAddr("10.1.1.1")}, LinkIndex: 3},
		{Prefix: netip.MustParsePrefix("10.2.0.0/16"), Gateways: []netip.Addr{netip.MustParseAddr("10.2.1.1")}, LinkIndex: 4},
		{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Gateways: []netip.Addr{netip.MustParseAddr("169.254.0.1")}, LinkIndex: 5},
		{Prefix: netip.MustParsePrefix("::/0"), Gateways: []netip.Addr{netip.MustParseAddr("fe80::9")}, LinkIndex: 3},
	},
}

func link(index int, name, alias, addresses string) model.Link {
	l := model.Link{Index: index, Name: name, Alias: alias, Up: true}
	for _, a := range strings.Fields(addresses) {
		l.Addresses = append(l.Addresses, netip.MustParsePrefix(a))
	}
	return l
}

// decide is what the agent of n1 would do, as text: annotations, then problems.
func decide(n model.Node, cluster map[string]string, writer string) string {
	n.Name = "n1"
	n.IPv4, n.IPv6 = known(nodeaddr.IPv4, n), known(nodeaddr.IPv6, n)
	d := nodeaddr.Decide(nodeaddr.Input{
		Node: n, Nodes: []model.Node{n, {Name: "n2", IPv4: netip.MustParsePrefix("10.1.1.12/24")}}, Cluster: cluster, Host: host,
		Writer: func(string, string) string { return writer },
	})
	var out []string
	for _, k := range slices.Sorted(maps.Keys(d.Annotations)) {
		_, name, _ := strings.Cut(k, "/")
		out = append(out, name+"="+d.Annotations[k])
	}
	slices.Sort(out)
	for _, p := range d.Problems {
		out = append(out, fmt.Sprintf("%s %s %s", p.Object, p.Field, p.Reason))
	}
	return strings.Join(out, "\n")
}

func known(f nodeaddr.Family, n model.Node) netip.Prefix {
	text := n.Annotations[f.Address]
	p, err := netip.ParsePrefix(text)
	if err != nil && text != "" {
		p = netip.PrefixFrom(netip.MustParseAddr(text), netip.MustParseAddr(text).BitLen())
	}
	return nodeaddr.Known(f, p, text, n.Annotations[f.Mark], n.InternalIPs)
}

func internal(addrs ...string) (n model.Node) {
	for _, a := range addrs {
		n.InternalIPs = append(n.InternalIPs, netip.MustParseAddr(a))
	}
	return n
}

func with(n model.Node, annotations ...string) model.Node {
	n.Annotations = map[string]string{}
	for i := 0; i < len(annotations); i += 2 {
		n.Annotations[annotations[i]] = annotations[i+1]
	}
	return n
}

const (
	v4, v4mark = "projectcalico.org/IPv4Address", "muslin.io/ipv4-address-from"
	v6         = "projectcalico.org/IPv6Address"
	method     = "muslin.io/ip-autodetection-method"
	method6    = "muslin.io/ip6-autodetection-method"
	recorded   = "IPv4Address=10.1.1.11/24\nipv4-address-from=kubernetes-internal-ip 10.1.1.11/24"
	absent     = "Node n1 metadata.annotations[projectcalico.org/IPv4Address] AddressAbsent"
)

func TestWhoWroteTheAddressDecides(t *testing.T) {
	for name, c := range map[string]struct {
		node   model.Node
		writer string
		want   string
	}{
		"nothing known":        {internal(), "", ""},
		"first start":          {internal("10.1.1.11"), "", recorded},
		"both families":        {internal("10.1.1.11", "fd00:1::11"), "", "IPv4Address=10.1.1.11/24\nIPv6Address=fd00:1::11/64\nipv4-address-from=kubernetes-internal-ip 10.1.1.11/24\nipv6-address-from=kubernetes-internal-ip fd00:1::11/64"},
		"as it should be":      {with(internal("10.1.1.11"), v4, "10.1.1.11/24", v4mark, "kubernetes-internal-ip 10.1.1.11/24"), "", ""},
		"renumbered":           {with(internal("10.1.1.11"), v4, "10.1.1.77/24", v4mark, "kubernetes-internal-ip 10.1.1.77/24"), "", recorded + "\nNode n1 metadata.annotations[projectcalico.org/IPv4Address] AddressMoves"},
		"other subnet length":  {with(internal("10.1.1.11"), v4, "10.1.1.11/16", v4mark, "kubernetes-internal-ip 10.1.1.11/16"), "", recorded + "\nNode n1 metadata.annotations[projectcalico.org/IPv4Address] AddressMoves"},
		"kernel lags":          {with(internal("10.1.1.78"), v4, "10.1.1.11/24", v4mark, "kubernetes-internal-ip 10.1.1.11/24"), "", "Node n1 status.addresses AddressAbsent"},
		"kubelet lags":         {with(internal("10.1.1.78"), v4, "10.1.1.78/24", v4mark, "kubernetes-internal-ip 10.1.1.78/24"), "", "Node n1 status.addresses AddressAbsent"},
		"order of InternalIPs": {with(internal("10.2.1.11", "10.1.1.11"), v4, "10.1.1.11/24", v4mark, "kubernetes-internal-ip 10.1.1.11/24"), "", ""},
		"one of two is here":   {internal("10.9.9.9", "10.1.1.11"), "", recorded},
		"a pod's address":      {internal("10.2.1.99"), "", "Node n1 status.addresses AddressAbsent"},
		"family went":          {with(internal("fd00:1::11"), v4, "10.1.9.9/24", v4mark, "kubernetes-internal-ip 10.1.9.9/24", v6, "fd00:1::11/64"), "kubectl", "IPv4Address=\nipv4-address-from="},
		"also another node's":  {with(internal("10.1.1.12"), v4, "10.1.1.12/24"), "kubectl", "Node n1 metadata.annotations[projectcalico.org/IPv4Address] AddressTwice\n" + absent},

		"a person's":                        {with(internal("10.1.1.11"), v4, "10.2.1.11/24"), "kubectl-annotate", ""},
		"a person's, as detection would":    {with(internal("10.1.1.11"), v4, "10.1.1.11/24"), "kubectl-annotate", ""},
		"a person's after the agent's":      {with(internal("10.1.1.11"), v4, "10.2.1.11/24", v4mark, "kubernetes-internal-ip 10.1.1.11/24"), "", "ipv4-address-from="},
		"a person's, not here":              {with(internal("10.1.1.11"), v4, "10.9.9.9/24"), "kubectl-edit", absent},
		"a person's without a length":       {with(internal("10.1.1.11"), v4, "10.2.1.11"), "kubectl-annotate", "IPv4Address=10.2.1.11/24"},
		"a person's, nonsense":              {with(internal("10.1.1.11"), v4, "fd00:1::11/64"), "kubectl-annotate", ""},
		"of a release before marks":         {with(internal("10.1.1.11"), v4, "10.1.1.11/24"), "muslin-agent", recorded},
		"of one, renumbered meanwhile":      {with(internal("10.1.1.11"), v4, "10.1.1.77/24"), "muslin-agent", recorded + "\nNode n1 metadata.annotations[projectcalico.org/IPv4Address] AddressMoves"},
		"nobody knows whose, same":          {with(internal("10.1.1.11"), v4, "10.1.1.11/24"), "", recorded},
		"nobody knows whose, other":         {with(internal("10.1.1.11"), v4, "10.2.1.11/24"), "", ""},
		"Calico's, as detection would":      {with(internal("10.1.1.11"), v4, "10.1.1.11/24"), "calico-node", recorded},
		"Calico's, of another interface":    {with(internal("10.1.1.11"), v4, "10.2.1.11/24"), "calico-node", ""},
		"removed by a person, found anew":   {with(internal("10.1.1.11"), v4mark, "kubernetes-internal-ip 10.1.1.9/24"), "", recorded},
		"method that cannot be read":        {with(internal("10.1.1.11"), method, "ifname=eth1", v4, "10.2.1.11/24", v4mark, "interface=eth1 10.2.1.11/24"), "", ""},
		"method that cannot be read, fresh": {with(internal("10.1.1.11"), method, "ifname=eth1"), "", recorded},
		"method that finds nothing":         {with(internal("10.1.1.11"), method, "interface=eth9"), "", "Node n1 metadata.annotations[muslin.io/ip-autodetection-method] AddressNotFound"},
		"method changes":                    {with(internal("10.1.1.11"), method, "interface=eth1", v4, "10.1.1.11/24", v4mark, "kubernetes-internal-ip 10.1.1.11/24"), "", "IPv4Address=10.2.1.11/24\nipv4-address-from=interface=eth1 10.2.1.11/24\nNode n1 metadata.annotations[projectcalico.org/IPv4Address] AddressMoves"},
	} {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(c.want, decide(c.node, nil, c.writer)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestMethods(t *testing.T) {
	for text, want := range map[string]string{
		"kubernetes-internal-ip":            "10.1.1.11/24 fd00:1::11/64",
		"first-found":                       "10.1.1.11/24 fd00:1::11/64",
		"interface=eth1":                    "10.2.1.11/24 -",
		"interface=eth5,eth.*":              "10.1.1.11/24 fd00:1::11/64",
		"interface=lo":                      "10.255.0.1/32 -",
		"interface=docker0":                 "172.17.0.1/16 -",
		"interface=eth3":                    "- -", // down
		"interface=cali.*":                  "- -",
		"skip-interface=eth0":               "10.2.1.11/24 -",
		"skip-interface=eth0, eth1":         "- -",
		"cidr=10.2.0.0/16":                  "10.2.1.11/24 -",
		"cidr=10.9.0.0/16,10.255.0.0/24":    "10.255.0.1/32 -",
		"cidr=10.1.1.5/32":                  "10.1.1.5/32 -", // a lone one when it is asked for
		"cidr=fd00:1::/64":                  "- fd00:1::11/64",
		"can-reach=10.2.7.7":                "10.2.1.11/24 -",
		"can-reach=8.8.8.8":                 "10.1.1.11/24 -",
		"can-reach=192.0.2.9":               "10.255.0.1/32 -", // over a link without an address
		"can-reach=2001:db8::1":             "- fd00:1::11/64",
		"":                                  "10.1.1.11/24 fd00:1::11/64",
		"interface=":                        "error",
		"interface=eth[":                    "error",
		"cidr=10.2.0.0":                     "error",
		"can-reach=www.example.com":         "error",
		"can-reach":                         "error",
		"first-found=eth0":                  "error",
		"kubernetes-internal-ip=10.1.1.1":   "error",
		"none":                              "error",
		"IP_AUTODETECTION_METHOD=interface": "error",
	} {
		t.Run(text, func(t *testing.T) {
			if _, err := nodeaddr.ParseMethod(text); (err != nil) != (want == "error") {
				t.Fatalf("error %v, want %s", err, want)
			} else if err != nil {
				return
			}
			n := model.Node{Name: "n1", InternalIPs: internal("10.1.1.11", "fd00:1::11").InternalIPs}
			d := nodeaddr.Decide(nodeaddr.Input{Node: n, Cluster: map[string]string{method: text, method6: text}, Host: host})
			got := []string{"-", "-"}
			for i, f := range nodeaddr.Families {
				if v := d.Annotations[f.Address]; v != "" {
					got[i] = v
				}
			}
			if got := strings.Join(got, " "); got != want {
				t.Errorf("got %s, want %s; problems %v", got, want, d.Problems)
			}
			for _, p := range d.Problems {
				if p.Object != (model.Ref{Kind: "BGPConfiguration", Name: "default"}) {
					t.Errorf("problem of another object: %s", p)
				}
			}
		})
	}
}

// TestKnown is what other nodes take for the node's address before its own
// agent has written anything.
func TestKnown(t *testing.T) {
	for name, c := range map[string]struct {
		node model.Node
		want string
	}{
		"InternalIP":              {internal("fd00::1", "10.1.1.11"), "10.1.1.11/32"},
		"annotation":              {with(internal("10.1.1.11"), v4, "10.2.1.1/24"), "10.2.1.1/24"},
		"the agent's, same":       {with(internal("10.1.1.11"), v4, "10.1.1.11/24", v4mark, "kubernetes-internal-ip 10.1.1.11/24"), "10.1.1.11/24"},
		"the agent's, in subnet":  {with(internal("10.1.1.77"), v4, "10.1.1.11/24", v4mark, "kubernetes-internal-ip 10.1.1.11/24"), "10.1.1.77/24"},
		"the agent's, elsewhere":  {with(internal("10.9.1.77"), v4, "10.1.1.11/24", v4mark, "kubernetes-internal-ip 10.1.1.11/24"), "10.9.1.77/32"},
		"the agent's, by name":    {with(internal("10.1.1.77"), v4, "10.2.1.11/24", v4mark, "interface=eth1 10.2.1.11/24"), "10.2.1.11/24"},
		"a person's after that":   {with(internal("10.1.1.77"), v4, "10.2.1.11/24", v4mark, "kubernetes-internal-ip 10.1.1.11/24"), "10.2.1.11/24"},
		"the agent's, none given": {with(internal(), v4, "10.1.1.11/24", v4mark, "kubernetes-internal-ip 10.1.1.11/24"), "10.1.1.11/24"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := known(nodeaddr.IPv4, c.node).String(); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestMissingFamilyIsSaid(t *testing.T) {
	rack, err := selector.Parse("rack == 'r1'")
	if err != nil {
		t.Fatal(err)
	}
	four, six := netip.MustParsePrefix("10.1.1.11/24"), netip.MustParsePrefix("fd00::1/64")
	pools := []model.Pool{{Name: "v4", CIDR: netip.MustParsePrefix("10.244.0.0/16")}, {Name: "v6", CIDR: netip.MustParsePrefix("fd01::/112"), NodeSelector: rack}}
	blocks := []model.Block{
		{CIDR: netip.MustParsePrefix("10.244.0.0/26"), Node: "n1"}, {CIDR: netip.MustParsePrefix("fd01::/122"), Node: "n1"},
		{CIDR: netip.MustParsePrefix("fd01::40/122"), Node: "n2"},
	}
	r1 := map[string]string{"rack": "r1"}
	for name, c := range map[string]struct {
		node   model.Node
		blocks []model.Block
		want   []string
	}{
		"both":            {model.Node{IPv4: four, IPv6: six, Labels: r1}, blocks, nil},
		"a block without": {model.Node{IPv4: four, Labels: r1}, blocks, []string{"no IPv6 address; its block fd01::/122 is not announced"}},
		"a pool without":  {model.Node{IPv4: four, Labels: r1}, nil, []string{"no IPv6 address; its pods get none of IPPool v6"}},
		"not its pool":    {model.Node{IPv4: four}, nil, nil},
		"the other one":   {model.Node{IPv6: six, Labels: r1}, nil, []string{"no IPv4 address; its pods get none of IPPool v4"}},
		"none at all":     {model.Node{}, nil, []string{"no IPv4 address; it announces none"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.node.Name = "n1"
			got := nodeaddr.Missing(c.node, pools, c.blocks)
			if len(got) != len(c.want) {
				t.Fatalf("%v", got)
			}
			for i, p := range got {
				if !strings.HasPrefix(p.String(), "Node n1: status.addresses: node n1 has "+c.want[i]) {
					t.Errorf("%s", p)
				}
			}
		})
	}
}

func TestNoAddressOfAFamilyWithoutTheNodes(t *testing.T) {
	four, six := netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("fd00::1/64")
	for name, c := range map[string]struct {
		node     model.Node
		no4, no6 bool
	}{
		"both":                 {model.Node{IPv4: four, IPv6: six}, false, false},
		"IPv4 alone":           {model.Node{IPv4: four}, false, true},
		"IPv6 alone":           {model.Node{IPv6: six}, true, false},
		"not known by kubelet": {model.Node{}, false, false},
	} {
		if got4, got6 := nodeaddr.Unreachable(c.node, model.IPv4), nodeaddr.Unreachable(c.node, model.IPv6); got4 != c.no4 || got6 != c.no6 {
			t.Errorf("%s: %v %v, want %v %v", name, got4, got6, c.no4, c.no6)
		}
	}
}
