package kube

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/muslin-net/muslin/pkg/kube/netpol"
	"github.com/muslin-net/muslin/pkg/model"
	corev1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	networking "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/tools/cache"
)

// policies are the network policies of the cluster, and the pods and service
// accounts they speak of, which are watched only while a policy does. Nothing else
// waits for them. Its fields are guarded by the cluster's mu.
type policies struct {
	of []*table[knownPolicy] // one of each of kindsOfPolicies
	// parts are those of Kubernetes' and Calico's NetworkPolicies, of the namespaces alone that
	// have pods of the node self; nil without a node.
	parts     []*partial[knownPolicy]
	self      model.NodeName
	requested map[string]bool // more namespaces, see WantPolicies
	tiers     *table[model.Tier]
	sets      []*table[model.NetworkSet] // NetworkSets, GlobalNetworkSets
	hosts     *table[model.HostEndpoint]
	pods      *table[*model.PolicyPod]
	accounts  *table[map[string]string]
	slices    *table[served]
	leases    leases                      // of pods of all nodes; not with a relay of them
	staged    map[string]*table[struct{}] // by kind; only without peers: nothing enforces them

	always      []source // run whether or not there is a policy
	on          bool     // Options.Policy
	all         bool     // Options.PolicyAll
	needCluster *demand
	needPods    *demand // nil without peers
	needAccount *demand
	needSlices  *demand
	view        *model.PolicyView                     // nil: has to be built
	revision    uint64                                // of all in it but pods
	rest        *model.PolicyView                     // that revision of it; nil: has to be built
	listed      chan struct{}                         // closed, and made anew, once a namespace's policies are there
	labels      derived[map[string]map[string]string] // of namespaces
	list        model.Sorted[*model.PolicyPod]        // the pods, as the last view had them
	kept        model.Sorted[*model.Policy]           // the policies, as the last one had them
	changed     chan struct{}
	announced   func() // of every change, beside changed; nil: nobody
}

// knownPolicy is a policy, whether it asks for labels of service accounts and for
// nodes, and the services that it names.
type knownPolicy struct {
	*model.Policy
	accounts, nodes bool
	services        []string
}

// served is what an EndpointSlice says.
type served struct {
	service string
	by      []model.ServiceEndpoint
}

var kindsOfPolicies = [...]string{model.KindKubernetesPolicy, model.KindPolicy, model.KindGlobalPolicy, model.KindClusterPolicy}

