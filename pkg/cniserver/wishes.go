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

// wishes is what configuration, annotations and arguments ask for, in rising
// order of weight.
type wishes struct {
	ipv4, ipv6       Need
	poolsV4, poolsV6 []string
	addresses        []netip.Addr
	sourcePrefixes   []netip.Prefix
	floating         []netip.Addr
	mac              string
}

func wishesOf(a attachment, p PodInfo) (wishes, error) {
	w := wishes{ipv4: a.ipv4, ipv6: a.ipv6, poolsV4: a.poolsV4, poolsV6: a.poolsV6, mac: p.Annotations[annotationMAC]}
	if v := p.Annotations[annotationAddrsNoIPAM]; v != "" && v != "[]" {
		return w, types.NewError(types.ErrUnsupportedField, "annotation "+annotationAddrsNoIPAM+": is not supported", "")
	}
	if w.mac != "" {
		if m, err := net.ParseMAC(w.mac); err != nil || len(m) != 6 {
			return w, badAnnotation(annotationMAC, fmt.Errorf("%q is not an Ethernet address", w.mac))
		}
	}
	for name, pools := range map[string]*[]string{annotationPoolsV4: &w.poolsV4, annotationPoolsV6: &w.poolsV6} {
		if err := readList(name, p.Annotations, p.NamespaceAnnotations, func(l []string) error { *pools = l; return nil }); err != nil {
			return w, err
		}
	}
	if err := readList(annotationFamilies, p.Annotations, p.NamespaceAnnotations, w.families); err != nil {
		return w, err
	}
	if err := readList(annotationAddrs, p.Annotations, nil, w.exactly); err != nil {
		return w, err
	}
	if err := readList(annotationSourcePrefixes, p.Annotations, nil, w.sources); err != nil {
		return w, err
	}
	if err := readList(annotationFloatingIPs, p.Annotations, nil, w.floats); err != nil {
		return w, err
	}
	if a.wantAddress != "" {
		if err := w.exactly([]string{a.wantAddress}); err != nil {
			return w, types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_ARGS: IP: "+err.Error(), "")
		}
	}
	return w, nil
}

// readList hands the JSON list of strings in the first map that has the
// annotation to set; none is no error.
func readList(name string, pod, namespace map[string]string, set func([]string) error) error {
	text, ok := pod[name]
	if !ok || text == "" {
		text = namespace[name]
	}
	if text == "" {
		return nil
	}
	var list []string
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return badAnnotation(name, fmt.Errorf("%q is not a JSON list of strings", text))
	}
	if len(list) == 0 {
		return nil
	}
	if err := set(list); err != nil {
		return badAnnotation(name, err)
	}
	return nil
}

func badAnnotation(name string, err error) error {
	return types.NewError(types.ErrInvalidNetworkConfig, "annotation "+name+": "+err.Error(), "")
}

func (w *wishes) families(list []string) error {
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

func (w *wishes) exactly(list []string) error {
	var addrs []netip.Addr
	families := map[bool]bool{}
	for _, text := range list {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return fmt.Errorf("%q is not an address", text)
		}
		a = a.Unmap()
		if families[a.Is4()] {
			return fmt.Errorf("%v: more than one address of a family", list)
		}
		families[a.Is4()] = true
		addrs = append(addrs, a)
	}
	w.addresses = addrs
	return nil
}

func (w *wishes) floats(list []string) error {
	for _, text := range list {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.IsLinkLocalUnicast() {
			return fmt.Errorf("%q is not an address that can be routed", text)
		}
		w.floating = append(w.floating, a.Unmap())
	}
	return nil
}

func (w *wishes) sources(list []string) error {
	for _, text := range list {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return fmt.Errorf("%q is not a prefix", text)
		}
		w.sourcePrefixes = append(w.sourcePrefixes, p.Masked())
	}
	return nil
}
