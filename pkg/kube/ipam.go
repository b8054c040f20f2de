package kube

import (
	"net/netip"
	"strconv"

	v3 "github.com/muslin-net/muslin/pkg/kube/v3"
	"github.com/muslin-net/muslin/pkg/model"
	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
)

func readIPAM(obj any) reading[model.IPAM] {
	o := obj.(*object)
	r := newReader("IPAMConfiguration", &o.ObjectMeta)
	var spec v3.IPAMConfigurationSpec
	r.spec(o, &spec)
	out := model.IPAM{
		StrictAffinity: spec.StrictAffinity, AutoAllocateBlocks: spec.AutoAllocateBlocks == nil || *spec.AutoAllocateBlocks,
		MaxBlocksPerHost: int(spec.MaxBlocksPerHost), CooldownSeconds: int(deref(spec.IPCooldownSeconds)),
	}
	return finish(r, out)
}

// readLocked reports whether a ClusterInformation keeps everybody from writing to
// IPAM. Only an explicit datastoreReady: false does.
func readLocked(obj any) reading[bool] {
	o := obj.(*object)
	r := newReader("ClusterInformation", &o.ObjectMeta)
	var spec calico.ClusterInformationSpec
	r.spec(o, &spec)
	return finish(r, spec.DatastoreReady != nil && !*spec.DatastoreReady)
}

// readReservation leaves out an entry that does not parse; the others stay in
// force.
func readReservation(obj any) reading[[]netip.Prefix] {
	o := obj.(*object)
	r := newReader("IPReservation", &o.ObjectMeta)
	var spec calico.IPReservationSpec
	r.spec(o, &spec)
	out := make([]netip.Prefix, 0, len(spec.ReservedCIDRs))
	for i, text := range spec.ReservedCIDRs {
		p, err := parseAddrOrPrefix(text)
		if err != nil {
			r.warn("spec.reservedCIDRs["+strconv.Itoa(i)+"]", "%q is neither an IP address nor a CIDR; it is left out", text)
			continue
		}
		out = append(out, p.Masked())
	}
	return finish(r, out)
}
