package loadbalancer

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/pkg/model"
)

// Input is all that a plan depends on.
type Input struct {
	Services   []model.BalancedService // every Service of the cluster
	Pools      []model.Pool
	Blocks     []*ipam.Block  // those affine to the load balancer; not changed
	Foreign    []netip.Prefix // blocks of others
	Reserved   []netip.Prefix // for those who ask by name
	InUse      []netip.Prefix // by nodes, routers and the like: for nobody
	Namespaces map[string]map[string]string
	// OnlyRequested is assignIPs: RequestedServicesOnly.
	OnlyRequested bool
	Locked        bool // nothing is given, nor taken back
	Cooldown      time.Duration
	Now           time.Time
}

// Plan says what to write, in this order.
type Plan struct {
	Claims   []netip.Prefix // blocks to be made
	Writes   []Write
	Statuses []Status
	Releases []Release
	Drops    []netip.Prefix // empty blocks without a pool
	// Problems are of Services, sorted: what each asks for and does not get.
	Problems []model.Problem
	// Served are the Services that get their addresses here.
	Served map[model.Ref]bool
}

// Write is what one block gives.
type Write struct {
	CIDR   netip.Prefix
	Grants []alloc.Grant
}

// Status is a Service whose status is not what it should be.
type Status struct {
	Service *model.BalancedService
	// Addrs are all that status.loadBalancer.ingress shall have, IPv4 first; nil:
	// what it has, without Drop.
	Addrs []netip.Addr
	Drop  []netip.Addr
}

// Release is an address that nobody holds any more.
type Release struct {
	CIDR netip.Prefix
	ipam.Release
	// Of is the Service that had it, by name: it may be there no more, or its
	// status be among Statuses.
	Of model.Ref
}

type decider struct {
	*ledger
	requested []*wish // older ones first
	holders   map[netip.Addr][]*wish
	writes    map[netip.Prefix][]alloc.Grant
	out       Plan
}

// Decide makes the plan.
func Decide(in Input) Plan {
	if in.Locked {
		return Plan{}
	}
	d := &decider{ledger: newLedger(&in), holders: map[netip.Addr][]*wish{}, writes: map[netip.Prefix][]alloc.Grant{}}
	d.out.Served = map[model.Ref]bool{}
	d.readServices()
	for _, round := range []func(*wish, model.Family){d.keep, d.rejoin, d.adopt, d.exactly, d.any, d.fallBack} {
		for _, w := range d.requested {
			for _, f := range w.families() {
				if !w.has[f].IsValid() {
					round(w, f)
				}
			}
		}
	}
	d.alone()
	d.statuses()
	d.releases()
	d.drops()
	d.out.Claims = d.claims
	for _, cidr := range slices.SortedFunc(maps.Keys(d.writes), netip.Prefix.Compare) {
		d.out.Writes = append(d.out.Writes, Write{cidr, d.writes[cidr]})
	}
	slices.SortStableFunc(d.out.Problems, func(a, b model.Problem) int {
		return cmp.Or(cmp.Compare(a.Object.Namespace, b.Object.Namespace), cmp.Compare(a.Object.Name, b.Object.Name))
	})
	return d.out
}

