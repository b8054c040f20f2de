package policynft

import (
	"maps"
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

// AcceptedMark is the bit of a packet's mark that says, from the hooks before until
// input or output, that a policy of host endpoints has let it pass: Calico's bit of its
// default mask. It is taken off there.
const AcceptedMark = 0x10000

// priorityPreDNAT is that of the hook before services are resolved: mangle.
const priorityPreDNAT = -150

// Prefixes of the ids of chains at hooks that are not the filter's.
const (
	preDNATChain      = "pi-"
	untrackedInChain  = "ui-"
	untrackedOutChain = "ue-"
)

// of gives the dispatch of one hook by interface, if any host endpoint has a chain
// there: its chain is jumped to, and returns for pods, the loopback, and what is open.
func (t *table) hostDispatch(name string, hosts map[string]policy.Host, prefixes []string, key expr.MetaKey, of func(policy.Host) policy.ChainID) bool {
	if !slices.ContainsFunc(slices.Collect(maps.Values(hosts)), func(h policy.Host) bool { return of(h) != "" }) {
		return false
	}
	through := func(link string) []expr.Any {
		data := nftw.InterfaceName(link)
		if start, wild := strings.CutSuffix(link, "*"); wild {
			data = []byte(start)
		}
		return append(nftw.Meta(key), nftw.Equal(data)...)
	}
	lead := func(id policy.ChainID) []expr.Any {
		if id == "" {
			return nftw.Verdict(expr.VerdictReturn)
		}
		return nftw.To(expr.VerdictGoto, string(id))
	}
	c := t.Chain(name, nil)
	for _, prefix := range prefixes {
		c.Add(through(prefix+"*"), nftw.Verdict(expr.VerdictReturn))
	}
	c.Add(through("lo"), nftw.Verdict(expr.VerdictReturn))
	for _, link := range slices.Sorted(maps.Keys(hosts)) {
		if link != model.AnyInterface {
			c.Add(through(link), lead(of(hosts[link])))
		}
	}
	if any, there := hosts[model.AnyInterface]; there {
		c.Add(lead(of(any)))
	}
	return true
}

// hostsBefore adds the hooks at which host endpoints are evaluated before connections are
// known, and before services are resolved.
func (t *table) hostsBefore(hosts map[string]policy.Host, prefixes []string) {
	if t.hostDispatch("host-untracked-in", hosts, prefixes, expr.MetaKeyIIFNAME, func(h policy.Host) policy.ChainID { return h.UntrackedIn }) {
		t.Chain("untracked-in", nftw.Base(nftables.ChainTypeFilter, nftables.ChainHookPrerouting, felix.PriorityPods)).
			Add(nftw.To(expr.VerdictJump, "host-untracked-in"))
	}
	if t.hostDispatch("host-untracked-out", hosts, prefixes, expr.MetaKeyOIFNAME, func(h policy.Host) policy.ChainID { return h.UntrackedOut }) {
		t.Chain("untracked-out", nftw.Base(nftables.ChainTypeFilter, nftables.ChainHookOutput, felix.PriorityPods)).
			Add(nftw.To(expr.VerdictJump, "host-untracked-out"))
	}
	if t.hostDispatch("host-pre-dnat", hosts, prefixes, expr.MetaKeyIIFNAME, func(h policy.Host) policy.ChainID { return h.PreDNAT }) {
		c := t.Chain("pre-dnat", nftw.Base(nftables.ChainTypeFilter, nftables.ChainHookPrerouting, priorityPreDNAT))
		c.Add(marked(), nftw.Verdict(expr.VerdictAccept))
		c.Add(nftw.EstablishedOrRelated(), nftw.Verdict(expr.VerdictAccept))
		c.Add(nftw.To(expr.VerdictJump, "host-pre-dnat"))
	}
}

// hostsIn adds what the filter asks of host endpoints before it asks of pods.
func (t *table) hostsIn(hosts map[string]policy.Host, prefixes []string, input, forward *nftw.Chain) {
	if len(hosts) == 0 {
		return
	}
	accept := nftw.Verdict(expr.VerdictAccept)
	input.Add(marked(), setMark(0), accept)
	forward.Add(marked(), setMark(0))
	if t.hostDispatch("host-forward-in", hosts, prefixes, expr.MetaKeyIIFNAME, func(h policy.Host) policy.ChainID { return h.ForwardIn }) {
		forward.Add(nftw.To(expr.VerdictJump, "host-forward-in"))
	}
	if t.hostDispatch("host-input", hosts, prefixes, expr.MetaKeyIIFNAME, func(h policy.Host) policy.ChainID { return h.Input }) {
		input.Add(nftw.To(expr.VerdictJump, "host-input"))
	}
}

// hostsOut adds what it asks of them at the end.
func (t *table) hostsOut(hosts map[string]policy.Host, prefixes []string, forward *nftw.Chain) {
	if t.hostDispatch("host-forward-out", hosts, prefixes, expr.MetaKeyOIFNAME, func(h policy.Host) policy.ChainID { return h.ForwardOut }) {
		forward.Add(nftw.To(expr.VerdictJump, "host-forward-out"))
	}
	evaluated := t.hostDispatch("host-output", hosts, prefixes, expr.MetaKeyOIFNAME, func(h policy.Host) policy.ChainID { return h.Output })
	if !evaluated && !slices.ContainsFunc(slices.Collect(maps.Values(hosts)), func(h policy.Host) bool { return h.UntrackedOut != "" }) {
		return
	}
	output := t.Chain("output", nftw.Base(nftables.ChainTypeFilter, nftables.ChainHookOutput, felix.PriorityFilter))
	output.Add(nftw.EstablishedOrRelated(), nftw.Verdict(expr.VerdictAccept))
	output.Add(marked(), setMark(0), nftw.Verdict(expr.VerdictAccept))
	if evaluated {
		output.Add(nftw.To(expr.VerdictJump, "host-output"))
	}
}

// letPass is what a rule does that allows: pods' packets go on to the next chain, and
// so do those of host endpoints in the filter; before it they are marked.
func letPass(id policy.ChainID) []expr.Any {
	before := slices.Concat(setMark(AcceptedMark), nftw.Verdict(expr.VerdictAccept))
	switch text := string(id); {
	case strings.HasPrefix(text, untrackedInChain), strings.HasPrefix(text, untrackedOutChain):
		return append([]expr.Any{&expr.Notrack{}}, before...)
	case strings.HasPrefix(text, preDNATChain):
		return before
	}
	return nftw.Verdict(expr.VerdictReturn)
}

// marked matches packets that have AcceptedMark.
func marked() []expr.Any {
	return append(nftw.Meta(expr.MetaKeyMARK),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(AcceptedMark), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)})
}

// setMark sets AcceptedMark to a value, and leaves the other bits of the mark.
func setMark(value uint32) []expr.Any {
	return append(nftw.Meta(expr.MetaKeyMARK),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(^uint32(AcceptedMark)), Xor: binaryutil.NativeEndian.PutUint32(value)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1})
}
