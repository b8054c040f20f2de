package policyrelay

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/selector"
)

// Index knows the pods of the cluster and what agents need of them. A pod that changes
// costs the selectors that can match its labels if these are new, else only those that
// wait for it. It is for any number of goroutines. Its zero value is no Index: NewIndex.
type Index struct {
	mu       sync.Mutex
	synced   bool
	listed   model.Sorted[*model.PolicyPod]
	revision uint64
	spaces   map[string]map[string]string // labels of namespaces
	accounts map[string]map[string]string // of service accounts, by namespace/name

	pods      map[podKey]*entry
	claimants map[netip.Addr][]*entry
	groups    map[string]*group
	byLabel   map[label]map[*group]bool // groups by each label that they have
	needs     map[policy.Need]*need
	byPair    map[label]map[*need]bool // needs by a label that what they select has; zero: by none
	all       map[*Subscription]bool
	former    former
}

// label is a label with its value.
type label struct{ key, value string }

// entry is a pod that has an address.
type entry struct {
	member
	claims []netip.Addr
	sum    digest
	bucket int
	group  *group // nil: its namespace is not known
}

// group is pods that no need tells apart.
type group struct {
	key       string
	namespace string
	labels    map[string]string // that selectors see
	ports     []model.NamedPort
	pods      map[*entry]bool
	needs     map[*need]bool // that it meets
}

// need is what subscribers wait for.
type need struct {
	policy.Need
	sel    *selector.Selector // nil: of a port
	pair   label              // that byPair has it under
	groups map[*group]bool
	of     map[*Subscription]bool
}

// NewIndex makes an Index without pods. Nobody is answered before the first Update.
func NewIndex() *Index {
	return &Index{
		pods: map[podKey]*entry{}, claimants: map[netip.Addr][]*entry{}, groups: map[string]*group{}, byLabel: map[label]map[*group]bool{},
		needs: map[policy.Need]*need{}, byPair: map[label]map[*need]bool{}, all: map[*Subscription]bool{},
		former: newFormer(),
	}
}

