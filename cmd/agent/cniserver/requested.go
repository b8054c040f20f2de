package cniserver

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
)

// Calico's annotations on pods and namespaces (cni-plugin/pkg/k8s).
const (
	annotationPrefix = "cni.projectcalico.org/"

	annotationPoolsV4        = annotationPrefix + "ipv4pools" // pod, else namespace
	annotationPoolsV6        = annotationPrefix + "ipv6pools"
	annotationFamilies       = annotationPrefix + "ipFamilies"
	annotationAddrs          = annotationPrefix + "ipAddrs" // pod alone, as those below
	annotationSourcePrefixes = annotationPrefix + "allowedSourcePrefixes"
	annotationMAC            = annotationPrefix + "hwAddr"
	annotationAddrsNoIPAM    = annotationPrefix + "ipAddrsNoIpam"
	annotationFloatingIPs    = annotationPrefix + "floatingIPs"
)

// requested is what configuration, annotations and arguments ask for, in rising
// order of weight.
type requested struct {
	ipv4, ipv6       Need
	poolsV4, poolsV6 []string
	addresses        []netip.Addr
	given            []netip.Addr // used as they are, without IPAM
	sourcePrefixes   []netip.Prefix
	floating         []netip.Addr
	mac              string
}

func requestedBy(a attachment, p PodInfo) (requested, error) {
	w := requested{ipv4: a.ipv4, ipv6: a.ipv6, poolsV4: a.poolsV4, poolsV6: a.poolsV6, mac: p.Annotations[annotationMAC]}
	stated := annotations{a.namespace, a.pod, p}
	if w.mac != "" {
		m, err := net.ParseMAC(w.mac)
		if err != nil || len(m) != 6 {
			return w, stated.bad(annotationMAC, fmt.Errorf("%q is not an Ethernet address", w.mac))
		}
		if m[0]&1 != 0 {
			return w, stated.bad(annotationMAC, fmt.Errorf("%q is a group's address: its first byte is odd", w.mac))
		}
	}
	for _, one := range []struct {
		name string
		set  func([]string) error
	}{
		{annotationPoolsV4, func(l []string) error { w.poolsV4 = l; return nil }},
		{annotationPoolsV6, func(l []string) error { w.poolsV6 = l; return nil }},
		{annotationFamilies, w.families},
		{annotationAddrs, w.exactly},
		{annotationSourcePrefixes, w.sources},
		{annotationFloatingIPs, w.floats},
		{annotationAddrsNoIPAM, w.without},
	} {
		if err := stated.list(one.name, one.set); err != nil {
			return w, err
		}
	}
	if a.wantAddress != "" {
		if err := w.exactly([]string{a.wantAddress}); err != nil {
			return w, types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_ARGS: IP: "+err.Error(), "")
		}
	}
	return w, w.mayBeGiven(a, stated.place(annotationAddrsNoIPAM))
}

// mayBeGiven holds addresses without IPAM to Calico's rules: the configuration
// allows them, addresses come from pools otherwise, and only one of the ways of
// asking for an address is used.
func (w *requested) mayBeGiven(a attachment, place string) error {
	switch {
	case len(w.given) == 0:
		return nil
	case !a.addrsNoIPAM:
		return types.NewError(types.ErrInvalidNetworkConfig, place+": the network configuration does not allow addresses without IPAM",
			`set "feature_control": {"ip_addrs_no_ipam": true} in the node's CNI configuration, or use `+annotationAddrs+" with an address of an IPPool")
	case a.podCIDRs:
		return types.NewError(types.ErrInvalidNetworkConfig, place+": does not go with ipam.type "+ipamHostLocal, "use ipam.type "+ipamMuslin)
	case len(w.addresses) > 0:
		return types.NewError(types.ErrInvalidNetworkConfig, place+": does not go together with "+annotationAddrs+" or IP of CNI_ARGS", "leave one of them out")
	}
	return nil
}

