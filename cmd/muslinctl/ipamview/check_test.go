package ipamview

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

var cidr = netip.MustParsePrefix("10.244.1.0/28")

// survey is a pool with a block of n1, one pod in it and nothing wrong.
func survey(t *testing.T, change func(*ipam.Block)) *Survey {
	t.Helper()
	now := time.Unix(1_800_000_000, 0)
	b, err := ipam.NewBlock(cidr, ipam.HostAffinity("n1"), now)
	if err != nil {
		t.Fatal(err)
	}
	owner := ipam.Attribute{Handle: "web", Owner: map[string]string{"namespace": "default", "pod": "web", "node": "n1"}}
	if got := b.Assign(1, owner, nil); len(got) != 1 {
		t.Fatal("no address")
	}
	if change != nil {
		change(b)
	}
	s := &Survey{
		Pools:      []model.Pool{{Name: "pool", CIDR: netip.MustParsePrefix("10.244.0.0/16"), BlockSize: 28}},
		Affinities: []ipam.Affinity{{Node: "n1", CIDR: cidr, State: model.BlockConfirmed, Type: "host"}},
		Handles:    map[string]ipam.Handle{ipam.HandleName("web"): {ID: "web"}},
		Nodes:      map[model.NodeName]Node{"n1": {}},
		Pods:       map[netip.Addr]Pod{},
	}
	s.AddBlock(b, now)
	s.Sort()
	for _, x := range s.Taken {
		if x.Pod == "web" {
			s.Pods[x.Addr] = Pod{"default", "web", "n1"}
		}
	}
	return s
}

