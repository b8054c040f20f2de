package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/pkg/model"
)

const (
	// surveyAtMost is the time between two surveys of a small cluster, and
	// surveyAtLeast between any two.
	surveyAtMost  = 30 * time.Second
	surveyAtLeast = time.Second
	// surveyShare: a survey that takes long is made so rarely that it takes one
	// part in this many of the time.
	surveyShare = 30
	// batch is how many handles are released in one pass, so that other work
	// does not wait for long.
	batch = 100
)

// everywhere are all addresses.
var everywhere = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}

// collector finds and releases garbage. See fateOf and judge for what garbage
// is.
type collector struct {
	store   ipam.Store
	objects *Objects
	exists  func(context.Context, model.NodeName) (bool, error) // asks the server for a node
	now     func() time.Time
	log     *slog.Logger
	metrics *metrics
	settle  time.Duration // see the constant

	grace       time.Duration // leakGracePeriod; 0: leaks are not collected
	memory      memory
	todo        verdicts      // of the last survey, not acted upon yet
	began, next time.Time     // of surveys
	took        time.Duration // the last one
	nextHandles time.Time
}

// hurry brings the next survey forward: something waits for it, which is worth
// a survey after least.
func (g *collector) hurry(least time.Duration) {
	if soon := g.began.Add(max(least, surveyShare/3*g.took)); soon.Before(g.next) {
		g.next = soon
	}
}

// collect surveys when it is time to and releases what is due. after says when
// to call it again at the latest.
func (g *collector) collect(ctx context.Context, s model.Snapshot) (seen *survey, after time.Duration, err error) {
	var errs []error
	if !g.objects.pods.ready() {
		return nil, surveyAtLeast, nil
	}
	if !g.now().Before(g.next) && len(g.todo.handles) == 0 {
		seen, err = g.survey(ctx, s)
		errs = append(errs, err)
	}
	errs = append(errs, g.act(ctx, s))
	if len(g.todo.handles) > 0 {
		return seen, time.Millisecond, errors.Join(errs...)
	}
	return seen, max(g.next.Sub(g.now()), time.Millisecond), errors.Join(errs...)
}

// survey reads every block and judges.
func (g *collector) survey(ctx context.Context, s model.Snapshot) (*survey, error) {
	began := g.now()
	g.began, g.next = began, began.Add(surveyAtLeast) // after an error
	grace, graceErr := g.objects.leakGrace(ctx)
	if graceErr == nil {
		g.grace = grace
	} else if g.grace == 0 {
		return nil, graceErr
	}
	w := newWorld(s, g.objects.pods)
	seen := newSurvey()
	for _, within := range everywhere {
		if err := g.store.EachBlock(ctx, within, func(b *ipam.Block, _ ipam.Revision) bool {
			seen.add(b, w)
			return true
		}); err != nil {
			return nil, err
		}
	}
	g.metrics.usage.set(s, seen.usage)
	var names []string
	if g.grace > 0 && !began.Before(g.nextHandles) {
		var err error
		if names, err = g.objects.handleNames(ctx); err != nil {
			return seen, err
		}
		g.nextHandles = began.Add(g.grace / 2)
	}
	g.memory, g.todo = evaluate(g.memory, seen, w, names, began, g.waits())
	g.took = g.now().Sub(began)
	g.next = began.Add(max(surveyAtLeast, min(g.interval(), max(surveyAtMost, surveyShare*g.took))))
	if g.todo.settles {
		g.hurry(g.settle / 4)
	}
	return seen, graceErr
}

// waits are what judge asks for. Without a grace nothing is collected but what
// a deleted pool or a deleted node leaves.
func (g *collector) waits() waits {
	if g.grace == 0 {
		return waits{leak: math.MaxInt64, settle: g.settle, again: max(g.settle, defaultLeakGrace)}
	}
	return waits{leak: g.grace, settle: g.settle, again: max(g.settle, g.grace)}
}

// interval is half the grace: what is garbage is seen twice within it.
func (g *collector) interval() time.Duration {
	if g.grace == 0 {
		return defaultLeakGrace / 2
	}
	return g.grace / 2
}

// act releases a batch of what is due and goes on after an error. While the
// cluster is locked it releases nothing: what is due then is found anew by the
// next survey, as long due.
func (g *collector) act(ctx context.Context, s model.Snapshot) error {
	if s.IPAM.Locked {
		g.todo = verdicts{}
		return nil
	}
	cooldown := time.Duration(s.IPAM.CooldownSeconds) * time.Second
	n := min(batch, len(g.todo.handles))
	due := g.todo.handles[:n]
	g.todo.handles = g.todo.handles[n:]
	w := newWorld(s, g.objects.pods)
	errs := []error{g.releaseLeaks(ctx, due, w, cooldown)}
	for _, name := range g.todo.orphans {
		errs = append(errs, alloc.RecountHandle(ctx, g.store, name))
	}
	for _, b := range g.todo.blocks {
		errs = append(errs, g.releaseBlock(ctx, b, w, cooldown))
	}
	if n := len(g.todo.orphans); n > 0 {
		g.log.Info("handles without addresses collected", "handles", n)
	}
	g.todo.orphans, g.todo.blocks = nil, nil
	return errors.Join(errs...)
}