// forms says how each annotation is written, for whoever wrote it otherwise.
var forms = map[string]string{
	annotationPoolsV4:        `["pool-a", "10.1.0.0/16"]`,
	annotationPoolsV6:        `["pool-b", "fd00:1::/48"]`,
	annotationFamilies:       `["IPv4", "IPv6"]`,
	annotationAddrs:          `["10.1.2.3"]`,
	annotationSourcePrefixes: `["192.0.2.0/24"]`,
	annotationFloatingIPs:    `["203.0.113.7"]`,
	annotationAddrsNoIPAM:    `["10.1.2.3"]`,
	annotationMAC:            `02:00:00:00:00:09`,
}

// annotations are those of a pod and of its namespace.
type annotations struct {
	namespace, pod string
	PodInfo
}

// value is what is said under a name: on the pod or, for what concerns all pods
// alike, on the namespace.
func (s annotations) value(name string) (text string, onNamespace bool) {
	if text = s.Annotations[name]; text != "" {
		return text, false
	}
	switch name {
	case annotationPoolsV4, annotationPoolsV6, annotationFamilies:
		return s.NamespaceAnnotations[name], true
	}
	return "", false
}

// list hands a JSON list of strings to set; none is no error.
func (s annotations) list(name string, set func([]string) error) error {
	text, _ := s.value(name)
	if text == "" {
		return nil
	}
	var list []string
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return s.bad(name, fmt.Errorf("%q is not a JSON list of strings", text))
	}
	if len(list) == 0 {
		return nil
	}
	if err := set(list); err != nil {
		return s.bad(name, err)
	}
	return nil
}

// place names the object and the field.
func (s annotations) place(name string) string {
	object := "Pod " + s.namespace + "/" + s.pod
	if _, onNamespace := s.value(name); onNamespace {
		object = "Namespace " + s.namespace
	}
	return object + ": metadata.annotations[" + name + "]"
}

func (s annotations) bad(name string, err error) error {
	return types.NewError(types.ErrInvalidNetworkConfig, s.place(name)+": "+err.Error(), "write it as in "+forms[name])
}

func (w *requested) families(list []string) error {
	v4, v6 := NeedNo, NeedNo
	for _, f := range list {
		switch f {
		case "IPv4":
			v4 = NeedYes
		case "IPv6":
			v6 = NeedYes
		default:
			return fmt.Errorf("%q is neither IPv4 nor IPv6", f)
		}
	}
	w.ipv4, w.ipv6 = v4, v6
	return nil
}

func (w *requested) exactly(list []string) (err error) {
	w.addresses, err = oneOfAFamily(list)
	return err
}

// without refuses what no pod can have; IPAM is not there to do it.
func (w *requested) without(list []string) (err error) {
	if w.given, err = oneOfAFamily(list); err != nil {
		return err
	}
	for _, a := range w.given {
		if !routable(a) {
			return fmt.Errorf("%q is not an address that can be routed", a)
		}
	}
	return nil
}

func oneOfAFamily(list []string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	families := map[bool]bool{}
	for _, text := range list {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return nil, fmt.Errorf("%q is not an address", text)
		}
		a = a.Unmap()
		if families[a.Is4()] {
			return nil, fmt.Errorf("%v: more than one address of a family", list)
		}
		families[a.Is4()] = true
		addrs = append(addrs, a)
	}
	return addrs, nil
}

func routable(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && !a.IsLinkLocalUnicast()
}

func (w *requested) floats(list []string) error {
	for _, text := range list {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" || !routable(a) {
			return fmt.Errorf("%q is not an address that can be routed", text)
		}
		w.floating = append(w.floating, a.Unmap())
	}
	return nil
}

func (w *requested) sources(list []string) error {
	for _, text := range list {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return fmt.Errorf("%q is not a prefix", text)
		}
		w.sourcePrefixes = append(w.sourcePrefixes, p.Masked())
	}
	return nil
}
