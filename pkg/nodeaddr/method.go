package nodeaddr

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// InternalIP is the default method: the Node's InternalIP, as kubelet has it.
const InternalIP = "kubernetes-internal-ip"

// Method is a way to find a node's address among those of its kernel. The zero
// value is InternalIP.
type Method struct {
	text string
	find func(model.Host, model.Family) netip.Prefix // nil: InternalIP
}

// String is the method as it was written.
func (m Method) String() string {
	if m.text == "" {
		return InternalIP
	}
	return m.text
}

// notUplinks are links that no method but interface= takes (Calico
// DEFAULT_INTERFACES_TO_EXCLUDE): bridges and devices of container engines,
// pods and tunnels, and what kube-proxy and node-local DNS bind addresses to.
var notUplinks = regexp.MustCompile(`^(docker|cbr|dummy|virbr|lxcbr|veth|lo$|cali|tunl|flannel|kube-ipvs|cni|vxlan\.calico|vxlan-v6\.calico|vxlan|wireguard\.cali|wg-v6\.cali|nodelocaldns)`)

// ParseMethod reads a method in the spelling of Calico's IP_AUTODETECTION_METHOD.
// Of can-reach= only addresses are understood: a name would have to be asked of
// a DNS that pods may serve.
func ParseMethod(text string) (Method, error) {
	name, value, _ := strings.Cut(text, "=")
	m := Method{text: text}
	var err error
	switch name {
	case "", InternalIP:
		return m, noValue(name, value)
	case "first-found":
		m.find = onLinks(func(l model.Link) bool { return !notUplinks.MatchString(l.Name) }, everywhere)
		return m, noValue(name, value)
	case "interface", "skip-interface":
		var names *regexp.Regexp
		if names, err = anyOf(value); err != nil {
			return Method{}, fmt.Errorf("%s: %w", name, err)
		}
		skip := name == "skip-interface"
		m.find = onLinks(func(l model.Link) bool {
			return names.MatchString(l.Name) != skip && !(skip && notUplinks.MatchString(l.Name))
		}, everywhere)
	case "cidr":
		var within []netip.Prefix
		if within, err = prefixes(value); err != nil {
			return Method{}, err
		}
		m.find = onLinks(func(l model.Link) bool { return !ofPods(l) }, func(a netip.Addr) bool {
			return slices.ContainsFunc(within, func(p netip.Prefix) bool { return p.Contains(a) })
		})
	case "can-reach":
		target, err := netip.ParseAddr(value)
		if err != nil {
			return Method{}, fmt.Errorf("can-reach: %q is not an IP address", value)
		}
		m.find = func(h model.Host, f model.Family) netip.Prefix { return towards(h, target.Unmap(), f) }
	default:
		return Method{}, fmt.Errorf("%q is none of first-found, interface=, skip-interface=, cidr=, can-reach= and %s", text, InternalIP)
	}
	return m, nil
}

func noValue(name, value string) error {
	if value != "" {
		return fmt.Errorf("%s takes no value", name)
	}
	return nil
}

// anyOf is one expression for a list of them, separated by commas.
func anyOf(list string) (*regexp.Regexp, error) {
	if strings.TrimSpace(list) == "" {
		return nil, fmt.Errorf("no name of an interface")
	}
	var parts []string
	for part := range strings.SplitSeq(list, ",") {
		part = strings.TrimSpace(part)
		if _, err := regexp.Compile(part); err != nil || part == "" {
			return nil, fmt.Errorf("%q is not a regular expression for names of interfaces", part)
		}
		parts = append(parts, "(?:"+part+")")
	}
	return regexp.Compile(strings.Join(parts, "|"))
}

func prefixes(list string) (out []netip.Prefix, err error) {
	for part := range strings.SplitSeq(list, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("cidr: %q is not a CIDR, as in 192.0.2.0/24", part)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

func everywhere(netip.Addr) bool { return true }

// ofPods tells links that carry pods' addresses or tunnels': Muslin's own.
func ofPods(l model.Link) bool { return strings.HasPrefix(l.Alias, "muslin:") }

// onLinks takes the first address that will do, by the index of the link. An
// address with a subnet goes before a lone one on the same link: that is how a
// virtual IP looks.
func onLinks(link func(model.Link) bool, will func(netip.Addr) bool) func(model.Host, model.Family) netip.Prefix {
	return func(h model.Host, f model.Family) netip.Prefix {
		for _, l := range h.Links {
			if l.Up && !ofPods(l) && link(l) {
				if p := first(l, func(p netip.Prefix) bool { return f.Has(p.Addr()) && will(p.Addr()) }); p.IsValid() {
					return p
				}
			}
		}
		return netip.Prefix{}
	}
}

func first(l model.Link, will func(netip.Prefix) bool) (lone netip.Prefix) {
	for _, p := range l.Addresses {
		switch {
		case !p.Addr().IsGlobalUnicast() || !will(p):
		case !p.IsSingleIP():
			return p
		case !lone.IsValid():
			lone = p
		}
	}
	return lone
}

// towards is the address that packets to target leave with: of the link of the
// most specific route, in the subnet of its gateway if there is one. A link
// without an address of the family borrows one of the loopback's, as the kernel
// does.
func towards(h model.Host, target netip.Addr, f model.Family) netip.Prefix {
	if !f.Has(target) {
		return netip.Prefix{}
	}
	var best model.HostRoute
	for _, r := range h.Routes {
		if r.Prefix.Contains(target) && (!best.Prefix.IsValid() || r.Prefix.Bits() > best.Prefix.Bits() ||
			r.Prefix.Bits() == best.Prefix.Bits() && r.Metric < best.Metric) {
			best = r
		}
	}
	via := append(slices.Clone(best.Gateways), target)
	var onLink, loopback netip.Prefix
	for _, l := range h.Links {
		switch {
		case l.Name == "lo":
			loopback = first(l, func(p netip.Prefix) bool { return f.Has(p.Addr()) })
		case best.Prefix.IsValid() && l.Index == best.LinkIndex:
			onLink = first(l, func(p netip.Prefix) bool { return f.Has(p.Addr()) && slices.ContainsFunc(via, p.Contains) })
			if !onLink.IsValid() {
				onLink = first(l, func(p netip.Prefix) bool { return f.Has(p.Addr()) })
			}
		}
	}
	if !onLink.IsValid() && best.Prefix.IsValid() {
		return loopback
	}
	return onLink
}

// OnHost is the address with the length of its subnet, as a link that is not a
// pod's or a tunnel's has it; the zero value when none does.
func OnHost(h model.Host, addr netip.Addr) netip.Prefix {
	for _, l := range h.Links {
		for _, p := range l.Addresses {
			if p.Addr() == addr && !ofPods(l) {
				return p
			}
		}
	}
	return netip.Prefix{}
}