// releaseLeaks releases the handles that the server, asked once more, says are
// garbage: those of one block in one write.
func (g *collector) releaseLeaks(ctx context.Context, due [][]leak, w world, cooldown time.Duration) error {
	var errs []error
	byBlock := map[netip.Prefix][]leak{}
	for _, leaks := range due {
		sure, err := g.confirm(ctx, leaks, w)
		errs = append(errs, err)
		if sure {
			for _, l := range leaks {
				byBlock[l.cidr] = append(byBlock[l.cidr], l)
			}
		}
	}
	for _, cidr := range slices.SortedFunc(maps.Keys(byBlock), func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) }) {
		leaks := byBlock[cidr]
		err := alloc.ReleaseAddrs(ctx, g.store, cidr, releases(leaks), cooldown)
		if err != nil && len(leaks) > 1 {
			// One that does not fit any more keeps all; the others go alone.
			err = g.oneByOne(ctx, cidr, leaks, w, cooldown)
		} else if err == nil {
			g.released(w, leaks)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (g *collector) oneByOne(ctx context.Context, cidr netip.Prefix, leaks []leak, w world, cooldown time.Duration) error {
	var errs []error
	for _, l := range leaks {
		err := alloc.ReleaseAddrs(ctx, g.store, cidr, releases([]leak{l}), cooldown)
		if err == nil {
			g.released(w, []leak{l})
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func releases(leaks []leak) []ipam.Release {
	out := make([]ipam.Release, 0, len(leaks))
	for _, l := range leaks {
		id, _, _ := strings.Cut(l.alloc.Handle, "\r")
		seq := l.alloc.Sequence
		out = append(out, ipam.Release{Addr: l.alloc.Addr, Handle: id, Sequence: &seq})
	}
	return out
}

func (g *collector) released(w world, leaks []leak) {
	for _, l := range leaks {
		pool := noPool
		if p := w.poolOf(l.cidr); p != nil {
			pool = p.Name
		}
		node := l.alloc.Owner["node"]
		if g.metrics.reclaimed != nil {
			g.metrics.reclaimed.WithLabelValues(pool, nodeLabel(model.NodeName(node))).Inc()
		}
		if l.fate == left && g.metrics.freed != nil {
			g.metrics.freed.Inc()
		}
		g.log.Info("address without a pod released", "address", l.alloc.Addr.String(), "handle", l.alloc.Handle,
			"pod", l.alloc.Owner["namespace"]+"/"+l.alloc.Owner["pod"], "node", node, "nodeExists", l.fate != left)
	}
}

// confirm asks the server, not a cache, about every node, pod and block of a
// handle. What cannot be asked is kept.
func (g *collector) confirm(ctx context.Context, leaks []leak, w world) (bool, error) {
	var failed error
	w.pod = func(namespace, name string) (podFacts, bool) {
		p, ok, err := g.objects.livePod(ctx, namespace, name)
		failed = errors.Join(failed, err)
		return p, ok
	}
	for _, l := range leaks {
		if l.fate == left {
			there, err := g.exists(ctx, model.NodeName(l.alloc.Owner["node"]))
			if there || err != nil {
				return false, err // it is back: its agent keeps what it had
			}
		}
		b, _, err := g.store.Blocks().Get(ctx, l.cidr)
		if errors.Is(err, ipam.ErrNotFound) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("look at block %s of handle %s: %w", l.cidr, l.alloc.Handle, err)
		}
		for a := range b.Allocations() {
			if handleKey(a) == handleKey(l.alloc) && !known(leaks, a) {
				return false, nil // it has got another address meanwhile
			}
		}
		if w.fateOf(l.alloc) != l.fate || failed != nil {
			return false, failed
		}
	}
	return true, nil
}

func known(leaks []leak, a ipam.Allocation) bool {
	return slices.ContainsFunc(leaks, func(l leak) bool { return l.alloc.Addr == a.Addr && l.alloc.Sequence == a.Sequence })
}

// releaseBlock takes a block from its node, unless it has been written to since
// it was judged. One of a node that does not exist stays, affine to nobody, while
// others have addresses in it.
func (g *collector) releaseBlock(ctx context.Context, b seenBlock, w world, cooldown time.Duration) error {
	if b.cooling {
		return g.warm(ctx, b, cooldown)
	}
	cond := alloc.AffinityRelease{RequireEmpty: b.idle, Sequence: &b.seq}
	gone := w.missing(b.node)
	if gone {
		if there, err := g.exists(ctx, b.node); there || err != nil {
			return err
		}
	}
	if b.claim {
		cond.Sequence = nil
	}
	err := alloc.ReleaseAffinity(ctx, g.store, b.node, b.cidr, cond)
	if errors.Is(err, ipam.ErrConflict) || errors.Is(err, alloc.ErrNotEmpty) {
		return nil // it is in use again
	}
	if err != nil {
		return err
	}
	g.memory.took(b, gone, g.now())
	g.log.Info("block released", "block", b.cidr.String(), "node", b.node, "nodeExists", !gone)
	return nil
}

// warm frees the addresses of an idle block whose cooldown is over. A later
// survey finds it empty.
func (g *collector) warm(ctx context.Context, b seenBlock, cooldown time.Duration) error {
	have, at, err := g.store.Blocks().Get(ctx, b.cidr)
	if err != nil {
		return absentIsFine(err)
	}
	have = have.Clone()
	if have.Sequence() != b.seq || !have.Collect(g.now(), cooldown) {
		return nil
	}
	have.Bump()
	_, err = g.store.Blocks().Update(ctx, have, at)
	if errors.Is(err, ipam.ErrConflict) {
		return nil
	}
	return absentIsFine(err)
}

func absentIsFine(err error) error {
	if errors.Is(err, ipam.ErrNotFound) {
		return nil
	}
	return err
}
