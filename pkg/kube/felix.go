package kube

import (
	"encoding/json"
	"strings"

	v3 "github.com/muslin-net/muslin/pkg/kube/v3"
	"github.com/muslin-net/muslin/pkg/model"
)

// honoured are the FelixConfiguration fields that have an effect in Muslin, or
// whose only value Muslin can have is what it does anyway.
var honoured = map[string]bool{
	"ipipMTU": true, "vxlanMTU": true, "vxlanMTUV6": true, "vxlanPort": true, "vxlanVNI": true,
	"natPortRange": true, "natOutgoingAddress": true, "natOutgoingExclusions": true,
	"interfacePrefix": true, "routeRefreshInterval": true, "ipForwarding": true,
	"workloadSourceSpoofing": true, "logSeverityScreen": true,
}

func readFelix(obj any) reading[model.FelixConfiguration] {
	o := obj.(*object)
	r := newReader("FelixConfiguration", &o.ObjectMeta)
	var spec v3.FelixConfigurationSpec
	r.spec(o, &spec)
	var raw map[string]json.RawMessage
	r.spec(o, &raw)
	out := model.FelixConfiguration{
		Name:    o.Name,
		IPIPMTU: deref(spec.IPIPMTU), VXLANMTU: deref(spec.VXLANMTU), VXLANMTUV6: deref(spec.VXLANMTUV6),
		VXLANPort: deref(spec.VXLANPort), VXLANVNI: deref(spec.VXLANVNI),
		NATOutgoingAddress:   r.addr("spec.natOutgoingAddress", spec.NATOutgoingAddress),
		NATExcludeHosts:      r.oneOf("spec.natOutgoingExclusions", string(deref(spec.NATOutgoingExclusions)), "IPPoolsOnly", "IPPoolsAndHostIPs") == "IPPoolsAndHostIPs",
		InterfacePrefix:      spec.InterfacePrefix,
		IPForwardingDisabled: r.oneOf("spec.ipForwarding", spec.IPForwarding, "Enabled", "Disabled") == "Disabled",
		FloatingIPs:          r.oneOf("spec.floatingIPs", string(deref(spec.FloatingIPs)), "Disabled", "Enabled") == "Enabled",
		SpoofingAllowed:      r.oneOf("spec.workloadSourceSpoofing", spec.WorkloadSourceSpoofing, "Disabled", "Any") == "Any",
	}
	if p := spec.NATPortRange; p != nil {
		out.NATPortMin, out.NATPortMax = int(p.MinPort), int(p.MaxPort)
	}
	if d := spec.RouteRefreshInterval; d != nil {
		out.RouteRefreshSeconds = int(d.Seconds())
	}
	for _, name := range sortedKeys(raw) {
		if out.Raw == nil {
			out.Raw = make(map[string]string, len(raw))
		}
		out.Raw[name] = strings.Trim(string(raw[name]), `"`)
		if !honoured[name] {
			out.Unsupported = append(out.Unsupported, name)
		}
	}
	return finish(r, out)
}