func TestEachContradictionIsFound(t *testing.T) {
	tunnel := func(b *ipam.Block) {
		b.Assign(1, ipam.Attribute{Handle: "tunnel", Owner: map[string]string{"node": "n1", "type": "vxlanTunnelAddress"}}, nil)
	}
	service := func(b *ipam.Block) {
		b.Assign(1, ipam.Attribute{Handle: "lb-x", Owner: map[string]string{"namespace": "shop", "service": "front", "type": "LoadBalancer"}}, nil)
	}
	front := func(address string) func(*Survey) {
		return func(s *Survey) {
			s.Handles[ipam.HandleName("lb-x")] = ipam.Handle{ID: "lb-x"}
			s.Services = map[netip.Addr]string{netip.MustParseAddr(address): "shop/front"}
		}
	}
	for _, c := range []struct {
		name   string
		block  func(*ipam.Block)
		change func(*Survey)
		want   string // "Class part of the text"; empty: nothing
	}{
		{"nothing", nil, func(*Survey) {}, ""},
		{"a pod that is gone", nil, func(s *Survey) { clear(s.Pods) }, "LeakedAddress does not exist or does not use it"},
		{"another pod has it", nil, func(s *Survey) { s.Pods[s.Taken[0].Addr] = Pod{"default", "other", "n1"} }, "LeakedAddress is used by pod default/other"},
		{"a tunnel address of a node that is gone", tunnel, func(s *Survey) {
			s.Handles["tunnel"] = ipam.Handle{ID: "tunnel"}
			s.Nodes = map[model.NodeName]Node{}
		}, "LeakedAddress is a tunnel address of node n1, which does not exist"},
		{"a tunnel address that the node does not use", tunnel, func(s *Survey) { s.Handles["tunnel"] = ipam.Handle{ID: "tunnel"} }, "LeakedAddress which uses another one"},
		{"an address twice", nil, func(s *Survey) { s.Taken = append(s.Taken, s.Taken[0]) }, "DuplicateAddress delete the younger"},
		{"a pod with an address of nobody", nil, func(s *Survey) { s.Pods[netip.MustParseAddr("10.244.7.7")] = Pod{"default", "wild", "n1"} }, "AddressNotAllocated default/wild"},
		{"a pod with an address of another network", nil, func(s *Survey) { s.Pods[netip.MustParseAddr("192.0.2.7")] = Pod{"default", "host", "n1"} }, ""},
		{"a block that cannot be read", nil, func(s *Survey) { s.Invalid = []string{"block x: cannot be read"} }, "InvalidBlock cannot be read"},
		{"a block in no pool", nil, func(s *Survey) { s.Pools = nil }, "StrayBlock lies in no pool"},
		{"a block of a node that is gone", nil, func(s *Survey) { s.Nodes = map[model.NodeName]Node{} }, "StrayBlock belongs to node n1, which does not exist"},
		{"blocks that overlap", nil, func(s *Survey) {
			s.Blocks = append(s.Blocks, Block{CIDR: netip.MustParsePrefix("10.244.1.8/29"), Size: 8})
		}, "StrayBlock overlaps block 10.244.1.0/28"},
		{"a block without a claim", nil, func(s *Survey) { s.Affinities = nil }, "StaleAffinity which has no BlockAffinity for it"},
		{"a claim without a block", nil, func(s *Survey) {
			s.Affinities = append(s.Affinities, ipam.Affinity{Node: "n1", CIDR: netip.MustParsePrefix("10.244.2.0/28"), State: model.BlockConfirmed, Type: "host"})
		}, "StaleAffinity which does not exist"},
		{"a claim of another node", nil, func(s *Survey) {
			s.Affinities = append(s.Affinities, ipam.Affinity{Node: "n2", CIDR: cidr, State: model.BlockConfirmed, Type: "host"})
		}, "StaleAffinity which belongs to n1"},
		{"a claim that is pending", nil, func(s *Survey) {
			s.Affinities = append(s.Affinities, ipam.Affinity{Node: "n2", CIDR: cidr, State: model.BlockPending, Type: "host"})
		}, ""},
		{"an address of a Service", service, front("10.244.1.1"), ""},
		{"an address of a Service that another one shares", service, func(s *Survey) {
			front("10.244.1.1")(s)
			s.Services[netip.MustParseAddr("10.244.1.1")] = "shop/other"
		}, ""},
		{"an address of a Service that is gone", service, func(s *Survey) { front("10.244.1.1")(s); s.Services = nil }, "LeakedAddress belongs to Service shop/front, which does not exist"},
		{"an address in a Service's status that is nobody's", nil, front("10.244.1.9"), "AddressNotAllocated 10.244.1.9 of IPPool pool is in the status of Service shop/front"},
		{"a Service with an address of another network", nil, func(s *Survey) { s.Services = map[netip.Addr]string{netip.MustParseAddr("192.0.2.7"): "shop/front"} }, ""},
		{"a handle without an address", nil, func(s *Survey) { s.Handles["old"] = ipam.Handle{ID: "old"} }, "LeakedHandle handle old has no address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := survey(t, c.block)
			c.change(s)
			got := s.Check()
			class, text, _ := strings.Cut(c.want, " ")
			if c.want == "" && len(got) > 0 || c.want != "" && !slices.ContainsFunc(got, func(f Finding) bool { return f.Class == class && strings.Contains(f.Text, text) }) {
				t.Errorf("got %+v, want %q", got, c.want)
			}
		})
	}
}

func TestTables(t *testing.T) {
	s := survey(t, func(b *ipam.Block) {
		b.Assign(1, ipam.Attribute{Handle: "borrowed", Owner: map[string]string{"namespace": "default", "pod": "far", "node": "n2"}}, nil)
	})
	s.Blocks = append(s.Blocks, Block{CIDR: netip.MustParsePrefix("10.9.0.0/28"), Size: 16, InUse: 4})
	for name, c := range map[string]struct {
		rows [][]string
		want string
	}{
		"pools":  {s.Usage(false), "IP Pool|10.244.0.0/16|65536|2 (0%)|0 (0%)|65534 (100%);Block without pool|10.9.0.0/28|16|4 (25%)|0 (0%)|12 (75%)"},
		"blocks": {s.Usage(true), "IP Pool|10.244.0.0/16|65536|2 (0%)|0 (0%)|65534 (100%);Block|10.244.1.0/28|16|2 (12%)|0 (0%)|14 (88%);Block without pool|10.9.0.0/28|16|4 (25%)|0 (0%)|12 (75%)"},
	} {
		var rows []string
		for _, r := range c.rows[1:] {
			rows = append(rows, strings.Join(r, "|"))
		}
		if got := strings.Join(rows, ";"); got != c.want {
			t.Errorf("%s: %s\nwant %s", name, got, c.want)
		}
	}
	if rows := s.Borrowed(); len(rows) != 2 || rows[1][1] != "n2" || rows[1][5] != "default/far" {
		t.Errorf("borrowed: %v", rows)
	}
}
