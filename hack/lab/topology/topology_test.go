package topology

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// netipTypes are compared by value.
var netipTypes = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

func addr(text string) Address { return Address{V4: netip.MustParseAddr(text)} }

func TestTwoRacks(t *testing.T) {
	got, err := Read("../topologies/two-racks.yaml")
	if err != nil {
		t.Fatal(err)
	}
	subnet := func(text string) Subnet { return Subnet{V4: netip.MustParsePrefix(text)} }
	want := &Topology{
		Core: subnet("10.1.0.0/24"), NodeAS: 64512, HoldTime: 15 * time.Second,
		ControlPlane: Host{"cp", addr("10.1.0.10"), "tor1"},
		Outside:      Host{"outside", addr("10.1.0.20"), "tor1"},
		Routers:      []Router{{"tor1", BIRD, 65101, addr("10.1.0.1")}, {"tor2", FRR, 65102, addr("10.1.0.2")}},
		Racks: []Rack{
			{Name: "r1", Subnet: subnet("10.1.1.0/24"), Router: "tor1", Gateway: addr("10.1.1.1")},
			{Name: "r2", Subnet: subnet("10.1.2.0/24"), Router: "tor2", Gateway: addr("10.1.2.1")},
		},
		Nodes: []Node{
			{"n1", "r1", Full, addr("10.1.1.11")}, {"n2", "r1", Full, addr("10.1.1.12")},
			{"n3", "r2", Full, addr("10.1.2.11")}, {"n4", "r2", Full, addr("10.1.2.12")},
		},
	}
	if diff := cmp.Diff(want, got, netipTypes); diff != "" {
		t.Errorf("topology (-want +got):\n%s", diff)
	}
}

// TestIPv6Alone: where no subnet has IPv4, no machine has an address of it, nor a route.
func TestIPv6Alone(t *testing.T) {
	got, err := Read("../topologies/two-racks-v6.yaml")
	if err != nil {
		t.Fatal(err)
	}
	node, _ := got.Node("n3")
	want := Address{V6: netip.MustParseAddr("fd00:10:1:2::11")}
	if node.Address != want || node.Address.Main() != want.V6 || len(node.Address.All()) != 1 {
		t.Errorf("n3 has %+v, want %+v", node.Address, want)
	}
	for _, machine := range got.Machines() {
		for _, route := range got.Routes(machine) {
			if !route.To.Addr().Is6() || !route.Via.Is6() {
				t.Errorf("%s has the route %s via %s", machine, route.To, route.Via)
			}
		}
	}
}

// Every topology that is shipped must be good.
func TestShippedTopologies(t *testing.T) {
	files, err := filepath.Glob("../topologies/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no topologies: %v", err)
	}
	for _, file := range files {
		if _, err := Read(file); err != nil {
			t.Error(err)
		}
	}
}

func TestCountMakesNodesWithNextFreeNumbers(t *testing.T) {
	text := replace(t, minimal, "- {name: n1, rack: r1}", "- {name: a, rack: r1, kind: light, count: 2}\n- {name: b, rack: r1, host: 200}\n- {name: c, rack: r1}")
	topology, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []Node{
		{"a1", "r1", Light, addr("10.1.1.11")}, {"a2", "r1", Light, addr("10.1.1.12")},
		{"b", "r1", Full, addr("10.1.1.200")}, {"c", "r1", Full, addr("10.1.1.13")},
	}
	if diff := cmp.Diff(want, topology.Nodes, netipTypes); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
}

const minimal = `core: {subnet: 10.1.0.0/24}
nodeAS: 64512
routers:
- {name: tor1, kind: bird, as: 65101}
racks:
- {name: r1, subnet: 10.1.1.0/24, router: tor1}
nodes:
- {name: n1, rack: r1}
`

func replace(t *testing.T, text, old, with string) string {
	t.Helper()
	if !strings.Contains(text, old) {
		t.Fatalf("%q is not in the topology", old)
	}
	return strings.Replace(text, old, with, 1)
}

