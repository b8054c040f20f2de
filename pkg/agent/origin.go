package agent

import (
	"cmp"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
)

const (
	// originGrace is how long a refusal has to stand before it is counted and
	// shown: the route of a new block may be here before the block itself, which
	// comes by another way.
	originGrace = 5 * time.Second
	// originShown is how many refusals a status shows.
	originShown = 100
)

// origin stands between the speaker and the data plane and lets through what
// IPAM confirms (bgp.OriginCheck).
type origin struct {
	log *slog.Logger
	now func() time.Time

	view task.Cell[originView]

	mu       sync.Mutex
	passed   []model.Learned
	standing map[bgp.Refusal]standing
	counts   map[string]uint64 // by reason
}

// originView is what IPAM's blocks say of who may announce what.
type originView struct {
	check  bgp.OriginCheck
	listed bool // the blocks of all nodes are known
	stale  bool // the API server cannot be reached: blocks may have changed since
}

// standing is a refusal that is in force.
type standing struct {
	since   time.Time
	counted bool
}

func newOrigin(log *slog.Logger) *origin {
	o := &origin{log: log, now: time.Now, standing: map[bgp.Refusal]standing{}, counts: map[string]uint64{}}
	o.view.Set(originView{check: bgp.OriginCheck{Mode: bgp.OriginOff}})
	return o
}

// asksForOrigin reports whether the check is on, for which the blocks of all
// nodes have to be known.
func asksForOrigin(list []model.BGPConfiguration) bool {
	return bgp.NewOriginCheck(model.Snapshot{BGP: list}, "").Mode != bgp.OriginOff
}

// learn takes what the cluster says of blocks: those of this node as its
// allocator knows them, and the others' as the API server tells them.
func (o *origin) learn(s model.Snapshot, self model.NodeName, own []model.Block, all kube.Blocks) {
	check := bgp.OriginCheck{Mode: bgp.OriginOff}
	if asksForOrigin(s.BGP) {
		s.Blocks = slices.Clone(own)
		for _, b := range all.List {
			if b.Node != self {
				s.Blocks = append(s.Blocks, b)
			}
		}
		s.Lent, s.LentKnown = all.Lent, all.Listed
		check = bgp.NewOriginCheck(s, self)
	}
	if check.Mode != o.view.Value().check.Mode {
		o.log.Info("route origin check", "mode", string(check.Mode))
	}
	o.view.Set(originView{check, all.Listed, all.Stale})
}

// pass gives the routes that may be installed. What is installed already stays
// while the blocks are not known, or not known to be current.
func (o *origin) pass(v originView, learned []model.Learned) []model.Learned {
	o.mu.Lock()
	defer o.mu.Unlock()
	var refused []bgp.Refusal
	out := learned
	switch {
	case v.check.Mode == bgp.OriginOff:
	case !v.listed && v.check.Mode == bgp.OriginWarn:
	case !v.listed: // what is held back is not refused: its block may be named in a moment
		out, _ = v.check.Apply(learned, o.installed())
	case v.stale:
		out, refused = v.check.Apply(learned, o.installed())
	default:
		out, refused = v.check.Apply(learned, nil)
	}
	o.passed = out
	o.stand(refused)
	return out
}

// installed recognises the prefixes that were let through last time. The caller
// holds mu.
func (o *origin) installed() func(netip.Prefix) bool {
	passed := o.passed // sorted, as the speaker gave it
	return func(p netip.Prefix) bool {
		_, have := slices.BinarySearchFunc(passed, p, func(l model.Learned, p netip.Prefix) int {
			return l.Prefix.Compare(p)
		})
		return have
	}
}

// stand makes refused the refusals in force. The caller holds mu.
func (o *origin) stand(refused []bgp.Refusal) {
	o.count()
	now := make(map[bgp.Refusal]standing, len(refused))
	for _, r := range refused {
		s, known := o.standing[r]
		if !known {
			s.since = o.now()
		}
		now[r] = s
	}
	o.standing = now
}

// count counts the refusals that have stood for long enough, each once. The
// caller holds mu.
func (o *origin) count() {
	var fresh []bgp.Refusal
	for r, s := range o.standing {
		if s.counted || o.now().Sub(s.since) < originGrace {
			continue
		}
		s.counted = true
		o.standing[r] = s
		o.counts[r.Reason]++
		fresh = append(fresh, r)
	}
	if len(fresh) > 0 {
		slices.SortFunc(fresh, compareRefusals)
		r := fresh[0]
		o.log.Warn("ipam does not confirm the origin of routes", "mode", string(o.view.Value().check.Mode), "count", len(fresh),
			"first", r.Prefix.String(), "nexthop", r.NextHop.String(), "from", r.From.String(), "reason", r.Reason)
	}
}

// OriginStatus is what the route origin check has found.
type OriginStatus struct {
	Mode bgp.OriginMode `json:"mode"`
	// Waiting: the blocks of other nodes are not known yet.
	Waiting bool `json:"waiting,omitempty"`
	// Stale: the API server cannot be reached; what is installed stays.
	Stale bool `json:"stale,omitempty"`
	// Total counts refusals by reason, since the agent started.
	Total map[string]uint64 `json:"total"`
	// Standing is how many are in force; Refused shows the first hundred.
	Standing int             `json:"standing"`
	Refused  []OriginRefusal `json:"refused,omitempty"`
}

// OriginRefusal is a next hop of a learned prefix that IPAM does not confirm.
type OriginRefusal struct {
	Prefix  netip.Prefix `json:"prefix"`
	NextHop netip.Addr   `json:"nextHop"`
	From    netip.Addr   `json:"from"`
	Reason  string       `json:"reason"`
	Since   time.Time    `json:"since"`
}

// status gives the state of the check.
func (o *origin) status() OriginStatus {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.count()
	v := o.view.Value()
	s := OriginStatus{Mode: v.check.Mode, Total: map[string]uint64{bgp.ReasonNoBlock: 0, bgp.ReasonWrongOwner: 0, bgp.ReasonNotBehind: 0}}
	if v.check.Mode != bgp.OriginOff {
		s.Waiting, s.Stale = !v.listed, v.stale
	}
	for reason, n := range o.counts {
		s.Total[reason] = n
	}
	var shown []bgp.Refusal
	for r, st := range o.standing {
		if st.counted {
			shown = append(shown, r)
		}
	}
	s.Standing = len(shown)
	slices.SortFunc(shown, compareRefusals)
	for _, r := range shown[:min(len(shown), originShown)] {
		s.Refused = append(s.Refused, OriginRefusal{r.Prefix, r.NextHop, r.From, r.Reason, o.standing[r].since})
	}
	return s
}

func compareRefusals(a, b bgp.Refusal) int {
	return cmp.Or(a.Prefix.Compare(b.Prefix), a.NextHop.Compare(b.NextHop), a.From.Compare(b.From))
}
