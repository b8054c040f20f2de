package nft

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
)

const (
	chainGeneration = "generation"
	chainFromPod    = "from-pod"
	chainToNode     = "from-pod-to-node"
	chainTunnelled  = "tunnelled"
)

// program is a Ruleset in the library's words.
type program struct {
	table  *nftables.Table
	sets   []*set
	chains []*chain
}

type set struct {
	*nftables.Set
	elements []nftables.SetElement
	// live sets change element by element, the others as a whole.
	live bool
}

type chain struct {
	*nftables.Chain
	rules  []*nftables.Rule
	digest string // of the rules
}

// compile turns rules into a program. It is the twin of felix.Ruleset.String:
// the tests load both and compare what the kernel then lists.
func compile(r felix.Ruleset) (*program, error) {
	p := &program{table: &nftables.Table{Family: nftables.TableFamilyINet, Name: felix.TableName}}
	p.natSets(r.NAT)
	p.podSets(r.Spoofing)
	p.nodeSets(r.Tunnels)
	p.serviceSets(r.Services)
	p.floatingSets(r.Floating)
	p.fromPod(r)
	p.input(r)
	p.services(r.Services)
	p.floating(r.Floating)
	p.postrouting(r)
	g := p.chain(chainGeneration, nil)
	g.rules = append(g.rules, &nftables.Rule{
		Exprs:    []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}},
		UserData: userdata.AppendString(nil, userdata.TypeComment, p.schema()),
	})
	return p, p.mark()
}

// typeMark is the kind of user data that a rule's mark is. nft knows comments
// (0) and leaves what it does not know alone.
const typeMark userdata.Type = 0x6d

// mark signs each rule with the digest of its chain and its place, so that one
// that somebody else wrote in its stead is seen, and one that another version of
// ours wrote otherwise.
func (p *program) mark() error {
	for _, c := range p.chains {
		if err := c.sign(); err != nil {
			return fmt.Errorf("chain %s: %w", c.Name, err)
		}
	}
	return nil
}

// sign takes the digest over what is written.
func (c *chain) sign() error {
	sum := sha256.New()
	for _, rule := range c.rules {
		for _, e := range rule.Exprs {
			b, err := expr.Marshal(byte(nftables.TableFamilyINet), e)
			if err != nil {
				return err
			}
			fmt.Fprintf(sum, "%d %s", len(b), b)
		}
		fmt.Fprintf(sum, "rule %d %s", len(rule.UserData), rule.UserData)
	}
	c.digest = hex.EncodeToString(sum.Sum(nil)[:8])
	for i, rule := range c.rules {
		rule.UserData = userdata.Append(rule.UserData, typeMark, []byte(c.digest+" "+strconv.Itoa(i)))
	}
	return nil
}