func TestBadTopologies(t *testing.T) {
	if _, err := Parse([]byte(minimal)); err != nil {
		t.Fatalf("the topology that is spoilt below: %v", err)
	}
	for name, test := range map[string]struct{ old, with, want string }{
		"unknown key":        {"nodeAS: 64512", "nodeAS: 64512\ncolour: red", `unknown field "colour"`},
		"unknown nested key": {"name: n1,", "name: n1, cpu: 2,", `unknown field "cpu"`},
		"no AS":              {"nodeAS: 64512", "", "nodeAS: missing"},
		"router AS":          {", as: 65101", "", "router tor1: as: missing"},
		"router kind":        {"kind: bird", "kind: quagga", `router tor1: kind "quagga"`},
		"no such router":     {"router: tor1", "router: tor9", `rack r1: router "tor9": no such router`},
		"no such rack":       {"rack: r1", "rack: r9", `node n1: rack "r9": no such rack`},
		"node kind":          {"rack: r1", "rack: r1, kind: heavy", `node n1: kind "heavy"`},
		"bad subnet":         {"10.1.1.0/24", "10.1.1.0/33", `rack r1: subnet "10.1.1.0/33"`},
		"host bits":          {"10.1.1.0/24", "10.1.1.7/24", `rack r1: subnet "10.1.1.7/24"`},
		"overlap":            {"10.1.1.0/24", "10.1.0.0/25", "overlaps 10.1.0.0/24 of core"},
		"half dual stack":    {"subnet: 10.1.1.0/24", "subnet: 10.1.1.0/24, subnet6: 'fd00::/64'", "rack r1: subnet6: racks and core must all have one"},
		"half IPv6":          {"core: {subnet: 10.1.0.0/24}", "core: {subnet6: 'fd00:1::/64'}", "rack r1: subnet: racks and core must all have one"},
		"no subnet":          {"core: {subnet: 10.1.0.0/24}", "core: {}", `core: subnet ""`},
		"address twice":      {"- {name: n1, rack: r1}", "- {name: n1, rack: r1}\n- {name: n2, rack: r1, host: 11}", "10.1.1.11: already taken by node n1"},
		"name twice":         {"- {name: n1, rack: r1}", "- {name: tor1, rack: r1}", `node tor1: name "tor1": used twice`},
		"long name":          {"name: n1", "name: much-too-long", `name "much-too-long"`},
		"reserved name":      {"name: n1", "name: core", `name "core": is kept`},
		"host out of range":  {"rack: r1", "rack: r1, host: 255", "host number 255: not in 1 to 254"},
		"count and host":     {"rack: r1", "rack: r1, host: 30, count: 2", "not together with host"},
		"no nodes":           {"- {name: n1, rack: r1}", "", "nodes: there are none"},
		"second router":      {"router: tor1", "router: tor1, second: tor1", `rack r1: second "tor1": no other router`},
		"bfd":                {"nodeAS: 64512", "nodeAS: 64512\nbfd: 1us", `bfd "1us"`},
		"hold time":          {"nodeAS: 64512", "nodeAS: 64512\nholdTime: 1s", `holdTime "1s"`},
		"no way out":         {"nodeAS: 64512", "nodeAS: 64512\noutside: {via: tor7}", `outside: via "tor7": no such router`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(replace(t, minimal, test.old, test.with)))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestEveryFaultIsReported(t *testing.T) {
	text := replace(t, replace(t, minimal, "kind: bird", "kind: x"), "rack: r1", "rack: x")
	_, err := Parse([]byte(text))
	if err == nil || !strings.Contains(err.Error(), "router tor1") || !strings.Contains(err.Error(), "node n1") {
		t.Errorf("got error %v, want both faults", err)
	}
}

func TestInterfacesFitTheKernel(t *testing.T) {
	const most = 15 // IFNAMSIZ less the end mark
	text := replace(t, replace(t, minimal, "name: n1", "name: abcdefghij"), "{name: tor1", "{name: abcdefghik")
	text = replace(t, text, "router: tor1", "router: abcdefghik")
	topology, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, machine := range topology.Machines() {
		for _, cable := range topology.Links(machine) {
			if len(cable.Interface) > most || len(cable.Port) > most || len(cable.Bridge) > most {
				t.Errorf("%s: cable %+v has a name longer than %d", machine, cable, most)
			}
		}
	}
}
