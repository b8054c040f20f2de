package policynft

import (
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nftw"
	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/model"
)

// TableName is the table of this package.
const TableName = policy.TableName

// generation changes when chains or sets of one name are written otherwise than by
// an older version.
const generation = "1"

// Chains and maps of the dispatch. No ChainID has these names.
const (
	fromPod = "from"
	toPod   = "to"
)

// table is a Program in the library's words, or a part of it.
type table struct {
	*nftw.Table
	denials map[string]Denial // by what their log lines begin with
	discard bool              // the kernel cannot log
	narrows []string          // sets of which a member more may deny a packet
}

func newTable(discard bool) *table {
	return &table{Table: nftw.NewTable(TableName), denials: map[string]Denial{}, discard: discard}
}

// compileChain makes a chain of a Program, with the sets of ports and the chains that end what
// it denies.
func compileChain(chain policy.Chain, discard bool) (*table, error) {
	t := newTable(discard)
	c := t.Chain(string(chain.ID), nil)
	for _, r := range chain.Rules {
		t.rule(c, chain.ID, r)
	}
	for _, id := range chain.NarrowedBy() {
		t.narrows = append(t.narrows, setName(id, model.IPv4), setName(id, model.IPv6))
	}
	return t, t.Sign()
}

// dispatch adds the base chains and the maps from interfaces to chains.
func (t *table) dispatch(p policy.Program, prefixes []string) {
	endpoints := p.Endpoints
	var from, to []nftables.SetElement
	for _, name := range slices.Sorted(maps.Keys(endpoints)) {
		from = append(from, leadsTo(name, endpoints[name].Egress))
		to = append(to, leadsTo(name, endpoints[name].Ingress))
	}
	t.Map(fromPod, nftables.TypeIFName, nftables.TypeVerdict, from)
	t.Map(toPod, nftables.TypeIFName, nftables.TypeVerdict, to)
	accept, drop := nftw.Verdict(expr.VerdictAccept), nftw.Verdict(expr.VerdictDrop)
	forward := t.Chain("forward", nftw.Base(nftables.ChainTypeFilter, nftables.ChainHookForward, felix.PriorityFilter))
	input := t.Chain("input", nftw.Base(nftables.ChainTypeFilter, nftables.ChainHookInput, felix.PriorityFilter))
	established(p.EpochMask, prefixes, forward, input)
	t.hostsBefore(p.Hosts, prefixes)
	t.hostsIn(p.Hosts, prefixes, input, forward)
	for _, prefix := range prefixes {
		in, out := nftw.FromInterface(prefix), nftw.ToInterface(prefix+"*")
		forward.Add(in, nftw.Invalid(), nftw.Count(), drop)
		forward.Add(out, nftw.Invalid(), nftw.Count(), drop)
		forward.Add(in, nftw.To(expr.VerdictJump, fromPod))
		forward.Add(out, nftw.To(expr.VerdictJump, toPod))
		input.Add(in, nftw.IsICMPv6(), nftw.ICMPTypes(multicastQuery, routerSolicit), accept)
		input.Add(in, nftw.IsICMPv6(), nftw.ICMPTypes(neighborSolicit, neighborAdvert), accept)
		input.Add(in, nftw.To(expr.VerdictJump, fromPod))
	}
	t.hostsOut(p.Hosts, prefixes, forward)
	stamp(p.EpochMask, prefixes, forward, input)
	t.lookUp(fromPod, egress, expr.MetaKeyIIFNAME)
	t.lookUp(toPod, ingress, expr.MetaKeyOIFNAME)
}

// lookUp adds the chain that finds a pod's chain by its interface, and one that ends
// what is denied in that direction.
func (t *table) lookUp(name, direction string, key expr.MetaKey) {
	t.Chain(deniedPrefix+direction, nil).Add(nftw.Count(), nftw.Verdict(expr.VerdictDrop))
	c := t.Chain(name, nil)
	c.Add(nftw.Meta(key), t.Dispatch(name))
	t.deny(c, Denial{Direction: direction, By: unknownPod})
}

// Types of ICMPv6 (RFC 2710, RFC 4861).
const (
	multicastQuery  = 130
	routerSolicit   = 133
	neighborSolicit = 135
	neighborAdvert  = 136
)

func leadsTo(name string, id policy.ChainID) nftables.SetElement {
	v := &expr.Verdict{Kind: expr.VerdictReturn}
	if id != "" {
		v = &expr.Verdict{Kind: expr.VerdictGoto, Chain: string(id)}
	}
	return nftables.SetElement{Key: nftw.InterfaceName(name), VerdictData: v}
}

// rule adds what a Rule needs: one of nft's for each IP version that it asks
// addresses of.
func (t *table) rule(c *nftw.Chain, id policy.ChainID, r policy.Rule) {
	verdict := t.verdict(id, r)
	if verdict == nil {
		return
	}
	families := []model.Family{r.Family}
	if r.Family == 0 && len(r.Source.In)+len(r.Source.NotIn)+len(r.Destination.In)+len(r.Destination.NotIn) > 0 {
		families = model.Families[:]
	}
	for _, family := range families {
		common := slices.Concat(protocol(r, family), t.side(r.Source, family, true), t.side(r.Destination, family, false))
		c.AddCommented(comment(r.Origin.String()), common, verdict)
	}
}