func (p *policies) init(c *Cluster, o Options) {
	p.on, p.self, p.changed, p.listed = true, o.Node, make(chan struct{}, 1), make(chan struct{})
	p.of = []*table[knownPolicy]{
		p.namespaced(c, feed{client: c.networking, resource: "networkpolicies", expect: &networking.NetworkPolicy{}}, stripNetworkPolicy, readNetworkPolicy),
		p.namespaced(c, c.kind(model.KindPolicy), stripObject, readCalicoPolicy(model.KindPolicy)),
		policyTable(c, c.kind(model.KindGlobalPolicy), stripObject, readCalicoPolicy(model.KindGlobalPolicy)),
		p.clusterTable(c),
	}
	for _, t := range p.of {
		t.touched = map[string]bool{}
	}
	p.tiers = policyTable(c, c.kind("Tier"), stripObject, readTier)
	for _, kind := range []string{"NetworkSet", "GlobalNetworkSet"} {
		p.sets = append(p.sets, policyTable(c, c.kind(kind), stripObject, readNetworkSet(kind)))
	}
	p.hosts = policyTable(c, c.kind(model.KindHostEndpoint), stripObject, readHostEndpoint)
	c.aside = append(c.aside, p.always...)
	if peers := o.Node != "" || o.PolicyPeers; !peers {
		p.announced = c.noteChange // there is no more to a policy than its object
		for _, t := range p.of {
			t.read = withoutRules(t.read)
		}
		p.staged = map[string]*table[struct{}]{}
		for _, kind := range netpol.StagedKinds() {
			t, s := optionalTable(c, c.kind(kind), stripObject, readStaged(kind))
			p.staged[kind], c.aside = t, append(c.aside, s)
		}
		if o.PolicyRelay {
			p.initPods(c, feed{client: c.core, resource: "pods", expect: &corev1.Pod{}})
			p.leases.init(c, "", p.pods)
			for _, d := range []*demand{p.needPods, p.needAccount, p.leases.need} {
				d.needed = func() bool { return true }
			}
			namespaces := c.namespaces.note
			c.namespaces.note = func() { p.noteRest(); namespaces() }
		}
		return
	}
	pods := feed{client: c.core, resource: "pods", expect: &corev1.Pod{}}
	if o.PolicyOwnPods {
		pods.fields = fields.OneTermEqualSelector("spec.nodeName", string(o.Node)).String()
	}
	p.initPods(c, pods)
	if o.Node != "" && !o.PolicyOwnPods {
		p.leases.init(c, o.Node, p.pods)
	}
	p.slices, p.needSlices = demandTable(c, feed{client: c.discovery, resource: "endpointslices", expect: &discovery.EndpointSlice{}}, stripServed, readServed,
		func(k knownPolicy) bool { return len(k.services) > 0 })
	p.slices.note = p.noteSlices
	if o.Node != "" {
		own := c.pods.note
		c.pods.note = func() { p.wantOwn(c); own() }
	}
	namespaces, nodes := c.namespaces.note, c.nodes.note
	c.namespaces.note = func() { p.note(); namespaces() }
	c.nodes.note = func() { p.noteNodes(c); nodes() }
	felix := c.felix.note
	c.felix.note = func() { p.noteRest(); felix() }
}

// initPods makes the tables of pods and service accounts, which are filled while a policy
// asks for them.
func (p *policies) initPods(c *Cluster, pods feed) {
	p.pods, p.needPods = demandTable(c, pods, stripPolicyPod, readPolicyPod(), func(knownPolicy) bool { return true })
	p.pods.note, p.pods.touched = p.notePods, map[string]bool{}
	p.accounts, p.needAccount = demandTable(c, feed{client: c.core, resource: "serviceaccounts", expect: &corev1.ServiceAccount{}}, stripAccount, readAccount,
		func(k knownPolicy) bool { return k.accounts })
}

// policyTable makes a table that is filled whether or not there is a policy.
func policyTable[T any](c *Cluster, f feed, strip cache.TransformFunc, read func(any) reading[T]) *table[T] {
	t, s := optionalTable(c, f, strip, read)
	c.policies.always = append(c.policies.always, s)
	return t
}

// namespaced is policyTable of policies that select pods of their own namespace. A node
// has those of its own pods' namespaces.
func (p *policies) namespaced(c *Cluster, f feed, strip cache.TransformFunc, read func(any) reading[knownPolicy]) *table[knownPolicy] {
	t, s := optionalTable(c, f, strip, read)
	if p.self != "" {
		part := newPartial(t, f)
		part.arrived = p.arrived
		p.parts, t.via, s.run = append(p.parts, part), part, part.run(s.run)
	}
	p.always = append(p.always, s)
	return t
}

// wantOwn has the policies be there of the namespaces of the node's pods, and of those that
// are asked for. The caller holds mu.
func (p *policies) wantOwn(c *Cluster) {
	namespaces := map[string]bool{}
	maps.Copy(namespaces, p.requested)
	for _, r := range c.pods.rows {
		if !r.value.HostNetwork {
			namespaces[r.value.Namespace] = true
		}
	}
	for _, part := range p.parts {
		part.want(namespaces)
		if c.pods.synced {
			part.start()
		}
	}
}

// WantPolicies has the policies of these namespaces be there, beside those of the node's
// pods: of endpoints whose pods the server has on another node, or no longer.
func (c *Cluster) WantPolicies(namespaces map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := &c.policies; p.on && !maps.Equal(p.requested, namespaces) {
		p.requested = namespaces
		p.wantOwn(c)
	}
}