// schema is a digest of what kinds of sets there are, without their elements: a
// set cannot be changed, only made anew with all that refers to it.
func (p *program) schema() string {
	sum := sha256.New()
	for _, s := range p.sets {
		fmt.Fprintf(sum, "%q %s %s %t %t %t\n", s.Name, s.KeyType.Name, s.DataType.Name, s.IsMap, s.Interval, s.Concatenation)
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

func (p *program) chain(name string, base *nftables.Chain) *chain {
	c := &chain{Chain: &nftables.Chain{Name: name, Table: p.table}}
	if base != nil {
		c.Type, c.Hooknum, c.Priority, c.Policy = base.Type, base.Hooknum, base.Priority, base.Policy
	}
	p.chains = append(p.chains, c)
	return c
}

func base(kind nftables.ChainType, hook *nftables.ChainHook, priority int32) *nftables.Chain {
	accept := nftables.ChainPolicyAccept
	return &nftables.Chain{Type: kind, Hooknum: hook, Priority: nftables.ChainPriorityRef(nftables.ChainPriority(priority)), Policy: &accept}
}

func (c *chain) add(exprs ...[]expr.Any) {
	c.rules = append(c.rules, &nftables.Rule{Exprs: slices.Concat(exprs...)})
}

func (p *program) set(name string, kind nftables.SetDatatype, interval, live bool, elements []nftables.SetElement) {
	var order binaryutil.ByteOrder // for nft, which lists names backwards without
	if kind.Name == nftables.TypeIFName.Name {
		order = binaryutil.NativeEndian
	}
	p.sets = append(p.sets, &set{
		Set: &nftables.Set{
			Table: p.table, Name: name, KeyType: kind, KeyByteOrder: order, Interval: interval,
			Concatenation: strings.Contains(kind.Name, "."),
		},
		elements: elements, live: live,
	})
}

func (p *program) find(name string) *nftables.Set {
	for _, s := range p.sets {
		if s.Name == name {
			return s.Set
		}
	}
	return nil
}

func (p *program) natSets(n felix.NAT) {
	from4, from6 := felix.ByFamily(n.Sources)
	to4, to6 := felix.ByFamily(n.Exclude)
	if len(from4) > 0 {
		p.set("nat-from4", nftables.TypeIPAddr, true, false, ranges(from4))
		p.set("nat-not4", nftables.TypeIPAddr, true, false, ranges(to4))
	}
	if len(from6) > 0 {
		p.set("nat-from6", nftables.TypeIP6Addr, true, false, ranges(from6))
		p.set("nat-not6", nftables.TypeIP6Addr, true, false, ranges(to6))
	}
}

// ranges gives the half-open intervals of sorted, disjoint prefixes.
func ranges(in []netip.Prefix) []nftables.SetElement {
	var out []nftables.SetElement
	for _, p := range in {
		out = append(out, nftables.SetElement{Key: p.Masked().Addr().AsSlice()})
		if next := last(p).Next(); next.IsValid() {
			out = append(out, nftables.SetElement{Key: next.AsSlice(), IntervalEnd: true})
		}
	}
	return out
}

// last is the highest address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (p *program) podSets(s felix.Spoofing) {
	if s.Prefix == "" {
		return
	}
	for _, v4 := range []bool{true, false} {
		var one, net []nftables.SetElement
		for _, pod := range s.Pods {
			for _, src := range pod.Sources {
				if src.Addr().Is4() != v4 {
					continue
				}
				if src.IsSingleIP() {
					one = append(one, nftables.SetElement{Key: podKey(pod.Interface, src.Addr())})
				} else {
					net = append(net, nftables.SetElement{
						Key: podKey(pod.Interface, src.Addr()), KeyEnd: podKey(pod.Interface, last(src)),
					})
				}
			}
		}
		kind, suffix := nftables.TypeIPAddr, "4"
		if !v4 {
			kind, suffix = nftables.TypeIP6Addr, "6"
		}
		key := nftables.MustConcatSetType(nftables.TypeIFName, kind)
		p.set("pod-source"+suffix, key, false, true, one)
		p.set("pod-source-net"+suffix, key, true, true, net)
	}
	var speakers []nftables.SetElement
	for _, pod := range s.Pods {
		if pod.Speaks {
			speakers = append(speakers, nftables.SetElement{Key: name16(pod.Interface)})
		}
	}
	p.set("pod-speakers", nftables.TypeIFName, false, true, speakers)
}

func podKey(iface string, a netip.Addr) []byte { return append(name16(iface), a.AsSlice()...) }

func name16(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

func (p *program) nodeSets(g felix.TunnelGuard) {
	if !g.Any() {
		return
	}
	var v4, v6 []nftables.SetElement
	for _, a := range g.Nodes {
		e := nftables.SetElement{Key: a.AsSlice()}
		if a.Is4() {
			v4 = append(v4, e)
		} else {
			v6 = append(v6, e)
		}
	}
	p.set("nodes4", nftables.TypeIPAddr, false, false, v4)
	p.set("nodes6", nftables.TypeIP6Addr, false, false, v6)
	out4, out6 := felix.ByFamily(g.External)
	if len(out4) > 0 {
		p.set("external4", nftables.TypeIPAddr, true, false, ranges(out4))
	}
	if len(out6) > 0 {
		p.set("external6", nftables.TypeIP6Addr, true, false, ranges(out6))
	}
}

// fromStranger matches sources that are neither nodes nor allowed beside them.
func (p *program) fromStranger(g felix.TunnelGuard, v4 bool) []expr.Any {
	suffix := "6"
	out4, external := felix.ByFamily(g.External)
	if v4 {
		suffix, external = "4", out4
	}
	match := slices.Concat(source(v4), p.lookup("nodes"+suffix, true))
	if len(external) > 0 {
		match = slices.Concat(match, source(v4), p.lookup("external"+suffix, true))
	}
	return match
}

func (p *program) fromPod(r felix.Ruleset) {
	s := r.Spoofing
	if s.Prefix == "" {
		return
	}
	in := p.chain("prerouting", base(nftables.ChainTypeFilter, nftables.ChainHookPrerouting, felix.PriorityPods))
	for _, prefix := range s.Prefixes() {
		in.add(fromInterface(prefix), to(expr.VerdictGoto, chainFromPod))
	}
	c := p.chain(chainFromPod, nil)
	accept, drop := verdict(expr.VerdictAccept), verdict(expr.VerdictDrop)
	if s.NoVXLAN {
		for _, port := range r.Tunnels.VXLANPorts {
			c.add(isPort(felix.Port{Protocol: "udp", Port: port}), drop)
		}
	}
	if s.NoIPIP {
		c.add(isIPIP(), drop)
	}
	c.add(isICMP(), icmpType(icmpRedirect), count(), drop)
	c.add(isIPv4(), interfaceAndSource(true), p.lookup("pod-source4", false), accept)
	c.add(isIPv6(), interfaceAndSource(false), p.lookup("pod-source6", false), accept)
	c.add(isICMPv6(), icmpType(ndRouterAdvert), count(), drop)
	c.add(isICMPv6(), icmpType(ndRedirect), count(), drop)
	c.add(isIPv6(), source(false), equal(make([]byte, 16)), accept)
	c.add(isIPv6(), source(false), linkLocal(), accept)
	c.add(isIPv4(), interfaceAndSource(true), p.lookup("pod-source-net4", false), accept)
	c.add(isIPv6(), interfaceAndSource(false), p.lookup("pod-source-net6", false), accept)
	c.add(count(), drop)
}

func (p *program) input(r felix.Ruleset) {
	s := r.Spoofing
	pods := s.Prefix != ""
	if !pods && !r.Tunnels.Any() {
		return
	}
	c := p.chain("input", base(nftables.ChainTypeFilter, nftables.ChainHookInput, felix.PriorityFilter))
	for _, port := range r.Tunnels.VXLANPorts {
		c.add(isPort(felix.Port{Protocol: "udp", Port: port}), to(expr.VerdictJump, chainTunnelled))
	}
	if r.Tunnels.IPIP {
		c.add(isIPIP(), to(expr.VerdictJump, chainTunnelled))
	}
	if pods {
		for _, prefix := range s.Prefixes() {
			c.add(fromInterface(prefix), to(expr.VerdictGoto, chainToNode))
		}
		p.toNode(s)
	}
	if r.Tunnels.Any() {
		c, drop := p.chain(chainTunnelled, nil), verdict(expr.VerdictDrop)
		c.add(isIPv4(), p.fromStranger(r.Tunnels, true), drop)
		c.add(isIPv6(), p.fromStranger(r.Tunnels, false), drop)
	}
}

func (p *program) toNode(s felix.Spoofing) {
	c := p.chain(chainToNode, nil)
	accept, drop := verdict(expr.VerdictAccept), verdict(expr.VerdictDrop)
	for _, port := range s.SpeakersPorts() {
		c.add(isPort(port), meta(expr.MetaKeyIIFNAME), p.lookup("pod-speakers", true), count(), drop)
	}
	if s.ToHost != "Drop" {
		return
	}
	c.add(establishedOrRelated(), accept)
	c.add(isICMPv6(), icmpTypes(ndRouterSolicit, ndNeighborAdvert), accept)
	for _, port := range s.SpeakersPorts() {
		c.add(isPort(port), accept)
	}
	c.add(count(), drop)
}

func (p *program) serviceSets(g felix.ServiceGuard) {
	v4, v6 := felix.ByFamily(g.Ranges)
	if len(v4) > 0 {
		p.set("services4", nftables.TypeIPAddr, true, false, ranges(v4))
	}
	if len(v6) > 0 {
		p.set("services6", nftables.TypeIP6Addr, true, false, ranges(v6))
	}
}

func (p *program) services(g felix.ServiceGuard) {
	v4, v6 := felix.ByFamily(g.Ranges)
	if len(v4)+len(v6) == 0 {
		return
	}
	// A chain of the type nat is passed by the first packet of a connection
	// alone. It cannot reject.
	var c *chain
	from, end := forwarded(), verdict(expr.VerdictDrop)
	if g.Reject {
		c = p.chain("forward", base(nftables.ChainTypeFilter, nftables.ChainHookForward, felix.PriorityFilter))
		c.add(establishedOrRelated(), verdict(expr.VerdictAccept))
		from, end = nil, []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
	} else {
		c = p.chain("services", base(nftables.ChainTypeNAT, nftables.ChainHookPostrouting, felix.PriorityServices))
	}
	if len(v4) > 0 {
		c.add(from, isIPv4(), destination(true), p.lookup("services4", false), end)
	}
	if len(v6) > 0 {
		c.add(from, isIPv6(), destination(false), p.lookup("services6", false), end)
	}
}

func (p *program) postrouting(r felix.Ruleset) {
	n := r.NAT
	from4, from6 := felix.ByFamily(n.Sources)
	if len(from4)+len(from6) == 0 && !r.Floating.Enabled {
		return
	}
	c := p.chain("postrouting", base(nftables.ChainTypeNAT, nftables.ChainHookPostrouting, felix.PriorityNAT))
	if r.Floating.Enabled {
		p.floatingSelf(c)
	}
	if len(from4) > 0 {
		p.masquerade(c, n, true)
	}
	if len(from6) > 0 {
		p.masquerade(c, n, false)
	}
}

func (p *program) masquerade(c *chain, n felix.NAT, v4 bool) {
	proto, suffix := isIPv6(), "6"
	if v4 {
		proto, suffix = isIPv4(), "4"
	}
	match := slices.Concat(toInterface(n.Interface), proto, source(v4), p.lookup("nat-from"+suffix, false),
		destination(v4), p.lookup("nat-not"+suffix, true))
	address := netip.Addr{}
	if n.Address.IsValid() && n.Address.Is4() == v4 {
		address = n.Address
	}
	if n.PortMin > 0 {
		for _, l4 := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			c.add(match, isL4(l4), translate(address, n.PortMin, n.PortMax))
		}
	}
	c.add(match, translate(address, 0, 0))
}
