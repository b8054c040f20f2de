package router

import (
	"fmt"
	"strings"
)

func frr(r Router) string {
	var b strings.Builder
	fmt.Fprintf(&b, "! router %s, AS %s: sessions with %d node(s)\nfrr defaults datacenter\n", r.Address, r.ASN, len(r.Neighbors))
	frrBody(&b, r)
	return b.String()
}

// sonic runs FRR: the same lines, for vtysh with split configuration.
func sonic(r Router) string {
	var b strings.Builder
	fmt.Fprintf(&b, "! router %s, AS %s. SONiC: config_db.json needs DEVICE_METADATA localhost docker_routing_config_mode \"split\";\n! enter these lines with: vtysh -c 'configure terminal' ...; then: vtysh -c write\n", r.Address, r.ASN)
	frrBody(&b, r)
	return b.String()
}

func frrBody(b *strings.Builder, r Router) {
	for i, p := range r.v4() {
		fmt.Fprintf(b, "ip prefix-list MUSLIN-PODS seq %d permit %s le 32\n", 10*(i+1), p)
	}
	for i, p := range r.v6() {
		fmt.Fprintf(b, "ipv6 prefix-list MUSLIN-PODS6 seq %d permit %s le 128\n", 10*(i+1), p)
	}
	b.WriteString("route-map MUSLIN-IN permit 10\n match ip address prefix-list MUSLIN-PODS\nexit\n")
	if len(r.v6()) > 0 {
		b.WriteString("route-map MUSLIN-IN permit 20\n match ipv6 address prefix-list MUSLIN-PODS6\nexit\n")
	}
	b.WriteString("route-map MUSLIN-OUT permit 10\nexit\n")
	fmt.Fprintf(b, "router bgp %s\n bgp router-id %s\n no bgp default ipv4-unicast\n bgp bestpath as-path multipath-relax\n", r.ASN, r.ID)
	names := make([]string, 0, len(r.Neighbors))
	if r.Listen.IsValid() {
		fmt.Fprintf(b, " neighbor MUSLIN peer-group\n neighbor MUSLIN remote-as %s\n", r.oneAS())
		if len(r.Neighbors) > 0 {
			frrOptions(b, "MUSLIN", r.Neighbors[0])
		}
		fmt.Fprintf(b, " bgp listen range %s peer-group MUSLIN\n", r.Listen)
		names = append(names, "MUSLIN")
	} else {
		for _, n := range r.Neighbors {
			a := n.Address.String()
			fmt.Fprintf(b, " neighbor %s remote-as %s\n neighbor %s description %s\n", a, n.ASN, a, n.Name)
			if n.Port != 179 {
				fmt.Fprintf(b, " neighbor %s port %d\n", a, n.Port)
			}
			frrOptions(b, a, n)
			names = append(names, a)
		}
	}
	frrFamily(b, r, "ipv4", names, func(n Neighbor) bool { return n.V4 })
	frrFamily(b, r, "ipv6", names, func(n Neighbor) bool { return n.V6 })
	b.WriteString("exit\n")
}

func frrOptions(b *strings.Builder, name string, n Neighbor) {
	if n.Password {
		fmt.Fprintf(b, " neighbor %s password %s\n", name, password)
	}
	if n.BFD != nil {
		ms := n.BFD.Interval.Milliseconds()
		fmt.Fprintf(b, " neighbor %s bfd\n neighbor %s bfd %d %d %d\n", name, name, n.BFD.Multiplier, ms, ms)
	}
	if n.TTL > 0 {
		fmt.Fprintf(b, " neighbor %s ttl-security hops %d\n", name, n.TTL)
	}
}

func frrFamily(b *strings.Builder, r Router, family string, names []string, has func(Neighbor) bool) {
	var lines []string
	for i, name := range names {
		if has(r.Neighbors[min(i, len(r.Neighbors)-1)]) {
			lines = append(lines, fmt.Sprintf("  neighbor %s activate\n  neighbor %s route-map MUSLIN-IN in\n  neighbor %s route-map MUSLIN-OUT out\n  neighbor %s maximum-prefix %d\n", name, name, name, name, r.Limit))
		}
	}
	if len(lines) > 0 {
		fmt.Fprintf(b, " address-family %s unicast\n  maximum-paths 64\n%s exit-address-family\n", family, strings.Join(lines, ""))
	}
}