// AwaitPolicies waits until the policies of the namespace of a pod of the node are there,
// as long as ctx lasts.
func (c *Cluster) AwaitPolicies(ctx context.Context, pod Pod) error {
	for {
		c.mu.Lock()
		there, changed := c.policies.there(pod.Namespace), c.policies.listed
		c.mu.Unlock()
		if there || model.NodeName(pod.Node) != c.node {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("the network policies of namespace %s are not known yet: %w", pod.Namespace, ctx.Err())
		}
	}
}

// there reports whether all policies of a namespace are. The caller holds mu.
func (p *policies) there(namespace string) bool {
	return !slices.ContainsFunc(p.parts, func(of *partial[knownPolicy]) bool { return !of.has(namespace) })
}

// arrived tells who waits for policies. The caller holds mu.
func (p *policies) arrived() {
	close(p.listed)
	p.listed = make(chan struct{})
}

// whole gives the namespaces whose policies are there, nil if all are. The caller holds mu.
func (p *policies) whole() map[string]bool {
	if p.parts == nil {
		return nil
	}
	out := map[string]bool{}
	for name := range p.parts[0].spaces {
		if p.there(name) {
			out[name] = true
		}
	}
	return out
}

// more reports whether there are policies that the tables do not have. The caller holds mu.
func (p *policies) more() bool {
	return slices.ContainsFunc(p.parts, func(of *partial[knownPolicy]) bool { return of.more() })
}

