package bgp

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func TestReflectorLoad(t *testing.T) {
	for name, c := range map[string]struct {
		clients, others, paths, routes int
		most                           string // in the message; empty: no problem
	}{
		"no reflector":         {others: 1000, routes: 1_000_000},
		"at its bound":         {clients: 100, others: 7, paths: 2, routes: 1998},
		"one route over it":    {clients: 100, others: 7, paths: 2, routes: 1999, most: "100 clients should know at most 2000 routes"},
		"one client over it":   {clients: 101, paths: 2, routes: 1998, most: "101 clients should know at most 1980 routes"},
		"many routes, few ask": {clients: 2, routes: 100_000},
	} {
		t.Run(name, func(t *testing.T) {
			var cfg Config
			for i := range c.clients + c.others {
				cfg.Peers = append(cfg.Peers, Peer{Address: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), ReflectorClient: i < c.clients})
			}
			for i := range c.paths {
				cfg.Paths = append(cfg.Paths, Path{Prefix: netip.MustParsePrefix(fmt.Sprintf("10.1.%d.0/26", i))})
			}
			got := ReflectorLoad(cfg, "n1", c.routes)
			if c.most == "" {
				if len(got) > 0 {
					t.Errorf("%v", got)
				}
				return
			}
			if len(got) != 1 || got[0].Object.String() != "Node n1" || got[0].Reason != ReasonReflectorOverloaded || !strings.Contains(got[0].Message, c.most) {
				t.Errorf("got %v, want a problem of node n1 with %q", got, c.most)
			}
		})
	}
}
