package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/pkg/compat"
	"github.com/muslin-net/muslin/pkg/model"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// balanced are the Services of the cluster as LoadBalancer IPAM sees them. Nothing
// else waits for them.
type balanced struct {
	table   *table[model.BalancedService]
	changed chan struct{}
}

func (b *balanced) init(c *Cluster) {
	b.changed = make(chan struct{}, 1)
	var s source
	b.table, s = newTable(c, feed{client: c.core, resource: "services", expect: &corev1.Service{}}, stripBalanced, readBalanced)
	b.table.note = b.wake // not the rest of the cluster, which does without Services
	c.aside = append(c.aside, s)
}

// wake says that there is something new; nobody hears of it without init.
func (b *balanced) wake() {
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// BalancedServices is what LoadBalancer IPAM depends on beside a Snapshot.
type BalancedServices struct {
	List []model.BalancedService // sorted by namespace and name
	// OnlyRequested: KubeControllersConfiguration default has
	// controllers.loadBalancer.assignIPs: RequestedServicesOnly.
	OnlyRequested bool
}

// Balanced gives every Service; false: they are not known yet, or were not asked
// for with Options.Balanced.
func (c *Cluster) Balanced() (BalancedServices, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.balanced.table == nil || !c.balanced.table.synced || !c.settings.synced || !c.synced {
		return BalancedServices{}, false
	}
	return BalancedServices{List: c.balanced.table.values(), OnlyRequested: c.settings.rows["default"].value.OnlyRequested}, true
}

// BalancedChanged has a value whenever Services, or something else of the cluster,
// may differ from what was last asked for.
func (c *Cluster) BalancedChanged() <-chan struct{} { return c.balanced.changed }

func readBalanced(obj any) reading[model.BalancedService] {
	o := obj.(*corev1.Service)
	out := model.BalancedService{
		Namespace: o.Namespace, Name: o.Name, UID: string(o.UID), Created: o.CreationTimestamp.Time,
		LoadBalancer: o.Spec.Type == corev1.ServiceTypeLoadBalancer, Class: deref(o.Spec.LoadBalancerClass), Wanted: o.Spec.LoadBalancerIP,
		IPv4: slices.Contains(o.Spec.IPFamilies, corev1.IPv4Protocol), IPv6: slices.Contains(o.Spec.IPFamilies, corev1.IPv6Protocol),
		Optional:     deref(o.Spec.IPFamilyPolicy) == corev1.IPFamilyPolicyPreferDualStack,
		LocalTraffic: o.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
		Selector:     labels.Set(o.Spec.Selector).String(), Labels: o.Labels, Annotations: asking(o.Annotations),
	}
	for _, p := range o.Spec.Ports {
		out.Ports = append(out.Ports, model.ServicePort{Protocol: string(p.Protocol), Port: uint16(p.Port)})
	}
	for _, i := range o.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(i.IP); err == nil {
			out.Addrs = append(out.Addrs, a.Unmap())
		}
		out.Others = out.Others || i.Hostname != "" || len(i.Ports) > 0
	}
	return reading[model.BalancedService]{value: out, ok: true}
}

func stripBalanced(obj any) (any, error) {
	if s, ok := obj.(*corev1.Service); ok {
		s.ManagedFields, s.OwnerReferences = nil, nil
		s.Annotations = asking(s.Annotations)
	}
	return obj, nil
}

// asking keeps the annotations by which a Service may ask for something: Calico's and
// Muslin's, and those of other allocators, so that it can be told of them.
func asking(annotations map[string]string) map[string]string {
	out := ours(annotations)
	for k, v := range annotations {
		if !compat.OfOthers(k) {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[k] = v
	}
	return out
}

// LiveService asks the server itself for a Service; false: there is none.
func (c *Cluster) LiveService(ctx context.Context, namespace, name string) (model.BalancedService, bool, error) {
	var s corev1.Service
	err := c.core.Get().Namespace(namespace).Resource("services").Name(name).Do(ctx).Into(&s)
	if apierrors.IsNotFound(err) {
		return model.BalancedService{}, false, nil
	}
	if err != nil {
		return model.BalancedService{}, false, fmt.Errorf("get service %s/%s: %w", namespace, name, err)
	}
	return readBalanced(&s).value, true, nil
}

// SetIngress makes status.loadBalancer.ingress of a Service hold these addresses;
// nil: what it has, without drop. A Service that is gone, or was made anew, is no
// error.
func (c *Cluster) SetIngress(ctx context.Context, s *model.BalancedService, addrs, drop []netip.Addr) error {
	var have corev1.Service
	err := c.core.Get().Namespace(s.Namespace).Resource("services").Name(s.Name).Do(ctx).Into(&have)
	if apierrors.IsNotFound(err) || err == nil && string(have.UID) != s.UID {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read status of %s: %w", s.Ref(), err)
	}
	want := ingressOf(have.Status.LoadBalancer.Ingress, addrs, drop)
	if equality.Semantic.DeepEqual(want, have.Status.LoadBalancer.Ingress) {
		return nil
	}
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": have.UID, "resourceVersion": have.ResourceVersion},
		"status":   map[string]any{"loadBalancer": map[string]any{"ingress": want}},
	})
	if err != nil {
		return fmt.Errorf("encode status of %s: %w", s.Ref(), err)
	}
	err = c.core.Patch(types.MergePatchType).Namespace(s.Namespace).Resource("services").Name(s.Name).SubResource("status").Body(body).Do(ctx).Error()
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write status of %s: %w", s.Ref(), err)
	}
	return nil
}

// ingressOf is what a status shall have. What it has of the addresses already stays
// as it is, with what the server has filled in.
func ingressOf(have []corev1.LoadBalancerIngress, addrs, drop []netip.Addr) []corev1.LoadBalancerIngress {
	addr := func(i corev1.LoadBalancerIngress) netip.Addr {
		a, _ := netip.ParseAddr(i.IP) // a host name has none
		return a.Unmap()
	}
	want := []corev1.LoadBalancerIngress{}
	if addrs == nil {
		for _, i := range have {
			if !slices.Contains(drop, addr(i)) {
				want = append(want, i)
			}
		}
		return want
	}
	for _, a := range addrs {
		k := slices.IndexFunc(have, func(i corev1.LoadBalancerIngress) bool { return addr(i) == a && i.Hostname == "" && len(i.Ports) == 0 })
		if k >= 0 {
			want = append(want, have[k])
		} else {
			want = append(want, corev1.LoadBalancerIngress{IP: a.String()})
		}
	}
	return want
}
