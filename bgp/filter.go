package bgp

import (
	"fmt"
	"math"
	"net/netip"
	"path"

	"github.com/muslin-net/muslin/pkg/model"
)

// fromFilter begins Rule.From of what a BGPFilter says.
const fromFilter = "filter "

// filterRules translates the BGPFilters of a BGPPeer for one session and
// direction, in the order they are named. A rule that cannot be translated is
// a problem and left out; a filter that is missing is a problem, and the
// others are in force.
func (b *builder) filterRules(p Peer, o model.BGPPeer, d Direction) []Rule {
	var out []Rule
	for i, name := range o.Filters {
		f, ok := b.filters[name]
		if !ok {
			b.problem(peerRef(o), fmt.Sprintf("spec.filters[%d]", i), "FilterMissing", "there is no BGPFilter %s; the peer goes without it", name)
			continue
		}
		if f.Services != nil && d == Import {
			continue // it is about what this node announces
		}
		for _, l := range filterLists(f, d) {
			for j, r := range l.rules {
				field := fmt.Sprintf("%s[%d]", l.field, j)
				rules, err := b.filterRule(r, l.family, d, p)
				if err != nil {
					b.problem(model.Ref{Kind: "BGPFilter", Name: name}, "spec."+field, "InvalidRule", "%s; the rule is left out", err)
					continue
				}
				if f.Services != nil {
					rules = b.ofServices(rules, f, p, o)
				}
				for k := range rules {
					rules[k].From = fromFilter + name + " " + field
				}
				out = append(out, rules...)
			}
		}
	}
	return out
}

type filterList struct {
	field  string
	family model.Family
	rules  []model.FilterRule
}

func filterLists(f model.BGPFilter, d Direction) []filterList {
	if d == Import {
		return []filterList{{"importV4", model.IPv4, f.ImportV4}, {"importV6", model.IPv6, f.ImportV6}}
	}
	return []filterList{{"exportV4", model.IPv4, f.ExportV4}, {"exportV6", model.IPv6, f.ExportV6}}
}

// filterRule translates one rule; no rule at all means that it can never match
// on this session.
func (b *builder) filterRule(r model.FilterRule, f model.Family, d Direction, p Peer) ([]Rule, error) {
	switch r.PeerType {
	case "":
	case model.EBGP, model.IBGP:
		if (r.PeerType == model.EBGP) != p.External() {
			return nil, nil
		}
	default:
		return nil, fmt.Errorf("peerType %q is neither eBGP nor iBGP", r.PeerType)
	}
	m := Match{Family: f, ASPathPrefix: r.ASPathPrefix}
	switch r.Source {
	case "":
	case "RemotePeers":
		if d == Export { // whatever is imported comes from a peer
			m.Source = SourcePeers
		}
	default:
		return nil, fmt.Errorf("source %q is not RemotePeers", r.Source)
	}
	if err := prefixMatch(&m, r, f); err != nil {
		return nil, err
	}
	if err := attributeMatch(&m, r); err != nil {
		return nil, err
	}
	out := Rule{Match: m, Action: Reject}
	if r.Accept {
		out.Action = Accept
		if err := operations(&out.Set, r.Operations); err != nil {
			return nil, err
		}
	}
	if _, err := path.Match(r.Interface, ""); err != nil {
		return nil, fmt.Errorf("interface %q is not a name, in which * may stand for any text", r.Interface)
	}
	if r.Interface != "" {
		return b.onInterface(out, r.Interface, d, p), nil
	}
	return []Rule{out}, nil
}

func prefixMatch(m *Match, r model.FilterRule, f model.Family) error {
	if !r.CIDR.IsValid() {
		if r.MinLength != nil || r.MaxLength != nil {
			return fmt.Errorf("prefixLength needs a cidr")
		}
		return nil
	}
	if !f.Has(r.CIDR.Addr()) {
		return fmt.Errorf("cidr %s is not of family %s", r.CIDR, f)
	}
	cidr := netip.PrefixFrom(r.CIDR.Addr().Unmap(), r.CIDR.Bits()).Masked()
	rg := Inside(cidr)
	switch r.MatchOperator {
	case model.Equal, model.NotEqual:
		rg = Exactly(cidr)
	case model.In, model.NotIn:
		if r.MinLength != nil {
			rg.Min = *r.MinLength
		}
		if r.MaxLength != nil {
			rg.Max = *r.MaxLength
		}
		if rg.Min < 0 || rg.Max > cidr.Addr().BitLen() || rg.Min > rg.Max {
			return fmt.Errorf("prefixLength %d to %d is not a range within 0 and %d", rg.Min, rg.Max, cidr.Addr().BitLen())
		}
		rg.Min = max(rg.Min, cidr.Bits()) // nothing shorter lies in the cidr
	default:
		return fmt.Errorf("matchOperator %q is none of Equal, NotEqual, In, NotIn", r.MatchOperator)
	}
	m.Prefixes = []PrefixRange{rg}
	m.NotPrefixes = r.MatchOperator == model.NotEqual || r.MatchOperator == model.NotIn
	return nil
}

func attributeMatch(m *Match, r model.FilterRule) error {
	switch len(r.Communities) {
	case 0:
	case 1:
		c, err := ParseCommunity(r.Communities[0])
		if err != nil {
			return err
		}
		m.Community = c
	default:
		return fmt.Errorf("communities.values holds %d values; one is possible", len(r.Communities))
	}
	if r.Priority != nil {
		lp, err := priorityToLocalPref(*r.Priority)
		if err != nil {
			return err
		}
		m.LocalPref = &lp
	}
	return nil
}

func operations(s *Set, ops []model.FilterOperation) error {
	for _, op := range ops {
		switch {
		case op.AddCommunity != "":
			c, err := ParseCommunity(op.AddCommunity)
			if err != nil {
				return err
			}
			s.Communities = append(s.Communities, c)
		case len(op.PrependASPath) > 0:
			// each operation goes in front of what is there
			s.PrependASPath = append(append([]model.ASN{}, op.PrependASPath...), s.PrependASPath...)
		case op.SetPriority != nil:
			lp, err := priorityToLocalPref(*op.SetPriority)
			if err != nil {
				return err
			}
			s.LocalPref = &lp
		default:
			return fmt.Errorf("an operation says nothing")
		}
	}
	return nil
}

// priorityToLocalPref turns a kernel metric into the LOCAL_PREF Calico sends
// for it.
func priorityToLocalPref(priority int) (uint32, error) {
	if priority < 0 || priority > math.MaxInt32 {
		return 0, fmt.Errorf("priority %d is not within 0 and %d", priority, math.MaxInt32)
	}
	return uint32(maxLocalPref - priority), nil
}
