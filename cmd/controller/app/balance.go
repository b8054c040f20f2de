package app

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/ipam/loadbalancer"
	"github.com/muslin-net/muslin/pkg/compat"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
	"github.com/muslin-net/muslin/pkg/validate"
)

const (
	// gather is the least time between two looks at Services: what comes alone is seen
	// at once, what comes in a burst together.
	gather = 50 * time.Millisecond
	// writers is how many statuses are written at the same time.
	writers = 8
)

// balancer gives Services of type LoadBalancer their addresses. It keeps no memory
// of what it gave: each pass reads the blocks, decides, and writes.
type balancer struct {
	cluster *kube.Cluster
	store   ipam.Store
	now     func() time.Time
	log     *slog.Logger

	foreign  map[netip.Prefix]bool // blocks that turned out to be others'
	last     loadbalancer.Input    // of the last pass that left nothing to do
	until    time.Time             // when to look again though nothing has changed
	reported map[model.Ref]string  // by events
	failing  bool
}

// run works until ctx ends.
func (b *balancer) run(ctx context.Context) {
	b.foreign = map[netip.Prefix]bool{}
	for {
		soon := time.After(gather)
		after := b.pass(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(after):
			continue
		case <-b.cluster.BalancedChanged():
		}
		select {
		case <-ctx.Done():
			return
		case <-soon:
		}
	}
}

// pass does what is to be done now, and says when to look again without a hint.
func (b *balancer) pass(ctx context.Context) (after time.Duration) {
	in, ok := b.input()
	if !ok {
		return lookAgain
	}
	if wait := b.until.Sub(b.now()); wait > 0 && reflect.DeepEqual(in, b.last) {
		return wait
	}
	plan, err := b.step(ctx, in)
	if err != nil && !b.failing && ctx.Err() == nil {
		b.log.Error("cannot give Services their addresses", "error", err)
	}
	b.failing = err != nil
	switch {
	case err != nil:
		return retryAfter
	case len(plan.Claims)+len(plan.Writes)+len(plan.Statuses)+len(plan.Releases) > 0:
		return gather // and sooner, when the cluster tells what was written
	case len(plan.Drops) > 0:
		return retryAfter // what cools down
	}
	b.last, b.until = in, b.now().Add(lookAgain)
	return lookAgain
}

// input is what is known of the cluster; false: not enough.
func (b *balancer) input() (loadbalancer.Input, bool) {
	services, ok := b.cluster.Balanced()
	if !ok {
		return loadbalancer.Input{}, false
	}
	s := b.cluster.Snapshot()
	in := loadbalancer.Input{
		Services: services.List, OnlyRequested: services.OnlyRequested, Pools: s.Pools, Reserved: s.Reserved, Namespaces: s.Namespaces,
		Locked: s.IPAM.Locked, Cooldown: time.Duration(s.IPAM.CooldownSeconds) * time.Second,
	}
	for _, block := range s.Blocks {
		if block.Node != "" {
			in.Foreign = append(in.Foreign, block.CIDR)
		}
	}
	for cidr := range b.foreign {
		in.Foreign = append(in.Foreign, cidr)
	}
	slices.SortFunc(in.Foreign, netip.Prefix.Compare)
	for _, u := range validate.AllInUse(s) {
		// A pool for Services may lie in the nodes' subnet, as it does where a
		// router has no route to another, and in the ranges that BGP announces.
		if u.Reason != validate.ReasonOverlapsServices && u.CIDR.IsSingleIP() || u.Object.Kind == "ServiceCIDR" {
			in.InUse = append(in.InUse, u.CIDR)
		}
	}
	return in, true
}

// step makes a plan and carries it out.
func (b *balancer) step(ctx context.Context, in loadbalancer.Input) (loadbalancer.Plan, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var err error
	if in.Blocks, err = b.store.BlocksOf(ctx, ipam.VirtualAffinity(ipam.LoadBalancer)); err != nil {
		return loadbalancer.Plan{}, err
	}
	in.Now = b.now()
	plan := loadbalancer.Decide(in)
	failed, err := b.assign(ctx, plan)
	showing, statusErr := b.show(ctx, plan, failed)
	errs := []error{err, statusErr, b.release(ctx, plan, showing, in.Cooldown)}
	for _, cidr := range plan.Drops {
		if err := alloc.DropVirtual(ctx, b.store, ipam.LoadBalancer, cidr, in.Cooldown); !errors.Is(err, alloc.ErrNotEmpty) {
			errs = append(errs, err)
		}
	}
	return plan, errors.Join(append(errs, b.tell(ctx, in, plan))...)
}

