package ipam

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// Annotations of pods, and of namespaces where said, that ask for something of
// IPAM. The values are Calico's: lists are JSON arrays of strings.
const (
	AnnotationIPv4Pools     = "cni.projectcalico.org/ipv4pools"     // pod or namespace
	AnnotationIPv6Pools     = "cni.projectcalico.org/ipv6pools"     // pod or namespace
	AnnotationIPFamilies    = "cni.projectcalico.org/ipFamilies"    // pod or namespace
	AnnotationIPAddrs       = "cni.projectcalico.org/ipAddrs"       // pod
	AnnotationIPAddrsNoIPAM = "cni.projectcalico.org/ipAddrsNoIpam" // pod
	AnnotationHWAddr        = "cni.projectcalico.org/hwAddr"        // pod
	AnnotationFloatingIPs   = "cni.projectcalico.org/floatingIPs"   // pod; no business of IPAM: the data plane rewrites them
)

// Wishes is what a pod's and its namespace's annotations ask for.
type Wishes struct {
	PoolsV4, PoolsV6 []string         // names or prefixes, in order of preference
	Families         []Family         // nil: not said
	Addrs            []netip.Addr     // assign exactly these, at most one of each family
	AddrsNoIPAM      []netip.Addr     // use these without asking IPAM
	HardwareAddr     net.HardwareAddr // of the interface in the pod; nil: not said
}

// ReadAnnotations reads the annotations of a pod and of its namespace. The
// pod's count before the namespace's. An empty value is as good as none. Errors
// are *Error with CodeBadAnnotation; they name the pod or namespace and the
// annotation.
func ReadAnnotations(pod model.Ref, podAnnotations map[string]string, namespaceAnnotations map[string]string) (Wishes, error) {
	r := annotationReader{
		pod: pod, onPod: podAnnotations,
		namespace: model.Ref{Kind: "Namespace", Name: pod.Namespace}, onNamespace: namespaceAnnotations,
	}
	w := Wishes{
		PoolsV4:     r.pools(AnnotationIPv4Pools, IPv4),
		PoolsV6:     r.pools(AnnotationIPv6Pools, IPv6),
		Families:    r.families(),
		Addrs:       r.addrs(AnnotationIPAddrs),
		AddrsNoIPAM: r.addrs(AnnotationIPAddrsNoIPAM),
	}
	w.HardwareAddr = r.hardwareAddr()
	r.refuse(w)
	if r.err != nil {
		return Wishes{}, r.err
	}
	return w, nil
}

// annotationReader keeps the first error; its methods give nothing after it.
type annotationReader struct {
	pod, namespace     model.Ref
	onPod, onNamespace map[string]string
	err                error
}

func (r *annotationReader) fail(at model.Ref, key, hint, detail string, args ...any) {
	if r.err == nil {
		r.err = &Error{Code: CodeBadAnnotation, Object: at, Field: "metadata.annotations[" + key + "]",
			Detail: fmt.Sprintf(detail, args...), Hint: hint}
	}
}

// value is what is said, and where: on the pod, else, if allowed, on the
// namespace.
func (r *annotationReader) value(key string, alsoNamespace bool) (string, model.Ref) {
	if v := strings.TrimSpace(r.onPod[key]); v != "" {
		return v, r.pod
	}
	if v := strings.TrimSpace(r.onNamespace[key]); alsoNamespace && v != "" {
		return v, r.namespace
	}
	return "", r.pod
}

// list reads a JSON array of strings.
func (r *annotationReader) list(key, example string, alsoNamespace bool) ([]string, model.Ref) {
	text, at := r.value(key, alsoNamespace)
	if text == "" || r.err != nil {
		return nil, at
	}
	var out []string
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		r.fail(at, key, "write it as in "+example, "%q is not a JSON array of strings", text)
		return nil, at
	}
	return out, at
}

func (r *annotationReader) pools(key string, f Family) []string {
	const example = `["pool-a", "10.1.0.0/16"]`
	names, at := r.list(key, example, true)
	for _, name := range names {
		cidr, err := netip.ParsePrefix(name)
		switch {
		case name == "" || err != nil && strings.Contains(name, "/"):
			r.fail(at, key, "write it as in "+example, "%q is neither the name of a pool nor a prefix", name)
		case err == nil && familyOf(cidr.Addr()) != f:
			r.fail(at, key, "name it in the annotation of its own family", "%s is not an %s prefix", name, f)
		}
	}
	return names
}

func (r *annotationReader) families() []Family {
	const example = `["IPv4", "IPv6"]`
	names, at := r.list(AnnotationIPFamilies, example, true)
	var out []Family
	for _, name := range names {
		switch name {
		case IPv4.String():
			out = append(out, IPv4)
		case IPv6.String():
			out = append(out, IPv6)
		default:
			r.fail(at, AnnotationIPFamilies, "write it as in "+example, "%q is not an address family", name)
		}
	}
	return out
}

func (r *annotationReader) addrs(key string) []netip.Addr {
	const example = `["10.1.2.3"]`
	texts, at := r.list(key, example, false)
	var out []netip.Addr
	seen := map[Family]bool{}
	for _, text := range texts {
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.Is4In6() || addr.Zone() != "" {
			r.fail(at, key, "write it as in "+example, "%q is not an IP address", text)
			return nil
		}
		if seen[familyOf(addr)] {
			r.fail(at, key, "name one address of each family", "it names more than one %s address", familyOf(addr))
		}
		seen[familyOf(addr)] = true
		out = append(out, addr)
	}
	return out
}

func (r *annotationReader) hardwareAddr() net.HardwareAddr {
	text, at := r.value(AnnotationHWAddr, false)
	if text == "" {
		return nil
	}
	const hint = "write it as in 1c:0c:0a:c0:ff:ee"
	mac, err := net.ParseMAC(text)
	switch {
	case err != nil || len(mac) != 6:
		r.fail(at, AnnotationHWAddr, hint, "%q is not a 48-bit MAC address", text)
		return nil
	case mac[0]&1 != 0:
		r.fail(at, AnnotationHWAddr, "choose an address whose first byte is even", "%q is a group address", text)
		return nil
	}
	return mac
}

// refuse objects to what contradicts itself.
func (r *annotationReader) refuse(w Wishes) {
	if len(w.Addrs) > 0 && len(w.AddrsNoIPAM) > 0 {
		r.fail(r.pod, AnnotationIPAddrsNoIPAM, "keep one of the two", "%s is set as well", AnnotationIPAddrs)
	}
	for _, addr := range slices.Concat(w.Addrs, w.AddrsNoIPAM) {
		if len(w.Families) > 0 && !slices.Contains(w.Families, familyOf(addr)) {
			r.fail(r.pod, AnnotationIPFamilies, "add the family or remove the address", "the address %s is asked for, but not the family %s", addr, familyOf(addr))
		}
	}
}

// Request makes the request to the allocator: preset says which families are
// asked for when the annotations do not.
func (w Wishes) Request(handle string, attrs, namespaceLabels map[string]string, preset []Family) Request {
	r := Request{Handle: handle, Attrs: attrs, NamespaceLabels: namespaceLabels,
		PoolsV4: w.PoolsV4, PoolsV6: w.PoolsV6, Addrs: w.Addrs, Use: UseWorkload}
	families := preset
	if len(w.Families) > 0 {
		families = w.Families
	}
	if slices.Contains(families, IPv4) {
		r.V4 = 1
	}
	if slices.Contains(families, IPv6) {
		r.V6 = 1
	}
	return r
}
