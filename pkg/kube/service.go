package kube

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
	corev1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
)

// services are the Services of the cluster and where their endpoints are,
// watched only while a BGPConfiguration asks for services to be announced. Its
// fields are guarded by the cluster's mu.
type services struct {
	*demand
	table  *table[model.Service]
	slices *table[sliceReadiness]
	list   []model.Service // nil: has to be built
}

// sliceReadiness is all that is kept of an EndpointSlice, which has endpoints of one
// family.
type sliceReadiness struct {
	of        serviceFamily
	endpoints model.Endpoints
}

type serviceFamily struct {
	service string // namespace/name
	family  discovery.AddressType
}

func (s *services) init(c *Cluster, node model.NodeName) {
	s.demand = newDemand(c, c.announcesServices)
	var a, b source
	s.table, a = newTable(c, feed{client: c.core, resource: "services", expect: &corev1.Service{}}, stripService, readService)
	s.slices, b = newTable(c, feed{
		client: c.discovery, resource: "endpointslices", expect: &discovery.EndpointSlice{},
		labels: "!service.kubernetes.io/headless", // as kube-proxy: headless services have no address
	}, stripSlice, readSlice(node))
	s.sources = []source{a, b}
	note := func() { s.list = nil; c.noteChange() }
	s.table.note, s.slices.note = note, note
	s.clear = func() {
		s.list = nil
		s.table.clear()
		s.slices.clear()
	}
}

// announcesServices reports whether a BGPConfiguration has service ranges. The
// caller holds mu.
func (c *Cluster) announcesServices() bool {
	r := c.bgp.rows["default"]
	return len(r.value.ServiceClusterIPs)+len(r.value.ServiceExternalIPs)+len(r.value.ServiceLoadBalancers) > 0
}

// all gives the services with the readiness of their endpoints, sorted; nil
// until Services and EndpointSlices are both known: a service without its
// endpoints would look as if nobody served it. The caller holds mu.
func (s *services) all() []model.Service {
	if !s.known() {
		return nil
	}
	if s.list != nil {
		return s.list
	}
	served := map[serviceFamily]model.Endpoints{}
	for _, r := range s.slices.rows {
		served[r.value.of] = either(served[r.value.of], r.value.endpoints)
	}
	s.list = slices.Clone(s.table.values())
	for i := range s.list {
		v := &s.list[i]
		key := v.Namespace + "/" + v.Name
		v.IPv4, v.IPv6 = served[serviceFamily{key, discovery.AddressTypeIPv4}], served[serviceFamily{key, discovery.AddressTypeIPv6}]
	}
	return s.list
}

// either joins what two slices say.
func either(a, b model.Endpoints) model.Endpoints {
	return model.Endpoints{
		Here: a.Here || b.Here, Anywhere: a.Anywhere || b.Anywhere,
		LastHere: a.LastHere || b.LastHere, LastAnywhere: a.LastAnywhere || b.LastAnywhere,
	}
}

// readService translates a Service. One without addresses that BGP could
// announce (headless, ExternalName) is not good: it counts as absent.
func readService(obj any) reading[model.Service] {
	o := obj.(*corev1.Service)
	out := model.Service{
		Namespace: o.Namespace, Name: o.Name, Type: string(o.Spec.Type), Annotations: ours(o.Annotations), Labels: serviceLabels(o),
		LocalTraffic:  o.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
		InternalLocal: o.Spec.InternalTrafficPolicy != nil && *o.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal,
	}
	clusterIPs := o.Spec.ClusterIPs
	if len(clusterIPs) == 0 {
		clusterIPs = []string{o.Spec.ClusterIP}
	}
	out.ClusterIPs = addresses(clusterIPs)
	out.ExternalIPs = addresses(o.Spec.ExternalIPs)
	for _, ingress := range o.Status.LoadBalancer.Ingress {
		out.LoadBalancerIPs = append(out.LoadBalancerIPs, addresses([]string{ingress.IP})...)
	}
	return reading[model.Service]{value: out, ok: o.Spec.Type != corev1.ServiceTypeExternalName && len(out.ClusterIPs) > 0}
}

// serviceLabels are what a selector of Services sees.
func serviceLabels(o *corev1.Service) map[string]string {
	out := map[string]string{}
	maps.Copy(out, o.Labels)
	out[model.LabelNamespace], out[model.LabelOwnName] = o.Namespace, o.Name
	return shared(out)
}

// addresses reads those texts that are addresses; "None" and host names are
// not.
func addresses(texts []string) []netip.Addr {
	var out []netip.Addr
	for _, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// readSlice makes a translation for the agent of a node.
func readSlice(node model.NodeName) func(any) reading[sliceReadiness] {
	return func(obj any) reading[sliceReadiness] {
		o := obj.(*discovery.EndpointSlice)
		out := sliceReadiness{of: serviceFamily{o.Namespace + "/" + o.Labels[discovery.LabelServiceName], o.AddressType}}
		for _, e := range o.Endpoints {
			here := e.NodeName != nil && *e.NodeName == string(node)
			c := e.Conditions
			switch {
			case c.Ready == nil || *c.Ready: // unset means ready
				out.endpoints = either(out.endpoints, model.Endpoints{Here: here, Anywhere: true})
			case deref(c.Terminating) && deref(c.Serving):
				out.endpoints = either(out.endpoints, model.Endpoints{LastHere: here, LastAnywhere: true})
			}
		}
		return reading[sliceReadiness]{value: out, ok: true}
	}
}

func stripService(obj any) (any, error) {
	if s, ok := obj.(*corev1.Service); ok {
		s.ManagedFields, s.OwnerReferences = nil, nil
		s.Annotations = ours(s.Annotations)
		s.Spec.Ports, s.Spec.Selector = nil, nil
	}
	return obj, nil
}

func stripSlice(obj any) (any, error) {
	if s, ok := obj.(*discovery.EndpointSlice); ok {
		s.ManagedFields, s.OwnerReferences, s.Annotations, s.Ports = nil, nil, nil, nil
		for i := range s.Endpoints {
			e := &s.Endpoints[i]
			*e = discovery.Endpoint{Conditions: e.Conditions, NodeName: e.NodeName}
		}
	}
	return obj, nil
}
