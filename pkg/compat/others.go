package compat

import (
	"maps"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// others are the annotations by which a Service asks MetalLB or Cilium for an address.
var others = join(
	each(without("name IPPools by projectcalico.org/ipv4pools or ipv6pools"), "metallb.universe.tf/address-pool metallb.io/address-pool"),
	each(without("ask for addresses by projectcalico.org/loadBalancerIPs"),
		"metallb.universe.tf/loadBalancerIPs metallb.io/loadBalancerIPs lbipam.cilium.io/ips io.cilium/lb-ipam-ips"),
	each(without("Services of one namespace share an address by muslin.io/shared-ip-key"),
		"metallb.universe.tf/allow-shared-ip metallb.io/allow-shared-ip lbipam.cilium.io/sharing-key io.cilium/lb-ipam-sharing-key"),
	each(without("an address is shared inside one namespace alone, by muslin.io/shared-ip-key"),
		"lbipam.cilium.io/sharing-cross-namespace io.cilium/lb-ipam-sharing-cross-namespace"),
	each(Field{Effect: true}, "metallb.universe.tf/ip-allocated-from-pool metallb.io/ip-allocated-from-pool"), // MetalLB's own note
)

// OfOthers reports whether an annotation of a Service is one by which it asks another
// allocator of addresses, known or not.
func OfOthers(key string) bool {
	domain, _, _ := strings.Cut(key, "/")
	_, known := others[key]
	return known || domain == "metallb.universe.tf" || domain == "metallb.io" || domain == "lbipam.cilium.io"
}

// Others gives what a Service asks of another allocator of addresses, and what asks for
// the same here. Where the other serves it, that has its effect: ask only of a Service
// that Muslin serves.
func Others(ref model.Ref, annotations map[string]string) []model.Problem {
	var out []model.Problem
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		f, known := others[key]
		if !OfOthers(key) || f.Effect {
			continue
		}
		if !known {
			f.Why = "it is another allocator's"
		}
		out = append(out, model.Problem{
			Object: ref, Field: "metadata.annotations[" + key + "]", Reason: ReasonUnsupported, Message: "has no effect in Muslin: " + f.Why,
		})
	}
	return out
}
