package netpol

import (
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ServedBy gives the service ("namespace/name") that a slice is of, and what
// serves it, ready or not.
func ServedBy(o *discovery.EndpointSlice) (service string, by []model.ServiceEndpoint) {
	for _, e := range o.Endpoints {
		for _, text := range e.Addresses {
			a, err := netip.ParseAddr(text)
			if err != nil {
				continue // a host name (addressType FQDN)
			}
			by = append(by, model.ServiceEndpoint{Addr: a.Unmap()})
			for _, p := range o.Ports {
				if number, ok := Protocol(p.Protocol); ok && p.Port != nil && *p.Port > 0 && *p.Port <= 65535 {
					by = append(by, model.ServiceEndpoint{Addr: a.Unmap(), Protocol: number, Port: uint16(*p.Port)})
				}
			}
		}
	}
	slices.SortFunc(by, model.ServiceEndpoint.Compare)
	return o.Namespace + "/" + o.Labels[discovery.LabelServiceName], slices.Compact(by)
}

// StripSlice takes from a slice in place what ServedBy does not ask for.
func StripSlice(o *discovery.EndpointSlice) {
	o.ObjectMeta = metav1.ObjectMeta{
		Namespace: o.Namespace, Name: o.Name, ResourceVersion: o.ResourceVersion,
		Labels: map[string]string{discovery.LabelServiceName: o.Labels[discovery.LabelServiceName]},
	}
	for i := range o.Endpoints {
		o.Endpoints[i] = discovery.Endpoint{Addresses: o.Endpoints[i].Addresses}
	}
}

// Services gives the services that the rules of a policy name.
func Services(p *model.Policy) []string {
	var out []string
	for _, rules := range [][]model.PolicyRule{p.IngressRules, p.EgressRules} {
		for i := range rules {
			for _, s := range []string{rules[i].Source.Service, rules[i].Destination.Service} {
				if s != "" && !rules[i].Unreadable {
					out = append(out, s)
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
