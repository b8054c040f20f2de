package bgp

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/pkg/model"
)

// TestRouterIDs: a node without an IPv4 address has one made of its name; two nodes that
// have the same one are told, each of the other.
func TestRouterIDs(t *testing.T) {
	v6 := func(name string, host int) model.Node {
		return model.Node{Name: model.NodeName(name), IPv6: netip.MustParsePrefix(fmt.Sprintf("fd00::%d/64", host))}
	}
	first, second := sameHash(t)
	four := model.Node{Name: "four", IPv4: netip.PrefixFrom(hashedRouterID("c"), 24)}
	for _, c := range []struct {
		name  string
		nodes []model.Node
		want  []string // who is told, and of whom
	}{
		{"other names", []model.Node{v6("a", 1), v6("b", 2)}, nil},
		{"names of one hash", []model.Node{v6(first, 1), v6(second, 2), v6("c", 3)}, []string{first + " of " + second, second + " of " + first}},
		{"a hash that is an address", []model.Node{v6("c", 1), four}, []string{"c of four", "four of c"}},
	} {
		var got []string
		ids := map[netip.Addr]bool{}
		for _, n := range c.nodes {
			config, problems := Desired(model.Snapshot{Nodes: c.nodes}, n.Name)
			ids[config.RouterID] = true
			for _, p := range problems {
				if _, rest, ok := strings.Cut(p.Message, " is node "); ok && p.Reason == "RouterIDConflict" && p.Object == (model.Ref{Kind: "Node", Name: string(n.Name)}) {
					whose, _, _ := strings.Cut(rest, "'s, too")
					got = append(got, string(n.Name)+" of "+whose)
				}
			}
		}
		if slices.Sort(got); !slices.Equal(got, c.want) {
			t.Errorf("%s: told %q, want %q", c.name, got, c.want)
		}
		if len(ids) == len(c.nodes) != (c.want == nil) {
			t.Errorf("%s: %v", c.name, ids)
		}
	}
}

// sameHash gives two names, sorted, of which one router ID is made.
func sameHash(t *testing.T) (first, second string) {
	t.Helper()
	names := map[netip.Addr]string{}
	for i := range 1_000_000 {
		name := fmt.Sprintf("worker-%d", i)
		id := hashedRouterID(model.NodeName(name))
		if other, ok := names[id]; ok {
			return min(name, other), max(name, other)
		}
		names[id] = name
	}
	t.Fatal("no two names of one hash")
	return "", ""
}
