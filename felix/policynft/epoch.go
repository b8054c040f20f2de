package policynft

import (
	"math/rand/v2"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"github.com/muslin-net/muslin/felix/internal/nftw"
	"github.com/muslin-net/muslin/felix/policy"
)

// Chains of epochs. No ChainID has these names. The number stands in rules, not in a set: the
// kernel takes all rules that a packet meets from before a transaction or all from behind it, so that
// none is stamped with the new number that met a rule, or an element, of before.
const (
	establishedChain = "established"
	stampChain       = "stamp"
)

// compileEpoch makes the chain that an established connection meets first, and the one that
// a packet comes to that all policy has let through. Of a connection that is not of the epoch the number goes, so
// that it never comes round to it; what its opener sends returns, to be evaluated.
func compileEpoch(mask, epoch uint32) (*table, error) {
	t := newTable(false)
	accept := nftw.Verdict(expr.VerdictAccept)
	c := t.Chain(establishedChain, nil)
	c.Add(nftw.ConnectionMark(epoch, mask), accept)
	c.Add(nftw.SetConnectionMark(0, mask))
	c.Add(nftw.Reply(), accept)
	c.Add(nftw.Expected(), accept)
	t.Chain(stampChain, nil).Add(nftw.SetConnectionMark(epoch, mask))
	return t, t.Sign()
}

// established adds what lets connections pass that are known: with epochs those of pods if they are of the
// epoch, all others as ever.
func established(mask uint32, prefixes []string, forward, input *nftw.Chain) {
	accept := nftw.Verdict(expr.VerdictAccept)
	if mask == 0 {
		forward.Add(nftw.EstablishedOrRelated(), accept)
		input.Add(nftw.EstablishedOrRelated(), accept)
		return
	}
	known, check := nftw.State(expr.CtStateBitESTABLISHED), nftw.To(expr.VerdictJump, establishedChain)
	forward.Add(known, check)
	others := nftw.Meta(expr.MetaKeyIIFNAME)
	for _, prefix := range prefixes {
		input.Add(nftw.FromInterface(prefix), known, check)
		others = append(others, nftw.Differs([]byte(prefix))...)
	}
	input.Add(others, known, accept)
	for _, c := range []*nftw.Chain{forward, input} {
		c.Add(nftw.State(expr.CtStateBitRELATED), accept)
	}
}

// stamp ends what established began.
func stamp(mask uint32, prefixes []string, forward, input *nftw.Chain) {
	if mask == 0 {
		return
	}
	forward.Add(nftw.To(expr.VerdictJump, stampChain))
	for _, prefix := range prefixes {
		input.Add(nftw.FromInterface(prefix), nftw.To(expr.VerdictJump, stampChain))
	}
}

// adoptEpoch takes over the number that the kernel stamps, or begins anywhere: connections may be left
// with the numbers of one that was there before.
func (s *Sink) adoptEpoch(mask uint32) error {
	if mask == 0 || s.memory.epoch != 0 && s.memory.epoch&^mask == 0 {
		return nil
	}
	rules, err := s.Rules(stampChain)
	if err != nil {
		return err
	}
	if s.memory.epoch = stamped(rules) & mask; s.memory.epoch == 0 {
		s.memory.epoch = policy.FirstEpoch(mask, rand.Uint32())
	}
	return nil
}

// stamped is the number that a chain stamps; 0: none.
func stamped(rules []*nftables.Rule) uint32 {
	for _, r := range rules {
		for _, e := range r.Exprs {
			if b, ok := e.(*expr.Bitwise); ok && len(b.Xor) == 4 {
				return binaryutil.NativeEndian.Uint32(b.Xor)
			}
		}
	}
	return 0
}

// renew begins another epoch if a change of the table may deny what was allowed: it gives the table with the new number.
func (m *memory) renew(c nftw.Change) (*nftw.Table, error) {
	if !m.tightens(c) {
		return nil, nil
	}
	m.epoch = policy.NextEpoch(m.program.EpochMask, m.epoch)
	part, err := compileEpoch(m.program.EpochMask, m.epoch)
	if err != nil {
		return nil, err
	}
	t, out := *m.table.Table, *m.table
	t.Chains = t.Chains.With(slices.Collect(part.Chains.All()), nil)
	out.Table = &t
	m.stamps, m.table = part, &out
	return &t, nil
}

// tightens is false of a change that only adds: pods, which had no connection before, and members of
// sets by which nothing is denied.
func (m *memory) tightens(c nftw.Change) bool {
	return c.Whole || len(c.Rewritten) > 0 || len(c.Less) > 0 ||
		slices.ContainsFunc(c.More, func(set string) bool { return m.narrows[set] > 0 })
}

// stamping gives the chains of epochs; nil: there are none.
func (m *memory) stamping(mask uint32) (*table, error) {
	switch {
	case mask == 0:
		return nil, nil
	case m.stamps != nil && mask == m.program.EpochMask:
		return m.stamps, nil
	}
	return compileEpoch(mask, m.epoch)
}
