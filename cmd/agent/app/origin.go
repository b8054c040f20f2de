package app

import (
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
)

// originShown is how many refusals a status shows.
const originShown = 100

// origin stands between the speaker and the data plane and lets through what
// IPAM confirms (bgp.OriginCheck).
type origin struct {
	log      *slog.Logger
	view     task.Cell[originView]
	refusals task.Cell[bgp.Refusals]
	passed   []model.Learned // last; the data plane's alone
}

// originView is what IPAM's blocks say of who may announce what.
type originView struct {
	check  bgp.OriginCheck
	listed bool // the blocks of all nodes are known
	stale  bool // the API server cannot be reached: blocks may have changed since
}

func newOrigin(log *slog.Logger) *origin {
	o := &origin{log: log}
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
		s.Blocks = own
		withOthers(&s, self, all)
		check = bgp.NewOriginCheck(s, self)
	}
	if check.Mode != o.view.Value().check.Mode {
		o.log.Info("route origin check", "mode", string(check.Mode))
	}
	o.view.Set(originView{check, all.Listed, all.Stale})
}

// pass gives the routes that may be installed, and after how long to look again
// whether what it refuses still stands, 0 for never. What is installed already stays
// while the blocks are not known, or not known to be current.
func (o *origin) pass(v originView, learned []model.Learned, now time.Time) (out []model.Learned, again time.Duration) {
	var refused []bgp.Refusal
	out = learned
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
	refusals, fresh := o.refusals.Value().Next(refused, now)
	o.refusals.Set(refusals)
	if len(fresh) > 0 {
		r := fresh[0]
		o.log.Warn("ipam does not confirm the origin of routes", "mode", string(v.check.Mode), "count", len(fresh),
			"first", r.Prefix.String(), "nexthop", r.NextHop.String(), "from", r.From.String(), "reason", r.Reason)
	}
	return out, refusals.Due(now)
}

// installed recognises the prefixes that were let through last time.
func (o *origin) installed() func(netip.Prefix) bool {
	passed := o.passed // sorted, as the speaker gave it
	return func(p netip.Prefix) bool {
		_, have := slices.BinarySearchFunc(passed, p, func(l model.Learned, p netip.Prefix) int {
			return l.Prefix.Compare(p)
		})
		return have
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
	v, refusals := o.view.Value(), o.refusals.Value()
	standing := refusals.Standing()
	s := OriginStatus{Mode: v.check.Mode, Total: refusals.Total(), Standing: len(standing)}
	if v.check.Mode != bgp.OriginOff {
		s.Waiting, s.Stale = !v.listed, v.stale
	}
	for _, r := range standing[:min(len(standing), originShown)] {
		s.Refused = append(s.Refused, OriginRefusal{r.Prefix, r.NextHop, r.From, r.Reason, r.Since})
	}
	return s
}