// Update takes over the pods, namespaces and service accounts of a view, in work that
// follows what differs from the last one. A view that is not synced changes nothing.
func (x *Index) Update(v model.PolicyView) {
	if !v.Synced {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if v.Revision == 0 || v.Revision != x.revision {
		x.relabel(v)
	}
	x.revision = v.Revision
	for was, is := range v.Pods.Since(x.listed) {
		if was != nil && is != nil && *was == *is {
			continue
		}
		if is != nil {
			x.set(keyOf(*is), *is)
		} else {
			x.set(keyOf(*was), nil)
		}
	}
	x.listed = v.Pods
	x.former.prune()
	x.former.turn()
	if x.synced {
		return
	}
	x.synced = true
	for s := range x.all {
		s.wake()
	}
}

// relabel moves the pods of namespaces and service accounts whose labels are others.
func (x *Index) relabel(v model.PolicyView) {
	spaces, accounts := differing(x.spaces, v.Namespaces), differing(x.accounts, v.ServiceAccounts)
	x.spaces, x.accounts = v.Namespaces, v.ServiceAccounts
	if len(spaces)+len(accounts) == 0 {
		return
	}
	var moved []*entry
	for _, e := range x.pods {
		if spaces[e.Namespace] || accounts[e.Namespace+"/"+e.ServiceAccount] {
			moved = append(moved, e)
			x.announce(e)
			x.leave(e)
		}
	}
	for _, e := range moved { // once no group is left that has the old labels
		x.join(e)
		x.announce(e)
	}
}

// differing gives the keys whose labels are others.
func differing(a, b map[string]map[string]string) map[string]bool {
	out := map[string]bool{}
	for k, was := range a {
		if is, still := b[k]; !still || !maps.Equal(was, is) {
			out[k] = true
		}
	}
	for k := range b {
		if _, had := a[k]; !had {
			out[k] = true
		}
	}
	return out
}

// set makes a pod what it is now; nil: it is gone.
func (x *Index) set(k podKey, p *model.PolicyPod) {
	dirty := map[*entry]bool{}
	old := x.pods[k]
	if old != nil {
		x.announce(old)
		x.leave(old)
		x.unclaim(old, dirty)
		delete(x.pods, k)
	}
	if p != nil && !p.HostNetwork && !p.Finished && len(p.Addresses) > 0 {
		e := &entry{member: member{PolicyPod: *p}, bucket: k.bucket()}
		e.Created = time.Unix(p.Created.Unix(), 0)
		x.claim(e, dirty)
		x.pods[k] = e
		x.join(e)
	}
	for e := range dirty {
		x.contest(e)
		x.announce(e)
	}
	switch now := x.pods[k]; {
	case old == nil:
	case now != nil && now.Created.Equal(old.Created):
		x.former.lost(k, old.Addresses, now.Addresses)
	default:
		x.former.lost(k, old.Addresses, nil)
	}
}

// claim has a pod claim its addresses. It has none of them before contest; dirty are the
// pods whose addresses are to be decided.
func (x *Index) claim(e *entry, dirty map[*entry]bool) {
	for _, a := range e.Addresses {
		if a = a.Unmap().WithZone(""); !slices.Contains(e.claims, a) {
			e.claims = append(e.claims, a)
		}
	}
	e.Addresses = nil
	for _, a := range e.claims {
		for _, o := range x.claimants[a] {
			dirty[o] = true
		}
		x.claimants[a] = append(x.claimants[a], e)
	}
	dirty[e] = true
}

// unclaim is its opposite.
func (x *Index) unclaim(e *entry, dirty map[*entry]bool) {
	for _, a := range e.claims {
		x.claimants[a] = slices.DeleteFunc(x.claimants[a], func(o *entry) bool { return o == e })
		for _, o := range x.claimants[a] {
			dirty[o] = true
		}
		if len(x.claimants[a]) == 0 {
			delete(x.claimants, a)
		}
	}
}

// contest decides which of the addresses that a pod claims nobody has a better claim to.
func (x *Index) contest(e *entry) {
	was := e.Addresses
	e.Addresses, e.contests = nil, nil
	for _, a := range e.claims {
		var nodes []model.NodeName
		for _, o := range x.claimants[a] {
			if o != e && better(&o.PolicyPod, &e.PolicyPod, a) {
				nodes = append(nodes, o.Node)
			}
		}
		if nodes == nil {
			e.Addresses = append(e.Addresses, a)
			continue
		}
		slices.Sort(nodes)
		e.contests = append(e.contests, contest{a, slices.Compact(nodes)})
	}
	e.sum = sumOf(&e.member)
	x.former.lost(keyOf(&e.PolicyPod), was, e.Addresses)
}

// announce notes for all who need a pod that it is, or was, another one.
func (x *Index) announce(e *entry) {
	if e.group == nil {
		return
	}
	for n := range e.group.needs {
		for s := range n.of {
			s.note(keyOf(&e.PolicyPod))
		}
	}
}

// join puts a pod into the group of its labels, unless its namespace is not known.
func (x *Index) join(e *entry) {
	space, known := x.spaces[e.Namespace]
	if !known {
		return
	}
	key := groupKey(&e.PolicyPod)
	g := x.groups[key]
	if g == nil {
		g = &group{
			key: key, namespace: e.Namespace, ports: e.Ports, pods: map[*entry]bool{}, needs: map[*need]bool{},
			labels: policy.Labels(&e.PolicyPod, space, x.accounts[e.Namespace+"/"+e.ServiceAccount]),
		}
		x.groups[key] = g
		for k, v := range g.labels {
			add(x.byLabel, label{k, v}, g)
		}
		x.meet(g)
	}
	e.group = g
	g.pods[e] = true
}

// meet finds the needs that a new group meets, of those that it can.
func (x *Index) meet(g *group) {
	for n := range x.byPair[label{}] {
		n.consider(g)
	}
	for k, v := range g.labels {
		for n := range x.byPair[label{k, v}] {
			n.consider(g)
		}
	}
}

func (n *need) consider(g *group) {
	is := func(p model.NamedPort) bool { return p.Name == n.Port }
	if n.sel != nil && n.sel.Matches(g.labels) || n.sel == nil && slices.ContainsFunc(g.ports, is) {
		n.groups[g], g.needs[n] = true, true
	}
}

// leave takes a pod out of its group; the last one ends the group.
func (x *Index) leave(e *entry) {
	g := e.group
	if g == nil {
		return
	}
	e.group = nil
	if delete(g.pods, e); len(g.pods) > 0 {
		return
	}
	delete(x.groups, g.key)
	for k, v := range g.labels {
		remove(x.byLabel, label{k, v}, g)
	}
	for n := range g.needs {
		delete(n.groups, g)
	}
}

// want gives a need, with the groups that meet it; nil if it cannot be read.
func (x *Index) want(of policy.Need) *need {
	if n := x.needs[of]; n != nil {
		return n
	}
	n := &need{Need: of, groups: map[*group]bool{}, of: map[*Subscription]bool{}}
	if of.Port == "" {
		s, err := selector.Parse(of.Selector)
		if err != nil {
			return nil
		}
		n.sel, n.pair = s, x.rarest(s)
	}
	x.needs[of] = n
	add(x.byPair, n.pair, n)
	if n.pair != (label{}) {
		for g := range x.byLabel[n.pair] {
			n.consider(g)
		}
		return n
	}
	for _, g := range x.groups {
		n.consider(g)
	}
	return n
}

// rarest gives that label of those a selector requires which the fewest groups have.
func (x *Index) rarest(s *selector.Selector) (out label) {
	least := -1
	for k, v := range s.Required() {
		if l := (label{k, v}); least < 0 || len(x.byLabel[l]) < least && k != model.LabelOrchestrator || out.key == model.LabelOrchestrator {
			out, least = l, len(x.byLabel[l])
		}
	}
	return out
}

// release takes a subscriber from a need; without one it is forgotten.
func (x *Index) release(n *need, s *Subscription) {
	if delete(n.of, s); len(n.of) > 0 {
		return
	}
	delete(x.needs, n.Need)
	remove(x.byPair, n.pair, n)
	for g := range n.groups {
		delete(g.needs, n)
	}
}

// groupKey tells pods apart that selectors or names of ports may tell apart.
func groupKey(p *model.PolicyPod) string {
	var b strings.Builder
	b.WriteString(p.Namespace + "\x00" + p.ServiceAccount)
	for _, k := range slices.Sorted(maps.Keys(p.Labels)) {
		b.WriteString("\x00" + k + "\x00" + p.Labels[k])
	}
	for _, port := range p.Ports {
		b.WriteString("\x01" + port.Name + " " + strconv.Itoa(int(port.Protocol)) + " " + strconv.Itoa(int(port.Port)))
	}
	return b.String()
}

func add[K, V comparable](m map[K]map[V]bool, k K, v V) {
	if m[k] == nil {
		m[k] = map[V]bool{}
	}
	m[k][v] = true
}

func remove[K, V comparable](m map[K]map[V]bool, k K, v V) {
	if delete(m[k], v); len(m[k]) == 0 {
		delete(m, k)
	}
}