// assign claims blocks and writes what they give. A block that could not be written
// keeps nothing else back: failed are those. That one is another's is no error.
func (b *balancer) assign(ctx context.Context, plan loadbalancer.Plan) (failed []netip.Prefix, err error) {
	var errs []error
	for _, cidr := range plan.Claims {
		err := alloc.ClaimVirtual(ctx, b.store, ipam.LoadBalancer, cidr)
		if err == nil {
			continue
		}
		failed = append(failed, cidr)
		if errors.Is(err, alloc.ErrForeign) {
			b.foreign[cidr] = true
			continue
		}
		errs = append(errs, err)
	}
	for _, w := range plan.Writes {
		if slices.Contains(failed, w.CIDR) {
			continue
		}
		if err := alloc.AssignVirtual(ctx, b.store, w.CIDR, w.Grants); err != nil {
			failed, errs = append(failed, w.CIDR), append(errs, err)
		}
	}
	return failed, errors.Join(errs...)
}

// show writes the statuses of Services whose addresses are not of failed blocks. showing
// are the addresses of those that may still say by it that they have them.
func (b *balancer) show(ctx context.Context, plan loadbalancer.Plan, failed []netip.Prefix) (showing []netip.Addr, err error) {
	var mu sync.Mutex
	keep := func(s *loadbalancer.Status) {
		mu.Lock()
		defer mu.Unlock()
		showing = append(showing, s.Service.Addrs...)
	}
	err = task.Each(writers, plan.Statuses, func(s loadbalancer.Status) error {
		if slices.ContainsFunc(s.Addrs, func(a netip.Addr) bool { return contains(failed, a) }) {
			keep(&s)
			return nil
		}
		if err := b.cluster.SetIngress(ctx, s.Service, s.Addrs, s.Drop); err != nil {
			keep(&s)
			return err
		}
		b.log.Info("addresses of a Service written", "service", s.Service.Namespace+"/"+s.Service.Name, "addresses", s.Addrs, "taken", s.Drop)
		return nil
	})
	return showing, err
}

// release takes back the addresses that nobody shows. The server itself is asked first:
// while a Service says by its status that it has the address, which a cache may not know
// of yet, nobody else gets it.
func (b *balancer) release(ctx context.Context, plan loadbalancer.Plan, showing []netip.Addr, cooldown time.Duration) error {
	var mu sync.Mutex
	byBlock := map[netip.Prefix][]loadbalancer.Release{}
	errs := []error{task.Each(writers, plan.Releases, func(r loadbalancer.Release) error {
		if slices.Contains(showing, r.Addr) {
			return nil
		}
		s, there, err := b.cluster.LiveService(ctx, r.Of.Namespace, r.Of.Name)
		if err != nil || there && loadbalancer.Handle(&s) == r.Handle && slices.Contains(s.Addrs, r.Addr) {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		byBlock[r.CIDR] = append(byBlock[r.CIDR], r)
		return nil
	})}
	for cidr, list := range byBlock {
		errs = append(errs, b.releaseOf(ctx, cidr, list, cooldown))
	}
	return errors.Join(errs...)
}

// releaseOf takes back addresses of one block.
func (b *balancer) releaseOf(ctx context.Context, cidr netip.Prefix, list []loadbalancer.Release, cooldown time.Duration) error {
	var of []ipam.Release
	for _, r := range list {
		of = append(of, r.Release)
	}
	if err := alloc.ReleaseAddrs(ctx, b.store, cidr, of, cooldown); err != nil {
		return err
	}
	for _, r := range list {
		b.log.Info("address of a Service released", "address", r.Addr.String(), "service", r.Of.Namespace+"/"+r.Of.Name, "handle", r.Handle)
	}
	return nil
}

// tell records an event for each Service whose problems, annotations without effect among
// them, are others than they were.
func (b *balancer) tell(ctx context.Context, in loadbalancer.Input, plan loadbalancer.Plan) error {
	byService := map[model.Ref][]model.Problem{}
	for _, p := range plan.Problems {
		byService[p.Object] = append(byService[p.Object], p)
	}
	now := map[model.Ref]string{}
	var errs []error
	for i := range in.Services {
		ref, annotations := in.Services[i].Ref(), in.Services[i].Annotations
		list := slices.Concat(byService[ref], compat.Annotations("", ref, annotations))
		if plan.Served[ref] {
			list = append(list, compat.Others(ref, annotations)...)
		}
		if len(list) == 0 {
			continue
		}
		now[ref] = message(list)
		if now[ref] == b.reported[ref] {
			continue
		}
		err := b.cluster.Record(ctx, kube.Event{Object: ref, UID: in.Services[i].UID, Type: kube.EventWarning, Reason: list[0].Reason, Message: now[ref]})
		if errs = append(errs, err); err != nil {
			delete(now, ref)
		}
	}
	b.reported = now
	return errors.Join(errs...)
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}
