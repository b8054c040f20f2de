package policy

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/muslin-net/muslin/pkg/model"
)

// The way of a packet has the rules that passed it on and the one that decided;
// what no Compile makes ends in a drop all the same.
func TestDecide(t *testing.T) {
	rule := func(v Verdict, next ChainID, port uint16, tier string) Rule {
		r := Rule{Verdict: v, Next: next, Origin: Origin{Tier: tier, Index: -1}}
		if port != 0 {
			r.Protocol, r.Destination.Ports = tcp, []PortRange{{port, port}}
		}
		return r
	}
	p := Program{Chains: model.SortedOf([]Chain{
		{"i-1", []Rule{rule(Log, "", 0, "a"), rule(Allow, "", 80, "a"), rule(Pass, "i-2", 81, "a"), rule(Pass, "i-9", 82, "a"), rule(Deny, "", 0, "a")}},
		{"i-2", []Rule{rule(Allow, "", 0, "b")}},
		{"i-3", []Rule{rule(Pass, "i-3", 0, "c")}},
		{"i-4", []Rule{rule(Allow, "", 80, "d")}},
	})}
	for _, c := range []struct {
		chain ChainID
		port  uint16
		rules int
		want  bool
	}{
		{"", 80, 0, true}, {"i-1", 80, 1, true}, {"i-1", 81, 2, true}, {"i-1", 83, 1, false},
		{"i-1", 82, 2, false}, {"i-3", 80, 6, false}, {"i-4", 81, 1, false}, {"i-8", 80, 1, false},
	} {
		k := Packet{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), tcp, 5000, c.port, 0, 0}
		if path := p.Decide(c.chain, k); len(path) != c.rules || Allowed(path) != c.want {
			t.Errorf("%s, port %d: %s", c.chain, c.port, fmt.Sprint(path))
		}
	}
}
