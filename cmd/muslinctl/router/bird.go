package router

import (
	"fmt"
	"net/netip"
	"strings"
)

// bird is for BIRD 2.
func bird(r Router) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# router %s, AS %s: sessions with %d node(s); BIRD 2\nrouter id %s;\nprotocol device {}\n", r.Address, r.ASN, len(r.Neighbors), r.ID)
	var v4, v6 bool
	for _, n := range r.Neighbors {
		v4, v6 = v4 || n.V4, v6 || n.V6
	}
	if v4 {
		b.WriteString("protocol kernel muslin_kernel4 { ipv4 { export all; }; merge paths yes; }\n")
	}
	if v6 {
		b.WriteString("protocol kernel muslin_kernel6 { ipv6 { export all; }; merge paths yes; }\n")
	}
	b.WriteString("filter muslin_in {\n")
	for _, ps := range [][]netip.Prefix{r.v4(), r.v6()} {
		for _, p := range ps {
			fmt.Fprintf(&b, "\tif net ~ %s then accept;\n", p)
		}
	}
	b.WriteString("\treject;\n}\n")
	if r.Listen.IsValid() && len(r.Neighbors) > 0 {
		n := r.Neighbors[0]
		fmt.Fprintf(&b, "protocol bgp muslin_nodes {\n\tlocal %s as %s;\n\tneighbor range %s as %s;\n\tdynamic name \"muslin_node\";\n", n.Local, r.ASN, r.Listen, n.ASN)
		birdOptions(&b, r, n)
		return b.String()
	}
	for i, n := range r.Neighbors {
		fmt.Fprintf(&b, "protocol bgp muslin_%d {\n\tdescription \"%s\";\n\tlocal %s as %s;\n\tneighbor %s port %d as %s;\n", i+1, n.Name, n.Local, r.ASN, n.Address, n.Port, n.ASN)
		birdOptions(&b, r, n)
	}
	return b.String()
}

func birdOptions(b *strings.Builder, r Router, n Neighbor) {
	if n.Password {
		fmt.Fprintf(b, "\tpassword \"%s\";\n", password)
	}
	if n.TTL > 0 {
		fmt.Fprintf(b, "\tmultihop %d;\n\tttl security on;\n", n.TTL)
	}
	if n.BFD != nil {
		fmt.Fprintf(b, "\tbfd { interval %d ms; multiplier %d; };\n", n.BFD.Interval.Milliseconds(), n.BFD.Multiplier)
	}
	b.WriteString("\tgraceful restart on;\n")
	for _, f := range []struct {
		name string
		on   bool
	}{{"ipv4", n.V4}, {"ipv6", n.V6}} {
		if f.on {
			fmt.Fprintf(b, "\t%s { import filter muslin_in; export all; import limit %d action restart; };\n", f.name, r.Limit)
		}
	}
	b.WriteString("}\n")
	if n.BFD != nil && !strings.Contains(b.String(), "protocol bfd") {
		b.WriteString("protocol bfd {}\n")
	}
}
