package kube

import (
	v3 "github.com/muslin-net/muslin/pkg/kube/v3"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/selector"
)

// ConditionAllocatable is the condition of an IPPool that says whether
// addresses may be taken from it (Calico IPPool.status).
const ConditionAllocatable = "Allocatable"

// readPool translates an IPPool. A selector that does not parse leaves the pool
// in force, for its routes and its NAT, but selects nothing: no address is
// taken on the word of a selector that nobody understands.
func readPool(obj any) reading[model.Pool] {
	o := obj.(*object)
	r := newReader("IPPool", &o.ObjectMeta)
	var spec v3.IPPoolSpec
	r.spec(o, &spec)
	cidr := r.prefix("spec.cidr", spec.CIDR)
	pool := model.Pool{
		Name: o.Name, UID: string(o.UID), CIDR: cidr, BlockSize: spec.BlockSize,
		IPIP:        oneOf(r, "spec.ipipMode", spec.IPIPMode, model.EncapNever, model.EncapAlways, model.EncapCrossSubnet),
		VXLAN:       oneOf(r, "spec.vxlanMode", spec.VXLANMode, model.EncapNever, model.EncapAlways, model.EncapCrossSubnet),
		NATOutgoing: spec.NATOutgoing, Disabled: spec.Disabled, DisableBGPExport: spec.DisableBGPExport,
		AllowedUses: []model.Use{model.UseWorkload, model.UseTunnel},
		Manual:      oneOf(r, "spec.assignmentMode", deref(spec.AssignmentMode), "Automatic", "Manual") == "Manual",
		Deleting:    o.DeletionTimestamp != nil,
		Annotations: ours(o.Annotations),
	}
	pool.NodeSelector = r.poolSelector("spec.nodeSelector", spec.NodeSelector)
	pool.NamespaceSelector = r.poolSelector("spec.namespaceSelector", spec.NamespaceSelector)
	if len(spec.AllowedUses) > 0 {
		pool.AllowedUses = nil
		for _, use := range spec.AllowedUses {
			pool.AllowedUses = append(pool.AllowedUses, model.Use(use))
		}
	}
	r.blockSize(&pool)
	r.encapsulation(&pool)
	pool.Allocatable = !pool.Deleting && !conditionIsFalse(o, ConditionAllocatable)
	return finish(r, pool)
}

// blockSize puts in Calico's default and checks the range.
func (r *reader) blockSize(pool *model.Pool) {
	low, high, standard := 20, 32, 26
	if pool.CIDR.Addr().Is6() {
		low, high, standard = 116, 128, 122
	}
	if pool.BlockSize == 0 {
		pool.BlockSize = standard
	}
	if pool.BlockSize < low || pool.BlockSize > high {
		r.fail("spec.blockSize", "%d is not a block size of this family: want %d to %d", pool.BlockSize, low, high)
	}
}

func (r *reader) encapsulation(pool *model.Pool) {
	if pool.IPIP != model.EncapNever && pool.CIDR.Addr().Is6() {
		r.fail("spec.ipipMode", "must be Never in an IPv6 pool; IPIP carries IPv4 only")
	}
	if pool.IPIP != model.EncapNever && pool.VXLAN != model.EncapNever {
		r.fail("spec.ipipMode", "ipipMode and vxlanMode cannot both be on")
	}
}

func (r *reader) poolSelector(field, text string) model.Selector {
	if text == "" {
		return nil
	}
	s, err := selector.Parse(text)
	if err != nil {
		r.warn(field, "%q is not a selector: %v; the pool selects nothing until this is mended", text, err)
		return nothing(text)
	}
	return s
}

// nothing is the selector in place of one that does not parse.
type nothing string

func (nothing) Matches(map[string]string) bool { return false }
func (n nothing) String() string               { return string(n) }

func conditionIsFalse(o *object, kind string) bool {
	for _, c := range o.conditions() {
		if c.Type == kind {
			return c.Status == "False"
		}
	}
	return false
}