// comment is text as nft can read it again.
func comment(text string) string { return strings.ReplaceAll(text, `"`, "'") }

// verdict is nil where a rule would only log, and the kernel cannot.
func (t *table) verdict(id policy.ChainID, r policy.Rule) []expr.Any {
	direction := directionOf(id)
	switch r.Verdict {
	case policy.Allow:
		return letPass(id)
	case policy.Continue:
		return nftw.Verdict(expr.VerdictReturn)
	case policy.Pass:
		return nftw.To(expr.VerdictGoto, string(r.Next))
	case policy.Log:
		if t.discard {
			return nil
		}
		return append(nftw.AtMost(logRate, logBurst), nftw.Log(prefix("muslin-policy "+direction+" "+r.Origin.String(), ": "))...)
	}
	return nftw.To(expr.VerdictGoto, t.denial(Denial{Direction: direction, By: r.Origin.String()}))
}

// protocol matches what of a rule is about neither end alone.
func protocol(r policy.Rule, family model.Family) []expr.Any {
	var out []expr.Any
	if family != 0 {
		out = nftw.Is(family)
	}
	if r.Protocol != 0 {
		out = append(out, nftw.IsL4(r.Protocol)...)
	}
	if r.NotProtocol != 0 {
		out = append(out, nftw.Meta(expr.MetaKeyL4PROTO)...)
		out = append(out, nftw.Differs([]byte{r.NotProtocol})...)
	}
	out = append(out, icmp(r.ICMP, nftw.Equal)...)
	return append(out, icmp(r.NotICMP, nftw.Differs)...)
}

// icmp compares the type, or both bytes of type and code at once.
func icmp(m policy.ICMP, compare func([]byte) []expr.Any) []expr.Any {
	if !m.Set {
		return nil
	}
	data := []byte{m.Type, m.Code}
	if !m.HasCode {
		data = data[:1]
	}
	return append(nftw.Payload(expr.PayloadBaseTransportHeader, 0, uint32(len(data))), compare(data)...)
}

// side matches the sets of one end, and its port.
func (t *table) side(s policy.Side, family model.Family, source bool) []expr.Any {
	var out []expr.Any
	for _, id := range s.In {
		out = append(out, t.member(id, family, source, false)...)
	}
	for _, id := range s.NotIn {
		out = append(out, t.member(id, family, source, true)...)
	}
	out = append(out, t.ports(s.NotPorts, source, true)...)
	return append(out, t.ports(s.Ports, source, false)...)
}

// member looks the address of one end up in a set, with protocol and port where it
// is a set of ports.
func (t *table) member(id policy.SetID, family model.Family, source, invert bool) []expr.Any {
	name := setName(id, family)
	if !strings.HasPrefix(string(id), "p-") {
		load := nftw.Destination(family)
		if source {
			load = nftw.Source(family)
		}
		return append(load, t.Lookup(name, 1, invert)...)
	}
	return append(nftw.AddressProtocolPort(family, source), t.Lookup(name, nftw.FirstWord, invert)...)
}

func setName(id policy.SetID, f model.Family) string { return string(id) + string('0'+rune(f)) }

// ports matches the port of one end: one range by itself, several as a set.
func (t *table) ports(ranges []policy.PortRange, source, invert bool) []expr.Any {
	if len(ranges) == 0 {
		return nil
	}
	if len(ranges) > 1 {
		return append(port(source), t.Lookup(t.portSet(ranges), 1, invert)...)
	}
	op := expr.CmpOpEq
	if invert {
		op = expr.CmpOpNeq
	}
	first, last := number(ranges[0].First), number(ranges[0].Last)
	if ranges[0].First == ranges[0].Last {
		return append(port(source), &expr.Cmp{Op: op, Register: 1, Data: first})
	}
	return append(port(source), &expr.Range{Op: op, Register: 1, FromData: first, ToData: last})
}

// longestPorts is how long the name of a set of ports gets that is made of them.
const longestPorts = 40

// portSet adds the set of some ranges, if no rule before asked for it, and gives its
// name: what it holds, or a hash of that.
func (t *table) portSet(ranges []policy.PortRange) string {
	var elements []nftables.SetElement
	texts := make([]string, len(ranges))
	for i, r := range ranges {
		texts[i] = r.String()
		elements = append(elements, nftables.SetElement{Key: number(r.First)})
		if r.Last < math.MaxUint16 {
			elements = append(elements, nftables.SetElement{Key: number(r.Last + 1), IntervalEnd: true})
		}
	}
	text := strings.Join(texts, ".")
	if len(text) > longestPorts {
		text = digest(text)
	}
	name := "ports-" + text
	t.Set(name, nftables.TypeInetService, true, elements)
	return name
}

func port(source bool) []expr.Any {
	if source {
		return nftw.Payload(expr.PayloadBaseTransportHeader, 0, 2)
	}
	return nftw.Payload(expr.PayloadBaseTransportHeader, 2, 2)
}

func number(port uint16) []byte { return binaryutil.BigEndian.PutUint16(port) }