// optionalTable makes a table of a kind that has no objects where the server does
// not have it, because its CRD is not installed.
func optionalTable[T any](c *Cluster, f feed, strip cache.TransformFunc, read func(any) reading[T]) (*table[T], source) {
	p := &c.policies
	var t *table[T]
	f.absent = apierrors.IsNotFound
	f.answer = func(err error) {
		if !f.absent(err) {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if !t.synced {
			t.synced = true
			p.note()
		}
	}
	t, s := newTable(c, f, strip, read)
	t.note = p.note
	return t, s
}

// demandTable makes a table that is filled only while there is such a policy.
func demandTable[T any](c *Cluster, f feed, strip cache.TransformFunc, read func(any) reading[T], while func(knownPolicy) bool) (*table[T], *demand) {
	p := &c.policies
	t, s := newTable(c, f, strip, read)
	t.note = p.noteRest
	d := newDemand(c, func() bool { return p.ask(while) })
	d.aside, d.sources = true, []source{s}
	d.clear = func() {
		t.clear()
		t.note()
	}
	return t, d
}

// note drops the view, which may be another one now. The caller holds mu.
func (p *policies) note() {
	for _, part := range p.parts {
		part.hint() // a kind that the server does not have is not listed with all
	}
	p.needCluster.decide()
	if p.needPods != nil {
		p.needPods.decide()
		p.needAccount.decide()
	}
	for _, d := range []*demand{p.needSlices, p.leases.need} {
		if d != nil {
			d.decide()
		}
	}
	if p.announced != nil {
		p.announced()
	}
	p.noteRest()
}

// noteRest is note for what cannot change which sources are needed. The caller
// holds mu.
func (p *policies) noteRest() {
	p.rest = nil
	p.revision++
	p.notePods()
}

// noteSlices is note for EndpointSlices, most of which are of services that no
// policy names. The caller holds mu.
func (p *policies) noteSlices() {
	if p.rest != nil && !reflect.DeepEqual(p.services(), p.rest.Services) {
		p.noteRest()
	} else {
		p.notePods() // perhaps the last slice that was waited for
	}
}

// noteNodes is note for nodes, of which most of what changes is nothing to
// policies. The caller holds mu.
func (p *policies) noteNodes(c *Cluster) {
	switch {
	case !p.ask(func(k knownPolicy) bool { return k.nodes }):
	case p.rest != nil && !reflect.DeepEqual(p.nodes(c), p.rest.Nodes):
		p.noteRest()
	default:
		p.notePods() // perhaps the list that was waited for
	}
}

// nodes gives the nodes if a policy asks for them. The caller holds mu.
func (p *policies) nodes(c *Cluster) []model.PolicyNode {
	if !p.ask(func(k knownPolicy) bool { return k.nodes }) {
		return nil
	}
	var out []model.PolicyNode
	for _, n := range c.nodes.values() {
		out = append(out, model.PolicyNode{Name: n.Name, Labels: n.Labels, Addresses: slices.Concat(n.InternalIPs, n.OtherIPs)})
	}
	return out
}

// ask reports whether there is such a policy. Of those that the tables do not have nobody
// knows more than that they are policies. The caller holds mu.
func (p *policies) ask(such func(knownPolicy) bool) bool {
	if p.all || p.more() && such(knownPolicy{}) {
		return true
	}
	for _, of := range p.of {
		for _, r := range of.rows {
			if r.ok && such(r.value) {
				return true
			}
		}
	}
	return false
}

// services gives what serves the services that policies name. The caller holds mu.
func (p *policies) services() map[string][]model.ServiceEndpoint {
	out := map[string][]model.ServiceEndpoint{}
	for _, t := range p.of {
		for _, r := range t.rows {
			for _, s := range r.value.services {
				out[s] = nil
			}
		}
	}
	if len(out) == 0 && !p.all {
		return out
	}
	for _, r := range p.slices.rows {
		if list, named := out[r.value.service]; named || p.all {
			out[r.value.service] = append(list, r.value.by...)
		}
	}
	for s, list := range out {
		slices.SortFunc(list, model.ServiceEndpoint.Compare)
		out[s] = slices.Compact(list)
	}
	return out
}

// notePods is note for pods. The caller holds mu.
func (p *policies) notePods() {
	p.view = nil
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// waiting names the sources that policies ask for and that have not been listed.
// The caller holds mu.
func (p *policies) waiting(c *Cluster) []string {
	var out []string
	for _, s := range p.always {
		if !s.synced() {
			out = append(out, s.name)
		}
	}
	if !c.namespaces.synced {
		out = append(out, "namespaces")
	}
	out = append(out, p.needCluster.waiting()...)
	if p.needPods == nil {
		return out
	}
	if !c.felix.synced {
		out = append(out, "felixconfigurations")
	}
	if !c.nodes.synced && p.ask(func(k knownPolicy) bool { return k.nodes }) {
		out = append(out, "nodes")
	}
	out = slices.Concat(out, p.needPods.waiting(), p.needAccount.waiting())
	for _, d := range []*demand{p.needSlices, p.leases.need} {
		if d != nil {
			out = append(out, d.waiting()...)
		}
	}
	return out
}

// PolicyWaiting names the sources without which PolicyView is not synced, for a
// message.
func (c *Cluster) PolicyWaiting() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.policies.on {
		return nil
	}
	return c.policies.waiting(c)
}

// PolicyChanged has a value whenever PolicyView may differ from what it gave
// last.
func (c *Cluster) PolicyChanged() <-chan struct{} { return c.policies.changed }

// PolicyView gives what network policy is decided from. It is built when something
// changed and shared otherwise: nobody may change it. It is empty without
// Options.Policy.
func (c *Cluster) PolicyView() model.PolicyView {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &c.policies
	if !p.on {
		return model.PolicyView{}
	}
	if p.rest == nil {
		v := p.build(c)
		p.rest = &v
	}
	if p.view == nil {
		v := *p.rest
		v.Synced = len(p.waiting(c)) == 0
		if p.pods != nil {
			v.Pods = p.podList()
		}
		p.view = &v
	}
	return *p.view
}

// podList gives the pods in order, at the cost of those that changed since it was called.
// The caller holds mu.
func (p *policies) podList() model.Sorted[*model.PolicyPod] {
	var put, drop []*model.PolicyPod
	for key := range p.pods.touched {
		if r, there := p.pods.rows[key]; there && r.ok {
			put = append(put, p.leases.on(key, r.value))
			continue
		}
		namespace, name, _ := strings.Cut(key, "/")
		drop = append(drop, &model.PolicyPod{Namespace: namespace, Name: name})
	}
	clear(p.pods.touched)
	p.list = p.list.With(put, drop)
	return p.list
}

// policyList is podList for policies. The caller holds mu.
func (p *policies) policyList() model.Sorted[*model.Policy] {
	var put, drop []*model.Policy
	for i, t := range p.of {
		for key := range t.touched {
			if r, there := t.rows[key]; there && r.ok {
				put = append(put, r.value.Policy)
				continue
			}
			namespace, name, _ := cache.SplitMetaNamespaceKey(key) // it was made by its counterpart
			drop = append(drop, &model.Policy{Object: model.Ref{Kind: kindsOfPolicies[i], Namespace: namespace, Name: name}})
		}
		clear(t.touched)
	}
	p.kept = p.kept.With(put, drop)
	return p.kept
}

// reported gives the objects that get conditions.
func (p *policies) reported() []Reported {
	if !p.on {
		return nil
	}
	out := slices.Concat(metas(model.KindPolicy, p.of[1]), metas(model.KindGlobalPolicy, p.of[2]), metas(model.KindClusterPolicy, p.of[3]), metas("Tier", p.tiers),
		metas("NetworkSet", p.sets[0]), metas("GlobalNetworkSet", p.sets[1]), metas(model.KindHostEndpoint, p.hosts))
	for _, kind := range sortedKeys(p.staged) {
		out = append(out, metas(kind, p.staged[kind])...)
	}
	return out
}

// build puts all tables but that of pods together. The caller holds mu.
func (p *policies) build(c *Cluster) model.PolicyView {
	v := model.PolicyView{
		Revision: p.revision, Policies: p.policyList(), Of: p.whole(), More: p.more(), Tiers: p.tiers.values(), HostEndpoints: p.hosts.values(),
		Namespaces:      p.labels.at(c.namespaces.rev, func() map[string]map[string]string { return labelsOfAll(c.namespaces) }),
		ServiceAccounts: map[string]map[string]string{},
	}
	for _, t := range p.sets {
		v.NetworkSets = append(v.NetworkSets, t.values()...)
	}
	if p.slices != nil {
		v.Services, v.Nodes, v.Felix = p.services(), p.nodes(c), c.felix.values()
	}
	if p.accounts != nil {
		for name, r := range p.accounts.rows {
			v.ServiceAccounts[name] = r.value
		}
	}
	return v
}

func labelsOfAll(namespaces *table[Namespace]) map[string]map[string]string {
	out := make(map[string]map[string]string, len(namespaces.rows))
	for name, r := range namespaces.rows {
		out[name] = r.value.Labels
	}
	return out
}

func stripNetworkPolicy(obj any) (any, error) {
	if p, ok := obj.(*networking.NetworkPolicy); ok {
		p.ManagedFields, p.OwnerReferences, p.Annotations = nil, nil, nil
	}
	return obj, nil
}

func readNetworkPolicy(obj any) reading[knownPolicy] {
	value, problems, ok := netpol.Kubernetes(obj.(*networking.NetworkPolicy))
	return reading[knownPolicy]{value: knownPolicy{Policy: &value}, ok: ok, problems: problems}
}

func readCalicoPolicy(kind string) func(any) reading[knownPolicy] {
	return func(obj any) reading[knownPolicy] {
		o := obj.(*object)
		value, problems, ok := netpol.Calico(refOf(kind, o), o.Spec)
		return reading[knownPolicy]{
			value: knownPolicy{Policy: &value, accounts: asksForAccounts(o.Spec), services: netpol.Services(&value)},
			ok:    ok, problems: problems,
		}
	}
}

// withoutRules is for who enforces nothing: a cluster's policies are most of what a controller
// has of it.
func withoutRules(read func(any) reading[knownPolicy]) func(any) reading[knownPolicy] {
	return func(obj any) reading[knownPolicy] {
		r := read(obj)
		p := r.value.Policy
		r.value = knownPolicy{Policy: &model.Policy{Object: p.Object, Tier: p.Tier, Order: p.Order}}
		return r
	}
}

func readStaged(kind string) func(any) reading[struct{}] {
	return func(obj any) reading[struct{}] {
		o := obj.(*object)
		problems, ok := netpol.Staged(netpol.Object{
			TypeMeta: metav1.TypeMeta{APIVersion: GroupVersion.String(), Kind: kind}, ObjectMeta: o.ObjectMeta, Spec: o.Spec,
		})
		return reading[struct{}]{ok: ok, problems: problems}
	}
}

// asksForAccounts reports whether a spec has a field for service accounts, or
// selects by labels that pods have from them.
func asksForAccounts(spec []byte) bool {
	return bytes.Contains(spec, []byte(`"serviceAccount`)) || bytes.Contains(spec, []byte(model.LabelPrefixOfAccount))
}

func refOf(kind string, o *object) model.Ref {
	return model.Ref{Kind: kind, Namespace: o.Namespace, Name: o.Name}
}

func readTier(obj any) reading[model.Tier] {
	o := obj.(*object)
	value, problems, ok := netpol.Tier(o.Name, o.Spec)
	return reading[model.Tier]{value: value, ok: ok, problems: problems}
}

func readNetworkSet(kind string) func(any) reading[model.NetworkSet] {
	return func(obj any) reading[model.NetworkSet] {
		o := obj.(*object)
		value, problems, ok := netpol.NetworkSet(refOf(kind, o), o.Labels, o.Spec)
		return reading[model.NetworkSet]{value: value, ok: ok, problems: problems}
	}
}

func readHostEndpoint(obj any) reading[model.HostEndpoint] {
	o := obj.(*object)
	value, problems, ok := netpol.HostEndpoint(o.Name, o.Labels, o.Spec)
	return reading[model.HostEndpoint]{value: value, ok: ok, problems: problems}
}

func stripServed(obj any) (any, error) {
	if s, ok := obj.(*discovery.EndpointSlice); ok {
		netpol.StripSlice(s)
	}
	return obj, nil
}

func readServed(obj any) reading[served] {
	service, by := netpol.ServedBy(obj.(*discovery.EndpointSlice))
	return reading[served]{value: served{service, by}, ok: true}
}

func stripAccount(obj any) (any, error) {
	if a, ok := obj.(*corev1.ServiceAccount); ok {
		*a = corev1.ServiceAccount{TypeMeta: a.TypeMeta, ObjectMeta: metav1.ObjectMeta{
			Namespace: a.Namespace, Name: a.Name, ResourceVersion: a.ResourceVersion, Labels: a.Labels,
		}}
	}
	return obj, nil
}

func readAccount(obj any) reading[map[string]string] {
	return reading[map[string]string]{value: obj.(*corev1.ServiceAccount).Labels, ok: true}
}

func stripPolicyPod(obj any) (any, error) {
	if p, ok := obj.(*corev1.Pod); ok {
		netpol.StripPod(p)
	}
	return obj, nil
}

// readPolicyPod gives the function that reads pods. Those of one workload, which are most of a cluster's,
// share their labels.
func readPolicyPod() func(any) reading[*model.PolicyPod] {
	var labels alike
	return func(obj any) reading[*model.PolicyPod] {
		p := netpol.Pod(obj.(*corev1.Pod))
		p.Labels = labels.of(p.Labels)
		return reading[*model.PolicyPod]{value: p, ok: true}
	}
}

// alike has maps that are equal be the same one. What nobody uses any more it keeps for a while.
type alike struct {
	mu   sync.Mutex
	maps map[string]map[string]string
}

const mostAlike = 10_000

func (a *alike) of(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	var key strings.Builder
	for _, k := range sortedKeys(m) {
		key.WriteString(k + "\x00" + m[k] + "\x00")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if first, there := a.maps[key.String()]; there {
		return first
	}
	if len(a.maps) >= mostAlike || a.maps == nil {
		a.maps = map[string]map[string]string{}
	}
	a.maps[key.String()] = m
	return m
}
