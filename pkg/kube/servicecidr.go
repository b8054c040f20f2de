package kube

import (
	"strconv"

	"github.com/muslin-net/muslin/pkg/model"
	networking "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// addServiceCIDRs watches the ranges of cluster IPs. Every node needs them
// before its first claim of a block, when the controller may not have written a
// condition yet. A server without the kind (before Kubernetes 1.33), or rights
// that are older than this program, hold nothing up: there are none then.
func (c *Cluster) addServiceCIDRs() {
	f := feed{client: c.networking, resource: "servicecidrs", expect: &networking.ServiceCIDR{}, absent: isAbsentOrForbidden}
	f.answer = func(err error) {
		if !isAbsentOrForbidden(err) {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.serviceCIDRs.synced {
			c.log.Warn("ranges of cluster IPs cannot be read; IPPools are not compared with them", "error", err)
			c.serviceCIDRs.synced = true
			c.noteChange()
		}
	}
	c.serviceCIDRs = add(c, f, stripServiceCIDR, readServiceCIDR)
}

func isAbsentOrForbidden(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.IsForbidden(err)
}

func stripServiceCIDR(obj any) (any, error) {
	if s, ok := obj.(*networking.ServiceCIDR); ok {
		s.ManagedFields, s.Status = nil, networking.ServiceCIDRStatus{}
	}
	return obj, nil
}

func readServiceCIDR(obj any) reading[[]model.ServiceCIDR] {
	o := obj.(*networking.ServiceCIDR)
	r := newReader("ServiceCIDR", &o.ObjectMeta)
	var out []model.ServiceCIDR
	for i, text := range o.Spec.CIDRs {
		p, err := parseAddrOrPrefix(text)
		if err != nil {
			r.warn("spec.cidrs["+strconv.Itoa(i)+"]", "%q is not a CIDR, as in 10.96.0.0/12; it is left out", text)
			continue
		}
		out = append(out, model.ServiceCIDR{Name: o.Name, CIDR: p.Masked()})
	}
	return finish(r, out)
}
