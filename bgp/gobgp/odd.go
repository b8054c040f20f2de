package gobgp

import (
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

// mostOdd bounds how many oddities are remembered.
const mostOdd = 64

// oddity is a peer and what is odd about one of its prefixes: see bgp.Oddity.
type oddity struct {
	peer   netip.Addr
	origin model.ASN
}

// Odd lists what is odd about best paths. An oddity whose example has gone is
// forgotten, until the next audit lists the table.
func (s *Speaker) Odd() []bgp.Oddity {
	l := s.rib
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]bgp.Oddity, 0, len(l.odd))
	for o, p := range l.odd {
		out = append(out, bgp.Oddity{Peer: o.peer, Origin: o.origin, Prefix: p})
	}
	return out
}

// expect says where the cluster's blocks lie, and who may announce them.
func (l *learned) expect(cfg *bgp.Config) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.blocks, l.origins = cfg.Blocks, cfg.Origins
}

// check remembers what is odd about a path, and forgets what was odd about the one
// before it. The caller holds mu.
func (l *learned) check(p *apiutil.Path, prefix netip.Prefix) {
	for o, example := range l.odd {
		if example == prefix && o.peer == p.PeerAddress {
			delete(l.odd, o)
		}
	}
	if p.Withdrawal {
		return
	}
	if !usable(nextHop(p), prefix) {
		l.remember(oddity{peer: p.PeerAddress}, prefix)
	}
	if !inBlocks(l.blocks, prefix) {
		return
	}
	if origin := originOf(p); origin != 0 {
		if _, ours := slices.BinarySearch(l.origins, origin); !ours {
			l.remember(oddity{p.PeerAddress, origin}, prefix)
		}
	}
}

func (l *learned) remember(o oddity, prefix netip.Prefix) {
	if _, known := l.odd[o]; !known && len(l.odd) < mostOdd {
		l.odd[o] = prefix
	}
}

func inBlocks(blocks []bgp.PrefixRange, p netip.Prefix) bool {
	return slices.ContainsFunc(blocks, func(r bgp.PrefixRange) bool {
		return r.Prefix.Contains(p.Addr()) && r.Min <= p.Bits() && p.Bits() <= r.Max
	})
}

// originOf is the AS number that a path begins at; 0 where it is this AS, or a set
// of them.
func originOf(p *apiutil.Path) model.ASN {
	for _, a := range p.Attrs {
		path, ok := a.(*packet.PathAttributeAsPath)
		if !ok || len(path.Value) == 0 {
			continue
		}
		last := path.Value[len(path.Value)-1]
		if list := last.GetAS(); last.GetType() == packet.BGP_ASPATH_ATTR_TYPE_SEQ && len(list) > 0 {
			return model.ASN(list[len(list)-1])
		}
	}
	return 0
}
