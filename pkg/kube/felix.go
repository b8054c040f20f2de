package kube

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	v3 "github.com/muslin-net/muslin/pkg/kube/v3"
	"github.com/muslin-net/muslin/pkg/model"
	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
)

// Annotations of a FelixConfiguration.
const (
	// AnnotationEstablished says what becomes of established connections when policy is tightened.
	AnnotationEstablished = "muslin.io/established-connections"
	// AnnotationEpochMask are the bits of a connection's mark by which that is known.
	AnnotationEpochMask = "muslin.io/conntrack-mark-mask"
)

// fewestEpochBits is how many bits of the mark are the fewest to take: fifteen numbers come round soon.
const fewestEpochBits = 4

func readFelix(obj any) reading[model.FelixConfiguration] {
	o := obj.(*object)
	r := newReader("FelixConfiguration", &o.ObjectMeta)
	var spec v3.FelixConfigurationSpec
	var raw map[string]json.RawMessage
	if r.spec(o, &spec); !r.failed {
		_ = json.Unmarshal(o.Spec, &raw) // it has just been read
	}
	out := model.FelixConfiguration{
		Name:    o.Name,
		IPIPMTU: deref(spec.IPIPMTU), VXLANMTU: deref(spec.VXLANMTU), VXLANMTUV6: deref(spec.VXLANMTUV6),
		VXLANPort: deref(spec.VXLANPort), VXLANVNI: deref(spec.VXLANVNI),
		NATOutgoingAddress:   r.addr("spec.natOutgoingAddress", spec.NATOutgoingAddress),
		NATExcludeHosts:      oneOf(r, "spec.natOutgoingExclusions", deref(spec.NATOutgoingExclusions), "IPPoolsOnly", "IPPoolsAndHostIPs") == "IPPoolsAndHostIPs",
		InterfacePrefix:      spec.InterfacePrefix,
		IPForwardingDisabled: oneOf(r, "spec.ipForwarding", spec.IPForwarding, "Enabled", "Disabled") == "Disabled",
		FloatingIPs:          oneOf(r, "spec.floatingIPs", deref(spec.FloatingIPs), "Disabled", "Enabled") == "Enabled",
		SpoofingAllowed:      anyCase(r, "spec.workloadSourceSpoofing", spec.WorkloadSourceSpoofing, "Disabled", "Any") == "Any",
		ToHost:               anyCase(r, "spec.defaultEndpointToHostAction", spec.DefaultEndpointToHostAction, "", model.ActionDrop, model.ActionAccept, "Return"),
		ServiceLoops:         anyCase(r, "spec.serviceLoopPrevention", spec.ServiceLoopPrevention, "", model.ActionDrop, model.ActionReject, model.ActionOff),
	}
	r.epochs(o.Annotations, &out)
	out.FailsafeIn = r.failsafe("spec.failsafeInboundHostPorts", spec.FailsafeInboundHostPorts)
	out.FailsafeOut = r.failsafe("spec.failsafeOutboundHostPorts", spec.FailsafeOutboundHostPorts)
	out.IPIPDisabled, out.VXLANDisabled = isFalse(spec.IPIPEnabled), isFalse(spec.VXLANEnabled)
	out.DeviceRouteSource = r.addr("spec.deviceRouteSourceAddress", spec.DeviceRouteSourceAddress)
	out.DeviceRouteSourceV6 = r.addr("spec.deviceRouteSourceAddressIPv6", spec.DeviceRouteSourceAddressIPv6)
	out.ClusterRoutes = oneOf(r, "spec.programClusterRoutes", deref(spec.ProgramClusterRoutes), "", "Enabled", "EnabledIPIPOnly", "Disabled")
	out.KeepExternalRoutes = isFalse(spec.RemoveExternalRoutes)
	out.VXLANFromPods, out.IPIPFromPods = deref(spec.AllowVXLANPacketsFromWorkloads), deref(spec.AllowIPIPPacketsFromWorkloads)
	out.RoutePriority, out.RoutePriorityV6 = deref(spec.IPv4NormalRoutePriority), deref(spec.IPv6NormalRoutePriority)
	out.NATInterface = spec.IptablesNATOutgoingInterfaceFilter
	if name := strings.TrimSuffix(out.NATInterface, "+"); len(name) > 15 || strings.ContainsAny(name, "+*\"\\ /") {
		r.fail("spec.iptablesNATOutgoingInterfaceFilter", "%q is neither the name of an interface nor the start of one and a +", out.NATInterface)
	}
	out.MTUInterfaces = spec.MTUIfacePattern
	if _, err := regexp.Compile(spec.MTUIfacePattern); err != nil {
		r.fail("spec.mtuIfacePattern", "%q is no regular expression: %v", spec.MTUIfacePattern, err)
	}
	for i, text := range deref(spec.ExternalNodesCIDRList) {
		out.ExternalNodes = append(out.ExternalNodes, r.hostOrPrefix(fmt.Sprintf("spec.externalNodesList[%d]", i), text))
	}
	if p := spec.NATPortRange; p != nil {
		out.NATPortMin, out.NATPortMax = max(1, int(p.MinPort)), int(p.MaxPort)
	}
	if d := spec.RouteRefreshInterval; d != nil {
		out.RouteRefreshSeconds = int(d.Seconds())
	}
	for _, name := range sortedKeys(raw) {
		if out.Raw == nil {
			out.Raw = make(map[string]string, len(raw))
		}
		out.Raw[name] = strings.Trim(string(raw[name]), `"`)
	}
	return finish(r, out)
}

