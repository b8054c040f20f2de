package router

import (
	"fmt"
	"strings"
)

func eos(r Router) string {
	var b strings.Builder
	fmt.Fprintf(&b, "! router %s, AS %s: Arista EOS\n", r.Address, r.ASN)
	for i, p := range r.v4() {
		fmt.Fprintf(&b, "ip prefix-list MUSLIN-PODS seq %d permit %s le 32\n", 10*(i+1), p)
	}
	if len(r.v6()) > 0 {
		b.WriteString("ipv6 prefix-list MUSLIN-PODS6\n")
		for i, p := range r.v6() {
			fmt.Fprintf(&b, "   seq %d permit %s le 128\n", 10*(i+1), p)
		}
	}
	b.WriteString("route-map MUSLIN-IN permit 10\n   match ip address prefix-list MUSLIN-PODS\n")
	if len(r.v6()) > 0 {
		b.WriteString("route-map MUSLIN-IN permit 20\n   match ipv6 address prefix-list MUSLIN-PODS6\n")
	}
	fmt.Fprintf(&b, "router bgp %s\n   router-id %s\n   maximum-paths 64 ecmp 64\n   neighbor MUSLIN peer group\n   neighbor MUSLIN route-map MUSLIN-IN in\n   neighbor MUSLIN maximum-routes %d\n", r.ASN, r.ID, r.Limit)
	if n, ok := r.first(); ok {
		fmt.Fprintf(&b, "   neighbor MUSLIN remote-as %s\n", n.ASN)
		if n.Password {
			fmt.Fprintf(&b, "   neighbor MUSLIN password %s\n", password)
		}
		if n.BFD != nil {
			b.WriteString("   neighbor MUSLIN bfd\n")
		}
		if n.TTL > 0 {
			fmt.Fprintf(&b, "   neighbor MUSLIN ttl maximum-hops %d\n", n.TTL)
		}
	}
	if r.Listen.IsValid() {
		fmt.Fprintf(&b, "   bgp listen range %s peer-group MUSLIN remote-as %s\n", r.Listen, r.oneAS())
	} else {
		for _, n := range r.Neighbors {
			fmt.Fprintf(&b, "   neighbor %s peer group MUSLIN\n   neighbor %s remote-as %s\n   neighbor %s description %s\n", n.Address, n.Address, n.ASN, n.Address, n.Name)
		}
	}
	b.WriteString("   address-family ipv4\n      neighbor MUSLIN activate\n")
	if n, ok := r.first(); ok && n.V6 {
		b.WriteString("   address-family ipv6\n      neighbor MUSLIN activate\n")
	}
	return b.String()
}

func (r Router) first() (Neighbor, bool) {
	if len(r.Neighbors) == 0 {
		return Neighbor{}, false
	}
	return r.Neighbors[0], true
}

func nxos(r Router) string {
	var b strings.Builder
	fmt.Fprintf(&b, "! router %s, AS %s: Cisco NX-OS\nfeature bgp\n", r.Address, r.ASN)
	n, some := r.first()
	if some && n.BFD != nil {
		b.WriteString("feature bfd\n")
	}
	for i, p := range r.v4() {
		fmt.Fprintf(&b, "ip prefix-list MUSLIN-PODS seq %d permit %s le 32\n", 10*(i+1), p)
	}
	for i, p := range r.v6() {
		fmt.Fprintf(&b, "ipv6 prefix-list MUSLIN-PODS6 seq %d permit %s le 128\n", 10*(i+1), p)
	}
	b.WriteString("route-map MUSLIN-IN permit 10\n  match ip address prefix-list MUSLIN-PODS\n")
	if len(r.v6()) > 0 {
		b.WriteString("route-map MUSLIN-IN permit 20\n  match ipv6 address prefix-list MUSLIN-PODS6\n")
	}
	fmt.Fprintf(&b, "router bgp %s\n  router-id %s\n  address-family ipv4 unicast\n    maximum-paths 64\n", r.ASN, r.ID)
	one := func(name string, n Neighbor) {
		fmt.Fprintf(&b, "  neighbor %s\n    remote-as %s\n    description %s\n", name, n.ASN, n.Name)
		if n.Password {
			fmt.Fprintf(&b, "    password 0 %s\n", password)
		}
		if n.BFD != nil {
			b.WriteString("    bfd\n")
		}
		if n.TTL > 0 {
			fmt.Fprintf(&b, "    ttl-security hops %d\n", n.TTL)
		}
		for _, f := range []struct {
			name string
			on   bool
		}{{"ipv4", n.V4}, {"ipv6", n.V6}} {
			if f.on {
				fmt.Fprintf(&b, "    address-family %s unicast\n      route-map MUSLIN-IN in\n      maximum-prefix %d\n", f.name, r.Limit)
			}
		}
	}
	if r.Listen.IsValid() && some {
		n.Name = "muslin"
		one(r.Listen.String(), n)
		return b.String()
	}
	for _, n := range r.Neighbors {
		one(n.Address.String(), n)
	}
	return b.String()
}

func junos(r Router) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# router %s, AS %s: Junos; load set terminal\nset routing-options router-id %s\nset routing-options autonomous-system %s\n", r.Address, r.ASN, r.ID, r.ASN)
	for _, p := range r.Pools {
		fmt.Fprintf(&b, "set policy-options policy-statement MUSLIN-IN term pods from route-filter %s orlonger\n", p)
	}
	b.WriteString("set policy-options policy-statement MUSLIN-IN term pods then accept\nset policy-options policy-statement MUSLIN-IN then reject\n")
	const g = "set protocols bgp group MUSLIN "
	fmt.Fprintf(&b, "%stype external\n%simport MUSLIN-IN\n%smultipath\n", g, g, g)
	n, some := r.first()
	if some {
		if n.V4 {
			fmt.Fprintf(&b, "%sfamily inet unicast prefix-limit maximum %d\n", g, r.Limit)
		}
		if n.V6 {
			fmt.Fprintf(&b, "%sfamily inet6 unicast prefix-limit maximum %d\n", g, r.Limit)
		}
		if n.Password {
			fmt.Fprintf(&b, "%sauthentication-key %s\n", g, password)
		}
		if n.BFD != nil {
			fmt.Fprintf(&b, "%sbfd-liveness-detection minimum-interval %d\n%sbfd-liveness-detection multiplier %d\n", g, n.BFD.Interval.Milliseconds(), g, n.BFD.Multiplier)
		}
		if n.TTL > 0 {
			fmt.Fprintf(&b, "%smultihop ttl %d\n", g, n.TTL)
		}
	}
	if r.Listen.IsValid() {
		fmt.Fprintf(&b, "%speer-as %s\n%sallow %s\n", g, r.oneAS(), g, r.Listen)
		return b.String()
	}
	for _, n := range r.Neighbors {
		fmt.Fprintf(&b, "%sneighbor %s description %s\n%sneighbor %s peer-as %s\n", g, n.Address, n.Name, g, n.Address, n.ASN)
	}
	return b.String()
}
