package kube

import (
	"math"
	"net/netip"

	v3 "github.com/muslin-net/muslin/pkg/kube/v3"
	"github.com/muslin-net/muslin/pkg/model"
	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
)

func readBGPConfiguration(obj any) reading[model.BGPConfiguration] {
	o := obj.(*object)
	r := newReader("BGPConfiguration", &o.ObjectMeta)
	var spec v3.BGPConfigurationSpec
	r.spec(o, &spec)
	out := model.BGPConfiguration{
		Name: o.Name, MeshEnabled: spec.NodeToNodeMeshEnabled, ASN: model.ASN(deref(spec.ASNumber)),
		ListenPort: int(spec.ListenPort), LogSeverity: spec.LogSeverityScreen,
		MeshPassword:    passwordRef(spec.NodeMeshPassword),
		BindNodeIP:      oneOf(r, "spec.bindMode", deref(spec.BindMode), "None", "NodeIP") == "NodeIP",
		NoLBAggregation: oneOf(r, "spec.serviceLoadBalancerAggregation", deref(spec.ServiceLoadBalancerAggregation), "Enabled", "Disabled") == "Disabled",
		Annotations:     ours(o.Annotations),
	}
	r.detection(out.Annotations)
	if d := spec.NodeMeshMaxRestartTime; d != nil {
		out.MeshMaxRestartTime = d.Duration
	}
	for _, b := range spec.ServiceClusterIPs {
		out.ServiceClusterIPs = r.appendPrefix(out.ServiceClusterIPs, "spec.serviceClusterIPs", b.CIDR)
	}
	for _, b := range spec.ServiceExternalIPs {
		out.ServiceExternalIPs = r.appendPrefix(out.ServiceExternalIPs, "spec.serviceExternalIPs", b.CIDR)
	}
	for _, b := range spec.ServiceLoadBalancerIPs {
		out.ServiceLoadBalancers = r.appendPrefix(out.ServiceLoadBalancers, "spec.serviceLoadBalancerIPs", b.CIDR)
	}
	if len(spec.Communities) > 0 {
		out.Communities = make(map[string]string, len(spec.Communities))
	}
	for _, c := range spec.Communities {
		out.Communities[c.Name] = c.Value
	}
	for _, p := range spec.PrefixAdvertisements {
		out.PrefixAdvertisements = append(out.PrefixAdvertisements, model.PrefixAdvertisement{
			CIDR: r.prefix("spec.prefixAdvertisements.cidr", p.CIDR), Communities: p.Communities,
		})
	}
	out.RoutePriority = r.routePriority("spec.ipv4NormalRoutePriority", spec.IPv4NormalRoutePriority)
	out.RoutePriorityV6 = r.routePriority("spec.ipv6NormalRoutePriority", spec.IPv6NormalRoutePriority)
	out.LocalWorkloadPeerIPv4 = r.addr("spec.localWorkloadPeeringIPV4", spec.LocalWorkloadPeeringIPV4)
	out.LocalWorkloadPeerIPv6 = r.addr("spec.localWorkloadPeeringIPV6", spec.LocalWorkloadPeeringIPV6)
	return finish(r, out)
}

// routePriority is a metric that leaves room for a LOCAL_PREF; 0 when it is not
// set.
func (r *reader) routePriority(field string, p *int) int {
	if p != nil && (*p < 1 || *p >= math.MaxInt32) {
		r.fail(field, "%d is not within 1 and %d", *p, math.MaxInt32-1)
		return 0
	}
	return deref(p)
}

// appendPrefix leaves out a CIDR that does not parse; the others stay in force.
func (r *reader) appendPrefix(list []netip.Prefix, field, text string) []netip.Prefix {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		r.warn(field, "%q is not a CIDR, as in 10.96.0.0/12; it is left out", text)
		return list
	}
	return append(list, p.Masked())
}

func passwordRef(p *calico.BGPPassword) *model.PasswordRef {
	if p == nil || p.SecretKeyRef == nil {
		return nil
	}
	return &model.PasswordRef{SecretName: p.SecretKeyRef.Name, Key: p.SecretKeyRef.Key}
}