// epochs reads the annotations.
func (r *reader) epochs(annotations map[string]string, out *model.FelixConfiguration) {
	for _, key := range sortedKeys(ours(annotations)) {
		field, text := annotationField(key), annotations[key]
		switch {
		case key == AnnotationEstablished:
			out.Established = anyCase(r, field, text, "", model.ActionKeep, model.ActionReevaluate)
		case key == AnnotationEpochMask:
			mask, err := strconv.ParseUint(text, 0, 32)
			if out.EpochMask = uint32(mask); err != nil || bits.OnesCount64(mask) < fewestEpochBits {
				r.fail(field, "%q is no mask of %d bits or more, as in 0xff000000", text, fewestEpochBits)
			}
		case strings.HasPrefix(key, "muslin.io/"):
			r.warn(field, "no such annotation of a FelixConfiguration; known are %s, %s", AnnotationEstablished, AnnotationEpochMask)
		}
	}
}

// failsafe reads a list of ports; nil: there is none. What cannot be read is left out:
// it opens nothing.
func (r *reader) failsafe(field string, list *[]calico.ProtoPort) []model.FailsafePort {
	if list == nil {
		return nil
	}
	out := []model.FailsafePort{}
	for i, p := range *list {
		at := fmt.Sprintf("%s[%d]", field, i)
		number := map[string]uint8{"": 6, "tcp": 6, "udp": 17, "sctp": 132}[strings.ToLower(p.Protocol)]
		f := model.FailsafePort{Protocol: number, Port: p.Port}
		if number == 0 {
			r.fail(at+".protocol", "%q is not one of TCP, UDP, SCTP", p.Protocol)
			continue
		}
		if p.Port == 0 {
			r.fail(at+".port", "0 is no port")
			continue
		}
		if p.Net != "" {
			if f.Net = r.hostOrPrefix(at+".net", p.Net); !f.Net.IsValid() {
				continue
			}
		}
		out = append(out, f)
	}
	return out
}

func isFalse(p *bool) bool { return p != nil && !*p }

// hostOrPrefix reads "10.1.0.0/16" or "10.1.0.1".
func (r *reader) hostOrPrefix(field, text string) netip.Prefix {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())
	}
	return r.prefix(field, text)
}