// readServices parts those that are served here from the others.
func (d *decider) readServices() {
	for i := range d.in.Services {
		s := &d.in.Services[i]
		if !ours(s, d.in.OnlyRequested) {
			d.out.Problems = append(d.out.Problems, misplaced(s, notOurs(s))...)
			for _, a := range s.Addrs {
				if !d.gaveTo(a, s) {
					d.others[a] = true
				}
			}
			continue
		}
		w, problems := read(s)
		if !w.named && !d.anyPool() && len(d.mine[w.handle]) == 0 {
			d.out.Problems = append(d.out.Problems, misplaced(s, "no IPPool has allowedUses LoadBalancer")...)
			continue // nobody meant Services to get addresses from here
		}
		if !w.named && len(d.mine[w.handle]) == 0 && d.elsewhere(s) {
			d.tell(w, "status.loadBalancer", reasonElsewhere,
				"what it has is of no IPPool for Services and is left to whoever gave it; name a pool, an address or loadBalancerClass %s to have one from here", Class)
			continue
		}
		d.requested, d.out.Served[s.Ref()] = append(d.requested, w), true
		d.out.Problems = append(d.out.Problems, problems...)
	}
	slices.SortStableFunc(d.requested, func(a, b *wish) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

// elsewhere reports whether a Service has its address from somebody else, by its
// status: one of no pool, or the name of a host. It is noted as theirs.
func (d *decider) elsewhere(s *model.BalancedService) bool {
	if len(s.Addrs) == 0 && !s.Others || slices.ContainsFunc(s.Addrs, func(a netip.Addr) bool { return d.poolOf(a) != nil }) {
		return false
	}
	for _, a := range s.Addrs {
		d.others[a] = true
	}
	return true
}

// anyPool reports whether a pool is meant for Services at all.
func (d *decider) anyPool() bool {
	return slices.ContainsFunc(d.in.Pools, func(p model.Pool) bool { return slices.Contains(p.AllowedUses, model.UseLoadBalancer) })
}

// gaveTo reports whether a block gives an address to a Service, or to one that it
// shared it with.
func (d *decider) gaveTo(a netip.Addr, s *model.BalancedService) bool {
	has, ok := d.slots[a]
	return ok && (has.Handle == Handle(s) || has.Owner[ownerNamespace] == s.Namespace && has.Owner[ownerKey] != "" && has.Owner[ownerKey] == s.Annotations[AnnotationShare])
}

func (d *decider) tell(w *wish, field, reason, format string, args ...any) {
	d.out.Problems = append(d.out.Problems, model.Problem{Object: w.Ref(), Field: field, Reason: reason, Message: fmt.Sprintf(format, args...)})
}

// hold notes that w has an address from now on.
func (d *decider) hold(w *wish, a netip.Addr) {
	w.has[model.FamilyOf(a)] = a
	d.holders[a] = append(d.holders[a], w)
}

// grant writes an address to w.
func (d *decider) grant(w *wish, cidr netip.Prefix, a netip.Addr, from string) {
	d.hold(w, a)
	d.writes[cidr] = append(d.writes[cidr], alloc.Grant{Addr: a, To: attribute(w, d.in.Now), From: from})
}

// poolOf is the pool of an address that is meant for Services; nil: none.
func (d *decider) poolOf(a netip.Addr) *model.Pool {
	for i := range d.in.Pools {
		if p := &d.in.Pools[i]; p.CIDR.Contains(a) && slices.Contains(p.AllowedUses, model.UseLoadBalancer) {
			return p
		}
	}
	return nil
}

// fits reports whether an address is one that w asks for. Without a wish it is one
// of any pool, and also of none any more, but of no pool that is for wishes alone.
func (d *decider) fits(w *wish, f model.Family, a netip.Addr) bool {
	p := d.poolOf(a)
	switch {
	case w.unread:
		return true
	case w.exact[f].addr.IsValid():
		return w.exact[f].addr == a
	case len(w.pools[f].names) > 0:
		return p != nil && slices.ContainsFunc(w.pools[f].names, func(name string) bool { return name == p.Name || name == p.CIDR.String() })
	}
	return p == nil || !p.Manual
}

// keep: what is in a block under its handle, and fits.
func (d *decider) keep(w *wish, f model.Family) {
	d.keepIf(w, f, func(a netip.Addr) bool { return d.fits(w, f, a) })
}

// fallBack: what it has, though it asks for something else that it cannot have.
func (d *decider) fallBack(w *wish, f model.Family) {
	d.keepIf(w, f, func(a netip.Addr) bool { ok, _ := d.mayShare(w, a); return ok })
}

func (d *decider) keepIf(w *wish, f model.Family, good func(netip.Addr) bool) {
	var best netip.Addr
	for _, a := range d.mine[w.handle] {
		if f.Has(a) && good(a) && (!best.IsValid() || slices.Contains(w.Addrs, a)) {
			best = a
		}
	}
	if !best.IsValid() {
		return
	}
	have := d.slots[best]
	if have.Owner[ownerKey] != w.key {
		d.grant(w, have.cidr, best, w.handle) // for the one who may take it over
	} else {
		d.hold(w, best)
	}
	if p := d.poolOf(best); p == nil || p.Deleting {
		d.tell(w, "status.loadBalancer", reasonPoolGone,
			"%s is of no IPPool for Services any more, or of one that is being deleted; the Service keeps it until it is deleted or asks for another", best)
	}
}

// rejoin: what it shared by its status, and still may, or now takes over.
func (d *decider) rejoin(w *wish, f model.Family) {
	for _, a := range w.Addrs {
		have, given := d.slots[a]
		if !given || !f.Has(a) || w.key == "" || !d.fits(w, f, a) {
			continue
		}
		if ok, _ := d.mayShare(w, a); len(d.holders[a]) > 0 && ok {
			d.hold(w, a)
			return
		}
		if len(d.holders[a]) == 0 && w.inherits(have.Attribute) {
			d.grant(w, have.cidr, a, have.Handle)
			return
		}
	}
}

// adopt: what its status says, by another allocator or before blocks were lost, and
// no block gives to anybody.
func (d *decider) adopt(w *wish, f model.Family) {
	for _, a := range w.Addrs {
		p := d.poolOf(a)
		if !f.Has(a) || p == nil || p.Deleting || !d.fits(w, f, a) || d.inUse(*p, a) {
			continue
		}
		if _, given := d.slots[a]; given {
			continue
		}
		if ok, _ := d.mayShare(w, a); len(d.holders[a]) > 0 {
			if ok {
				d.hold(w, a)
				return
			}
			continue
		}
		if cidr, ok := d.take(*p, a, attribute(w, d.in.Now)); ok {
			d.grant(w, cidr, a, "")
			return
		}
	}
}

// exactly: an address that is asked for by name.
func (d *decider) exactly(w *wish, f model.Family) {
	ask := w.exact[f]
	a := ask.addr
	if !a.IsValid() || w.unread {
		return
	}
	if ok, why := d.mayShare(w, a); !ok {
		d.tell(w, ask.field, string(ipam.CodeTaken), "%s is taken: %s", a, why)
		return
	}
	if list := w.pools[f]; len(list.names) > 0 && !d.inPools(a, list.names) {
		d.tell(w, list.field, reasonConflict, "%s, which %s asks for, is in none of the pools %q", a, ask.field, list.names)
		return
	}
	if len(d.holders[a]) > 0 {
		d.hold(w, a)
		return
	}
	have, given := d.slots[a]
	switch {
	case given && w.inherits(have.Attribute):
		d.grant(w, have.cidr, a, have.Handle)
	case given:
		d.tell(w, ask.field, string(ipam.CodeTaken), "%s is taken: it was Service %s/%s's", a, have.Owner[ownerNamespace], have.Owner[ownerService])
	default:
		d.takeExactly(w, ask)
	}
}

func (d *decider) inPools(a netip.Addr, names []string) bool {
	p := d.poolOf(a)
	return p != nil && (slices.Contains(names, p.Name) || slices.Contains(names, p.CIDR.String()))
}

// takeExactly takes an address that no Service of ours has.
func (d *decider) takeExactly(w *wish, ask requested) {
	p := d.poolOf(ask.addr)
	if p == nil {
		d.tell(w, ask.field, string(ipam.CodeOutsidePools), "%s is in no IPPool whose allowedUses are [LoadBalancer]", ask.addr)
		return
	}
	// By name, as a strict pool holds those to its selectors who name it.
	if _, err := alloc.SelectPools(d.in.Pools, model.UseLoadBalancer, model.FamilyOf(ask.addr), d.in.Namespaces[w.Namespace], []string{p.Name}); err != nil {
		d.refused(w, ask.field, err)
		return
	}
	if d.inUse(*p, ask.addr) {
		d.tell(w, ask.field, string(ipam.CodeTaken), "%s is taken: by a node, a router, or a Service that is served by somebody else", ask.addr)
		return
	}
	cidr, ok := d.take(*p, ask.addr, attribute(w, d.in.Now))
	if !ok {
		d.tell(w, ask.field, string(ipam.CodeForeignBlock), "%s is of block %s, which is somebody else's", ask.addr, cidr)
		return
	}
	d.grant(w, cidr, ask.addr, "")
}

// refused tells an error of ipam as the Service's.
func (d *decider) refused(w *wish, field string, err error) {
	var e *ipam.Error
	if !errors.As(err, &e) {
		d.tell(w, field, reasonInvalid, "%v", err)
		return
	}
	p := e.Problem()
	text := p.Message
	if e.Code != ipam.CodeNoPool {
		text = e.Object.String() + ": " + text
	}
	d.tell(w, field, p.Reason, "%s", text)
}

// any: an address that is shared already, or a free one, of the pools that serve it.
func (d *decider) any(w *wish, f model.Family) {
	if w.exact[f].addr.IsValid() || w.unread {
		return
	}
	list := w.pools[f]
	pools, err := alloc.SelectPools(d.in.Pools, model.UseLoadBalancer, f, d.in.Namespaces[w.Namespace], list.names)
	field := cmp.Or(list.field, "spec.ipFamilies")
	if err != nil {
		if !w.Optional || ipam.CodeOf(err) != ipam.CodeNoPool {
			d.refused(w, field, err)
		}
		return
	}
	var names []string
	var within []netip.Prefix
	for _, p := range pools {
		names, within = append(names, p.Name), append(within, p.CIDR)
	}
	if a, ok := d.shareable(w, f, within); ok {
		d.hold(w, a)
		return
	}
	for _, p := range pools {
		if a, cidr, ok := d.next(p, attribute(w, d.in.Now)); ok {
			d.grant(w, cidr, a, "")
			return
		}
	}
	d.tell(w, field, string(ipam.CodePoolExhausted),
		"no address is left for Services in IPPool %q: each is a Service's, kept back by an IPReservation, in use by something else, or of a block that is not the load balancer's", names)
}

// statuses compares what each Service has with what its status says.
func (d *decider) statuses() {
	served := map[*model.BalancedService]bool{}
	for _, w := range d.requested {
		served[w.BalancedService] = true
		var want []netip.Addr
		for _, f := range model.Families {
			if a := w.has[f]; a.IsValid() {
				want = append(want, a)
			}
		}
		if len(want) == 0 {
			d.strip(w.BalancedService, func(a netip.Addr) bool { return d.poolOf(a) != nil })
		} else if w.Others || !slices.Equal(want, w.Addrs) {
			d.out.Statuses = append(d.out.Statuses, Status{Service: w.BalancedService, Addrs: want})
		}
	}
	for i := range d.in.Services {
		if s := &d.in.Services[i]; !served[s] {
			d.strip(s, func(a netip.Addr) bool { return d.gaveTo(a, s) })
		}
	}
}

// strip takes addresses out of the status of a Service that has none of ours.
func (d *decider) strip(s *model.BalancedService, such func(netip.Addr) bool) {
	var drop []netip.Addr
	for _, a := range s.Addrs {
		if such(a) {
			drop = append(drop, a)
		}
	}
	if len(drop) > 0 {
		d.out.Statuses = append(d.out.Statuses, Status{Service: s, Drop: drop})
	}
}

// releases are the addresses of Services that nobody holds any more. What somebody
// else wrote into our blocks names no Service, and stays.
func (d *decider) releases() {
	for _, cidr := range d.order {
		for a := range d.blocks[cidr].Allocations() {
			was, given := d.slots[a.Addr]
			if !given || len(d.holders[a.Addr]) > 0 || was.Owner[ownerService] == "" || was.Owner[ownerNamespace] == "" {
				continue
			}
			d.out.Releases = append(d.out.Releases, Release{
				CIDR: cidr, Release: ipam.Release{Addr: a.Addr, Handle: was.Handle, Sequence: &was.Sequence},
				Of: model.Ref{Kind: "Service", Namespace: was.Owner[ownerNamespace], Name: was.Owner[ownerService]},
			})
		}
	}
}

// drops are the empty blocks of pools that are gone, being deleted, or not for
// Services any more.
func (d *decider) drops() {
	for _, b := range d.in.Blocks {
		p := d.poolOf(b.CIDR().Addr())
		if d.blocks[b.CIDR()].Empty() && (p == nil || p.Deleting) {
			d.out.Drops = append(d.out.Drops, b.CIDR())
		}
	}
}
