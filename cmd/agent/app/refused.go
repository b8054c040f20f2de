package app

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/muslin-net/muslin/bgp"
)

// refusedAge is how old the counts of refused prefixes may be: counting walks
// every peer's table.
const refusedAge = 30 * time.Second

// RefusedCount is how many prefixes of a peer are refused now for a reason: the
// rule that rejects them, or a loop in their AS path.
type RefusedCount struct {
	Peer   netip.Addr `json:"peer"`
	Reason string     `json:"reason"`
	Count  int        `json:"count"`
}

// refusedCounts are made when somebody asks, and kept for a while.
type refusedCounts struct {
	mu   sync.Mutex
	made time.Time
	list []RefusedCount
}

// refused counts the prefixes that peers announce and that are not used. The
// counts are up to half a minute old.
func (s *bgpLoop) refused() []RefusedCount {
	speaker := s.in.rib.Value().speaker
	if speaker == nil {
		return nil
	}
	c := &s.refusedNow
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.made) < refusedAge {
		return c.list
	}
	refusals, err := speaker.Refused()
	if err != nil {
		s.log.Debug("refused prefixes not counted", "error", err)
	}
	c.made, c.list = time.Now(), countRefused(refusals)
	return c.list
}

// countRefused sorts by peer and reason.
func countRefused(refusals []bgp.Refusal) []RefusedCount {
	counts := map[RefusedCount]int{}
	for _, r := range refusals {
		counts[RefusedCount{Peer: r.From, Reason: r.Reason}]++
	}
	var out []RefusedCount
	for key, n := range counts {
		key.Count = n
		out = append(out, key)
	}
	slices.SortFunc(out, func(a, b RefusedCount) int { return cmp.Or(a.Peer.Compare(b.Peer), cmp.Compare(a.Reason, b.Reason)) })
	return out
}
