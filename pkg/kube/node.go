package kube

import (
	"net/netip"
	"unique"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/nodeaddr"
	corev1 "k8s.io/api/core/v1"
)

// Node annotations of Calico; those with the node's addresses are package
// nodeaddr's.
const (
	AnnotationASNumber      = "projectcalico.org/ASNumber"
	AnnotationClusterID     = "projectcalico.org/RouteReflectorClusterID"
	AnnotationIPIPTunnel    = "projectcalico.org/IPv4IPIPTunnelAddr"
	AnnotationVXLANTunnel   = "projectcalico.org/IPv4VXLANTunnelAddr"
	AnnotationVXLANTunnelV6 = "projectcalico.org/IPv6VXLANTunnelAddr"
	AnnotationVXLANMAC      = "projectcalico.org/VXLANTunnelMACAddr"
	AnnotationVXLANMACV6    = "projectcalico.org/VXLANTunnelMACAddrV6"

	labelNoExternalLB = "node.kubernetes.io/exclude-from-external-load-balancers"
)

// stripNode drops what no translation reads: it is most of a node.
func stripNode(obj any) (any, error) {
	if n, ok := obj.(*corev1.Node); ok {
		n.ManagedFields = nil
		n.Status.Images, n.Status.VolumesInUse, n.Status.VolumesAttached = nil, nil, nil
		n.Status.Capacity, n.Status.Allocatable = nil, nil
		n.Labels, n.Annotations = shared(n.Labels), shared(ours(n.Annotations))
	}
	return obj, nil
}

// shared is a copy of m whose strings are shared with every other such copy:
// the labels of thousands of nodes are mostly the same.
func shared(m map[string]string) map[string]string {
	if m == nil {
		return nil
	}
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[unique.Make(k).Value()] = unique.Make(v).Value()
	}
	return out
}

// readNode translates a node. An annotation that cannot be read is reported and
// left out; the node itself is always usable.
func readNode(obj any) reading[model.Node] {
	n := obj.(*corev1.Node) // stripped: only annotations that mean something are left
	r := newReader("Node", &n.ObjectMeta)
	out := model.Node{
		Name: model.NodeName(n.Name), Labels: n.Labels, Annotations: n.Annotations,
		RouteReflectorClusterID: n.Annotations[AnnotationClusterID],
		VXLANMAC:                n.Annotations[AnnotationVXLANMAC],
		VXLANMACV6:              n.Annotations[AnnotationVXLANMACV6],
		Deleting:                n.DeletionTimestamp != nil,
		Unschedulable:           n.Spec.Unschedulable,
	}
	for _, a := range n.Status.Addresses {
		addr, err := netip.ParseAddr(a.Address)
		switch {
		case err != nil: // a name
		case a.Type == corev1.NodeInternalIP:
			out.InternalIPs = append(out.InternalIPs, addr.Unmap())
		default:
			out.OtherIPs = append(out.OtherIPs, addr.Unmap())
		}
	}
	out.IPv4 = r.nodeAddress(n, nodeaddr.IPv4, out.InternalIPs)
	out.IPv6 = r.nodeAddress(n, nodeaddr.IPv6, out.InternalIPs)
	r.detection(n.Annotations)
	if text := n.Annotations[AnnotationASNumber]; text != "" {
		asn, err := model.ParseASN(text)
		if err != nil {
			r.warn(annotationField(AnnotationASNumber), "%v", err)
		}
		out.ASN = asn
	}
	out.IPIPTunnel = r.tunnel(n, AnnotationIPIPTunnel)
	out.VXLANTunnel = r.tunnel(n, AnnotationVXLANTunnel)
	out.VXLANTunnelV6 = r.tunnel(n, AnnotationVXLANTunnelV6)
	_, out.ExcludeFromExternalLB = n.Labels[labelNoExternalLB]
	cidrs := n.Spec.PodCIDRs
	if len(cidrs) == 0 && n.Spec.PodCIDR != "" {
		cidrs = []string{n.Spec.PodCIDR}
	}
	for _, c := range cidrs {
		if p, err := netip.ParsePrefix(c); err == nil {
			out.PodCIDRs = append(out.PodCIDRs, p.Masked())
		}
	}
	return reading[model.Node]{value: out, ok: true, problems: r.problems}
}

// nodeAddress is the annotation when it holds an address of the family, else an
// InternalIP.
func (r *reader) nodeAddress(n *corev1.Node, f nodeaddr.Family, internal []netip.Addr) netip.Prefix {
	text := n.Annotations[f.Address]
	var annotated netip.Prefix
	if text != "" {
		p, err := parseAddrOrPrefix(text)
		if err == nil && f.Has(p.Addr()) {
			annotated = p
		} else {
			r.warn(annotationField(f.Address), "%q is not an address with a prefix length, as in 192.0.2.1/24; the node's InternalIP is used", text)
		}
	}
	return nodeaddr.Known(f, annotated, text, n.Annotations[f.Mark], internal)
}

// detection reports methods of finding a node's address that cannot be read.
func (r *reader) detection(annotations map[string]string) {
	for _, f := range nodeaddr.Families {
		if _, err := nodeaddr.ParseMethod(annotations[f.Method]); err != nil {
			r.warn(annotationField(f.Method), "%v; nodes keep the address that they have", err)
		}
	}
}

func (r *reader) tunnel(n *corev1.Node, annotation string) netip.Addr {
	text := n.Annotations[annotation]
	if text == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		r.warn(annotationField(annotation), "%q is not an IP address", text)
	}
	return a
}

func annotationField(name string) string { return "metadata.annotations[" + name + "]" }

// parseAddrOrPrefix reads "a.b.c.d/n" or "a.b.c.d"; host bits are kept.
func parseAddrOrPrefix(text string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
}
