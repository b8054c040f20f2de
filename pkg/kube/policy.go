package kube

import (
	"github.com/muslin-net/muslin/pkg/kube/netpol"
	"github.com/muslin-net/muslin/pkg/model"
	corev1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
)

// policies are the network policies of the cluster, and the pods they speak of,
// which are watched only while there is a policy. Nothing else waits for them.
// Its fields are guarded by the cluster's mu.
type policies struct {
	*demand
	kubernetes *table[model.Policy]
	pods       *table[model.PolicyPod]
	always     []source          // run whether or not there is a policy
	view       *model.PolicyView // nil: has to be built
	changed    chan struct{}
}

func (p *policies) init(c *Cluster) {
	p.changed = make(chan struct{}, 1)
	note := func() { p.note(c) }

	var s source
	p.kubernetes, s = newTable(c, feed{
		client: c.networking, resource: "networkpolicies", expect: &networking.NetworkPolicy{},
	}, stripNetworkPolicy, readNetworkPolicy)
	p.kubernetes.note = note
	p.always = append(p.always, s)
	c.aside = append(c.aside, p.always...)

	p.demand = newDemand(c, func() bool { return len(p.kubernetes.rows) > 0 })
	p.demand.aside = true
	p.pods, s = newTable(c, feed{client: c.core, resource: "pods", expect: &corev1.Pod{}}, stripPolicyPod, readPolicyPod)
	p.pods.note = note
	p.demand.sources = []source{s}
	p.demand.clear = func() {
		p.pods.clear()
		note()
	}
	namespaces := c.namespaces.note
	c.namespaces.note = func() { note(); namespaces() }
}

// note drops the view, which may be another one now. The caller holds mu.
func (p *policies) note(c *Cluster) {
	p.view = nil
	p.demand.decide()
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
	return append(out, p.demand.waiting()...)
}

// PolicyWaiting names the sources without which PolicyView is not synced, for a
// message.
func (c *Cluster) PolicyWaiting() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.policies.demand == nil {
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
	if p.demand == nil {
		return model.PolicyView{}
	}
	if p.view == nil {
		v := model.PolicyView{
			Synced: len(p.waiting(c)) == 0, Policies: p.kubernetes.values(), Pods: p.pods.values(),
			Namespaces: make(map[string]map[string]string, len(c.namespaces.rows)),
		}
		for name, r := range c.namespaces.rows {
			v.Namespaces[name] = r.value.Labels
		}
		p.view = &v
	}
	return *p.view
}

func stripNetworkPolicy(obj any) (any, error) {
	if p, ok := obj.(*networking.NetworkPolicy); ok {
		p.ManagedFields, p.OwnerReferences, p.Annotations = nil, nil, nil
	}
	return obj, nil
}

func readNetworkPolicy(obj any) reading[model.Policy] {
	value, problems, ok := netpol.Kubernetes(obj.(*networking.NetworkPolicy))
	return reading[model.Policy]{value: value, ok: ok, problems: problems}
}

func stripPolicyPod(obj any) (any, error) {
	if p, ok := obj.(*corev1.Pod); ok {
		netpol.StripPod(p)
	}
	return obj, nil
}

func readPolicyPod(obj any) reading[model.PolicyPod] {
	return reading[model.PolicyPod]{value: netpol.Pod(obj.(*corev1.Pod)), ok: true}
}
