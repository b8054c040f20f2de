package bgp

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// Well-known communities (IANA).
const (
	noExport          = "65535:65281" // RFC 1997
	noAdvertise       = "65535:65282" // RFC 1997
	noExportSubconfed = "65535:65283" // RFC 1997
)

// ParseCommunity brings a community into its one spelling: "aa:nn" with two
// 16 bit numbers (RFC 1997), or "aa:nn:mm" with three 32 bit numbers
// (RFC 8092).
func ParseCommunity(s string) (string, error) {
	parts := strings.Split(s, ":")
	bits := 16
	switch len(parts) {
	case 2:
	case 3:
		bits = 32
	default:
		return "", fmt.Errorf("%q is not a community: want aa:nn or aa:nn:mm", s)
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, bits)
		if err != nil {
			return "", fmt.Errorf("%q is not a community: %q is not a number of %d bits", s, p, bits)
		}
		parts[i] = strconv.FormatUint(n, 10)
	}
	return strings.Join(parts, ":"), nil
}

// IsLarge tells a large community from a plain one.
func IsLarge(community string) bool { return strings.Count(community, ":") == 2 }

// advertisements gives the rules of prefixAdvertisements: those of the node's
// own BGPConfiguration if it has any, else the cluster's.
func (b *builder) advertisements() []Rule {
	c := b.defaults
	if len(b.own.PrefixAdvertisements) > 0 {
		c = b.own
	}
	ref := model.Ref{Kind: "BGPConfiguration", Name: c.Name}
	var out []Rule
	for i, ad := range c.PrefixAdvertisements {
		field := fmt.Sprintf("spec.prefixAdvertisements[%d].communities", i)
		var values []string
		for _, s := range ad.Communities {
			if v, err := b.community(c, s); err != nil {
				b.problem(ref, field, "InvalidCommunity", "%s; it is left out", err)
			} else {
				values = append(values, v)
			}
		}
		if len(values) > 0 && ad.CIDR.IsValid() {
			out = append(out, Rule{
				From: fmt.Sprintf("prefixAdvertisements[%d]", i), Action: Continue,
				Match: Match{Prefixes: []PrefixRange{Inside(ad.CIDR.Masked())}}, Set: Set{Communities: values},
			})
		}
	}
	return out
}

// community resolves a name through spec.communities, or takes a value.
func (b *builder) community(c model.BGPConfiguration, s string) (string, error) {
	v, named := c.Communities[s]
	if !named {
		v, named = b.defaults.Communities[s]
	}
	if !named && !strings.Contains(s, ":") {
		return "", fmt.Errorf("no community is named %q", s)
	}
	if named {
		return ParseCommunity(v)
	}
	return ParseCommunity(s)
}
