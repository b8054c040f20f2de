package nft

import (
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables/expr"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nstest"
)

func mustCompile(t *testing.T, rules felix.Ruleset) *program {
	t.Helper()
	p, err := compile(rules)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestDigestIsOverWhatIsWritten changes one expression of one chain, as another
// version of the compiler would: the chain is another one, and no other is.
func TestDigestIsOverWhatIsWritten(t *testing.T) {
	rules := rulesets()["all"]
	before, after := mustCompile(t, rules), mustCompile(t, rules)
	for c := range after.Chains.All() {
		was, _ := before.Chains.Get(c)
		if c.Digest() != was.Digest() {
			t.Fatalf("chain %s is another one each time", c.Name)
		}
		if c.Name != chainFromPod {
			continue
		}
		last := c.Rules[len(c.Rules)-1]
		last.Exprs[len(last.Exprs)-1] = &expr.Verdict{Kind: expr.VerdictAccept}
		if err := c.Sign(); err != nil {
			t.Fatal(err)
		}
		if c.Digest() == was.Digest() {
			t.Error("a verdict makes no difference")
		}
	}
}

var handle = regexp.MustCompile(`# handle \d+`)

// handles are those of each chain's rules: a rule that is written anew gets
// another.
func handles(t *testing.T, ns *nstest.NS) map[string]string {
	t.Helper()
	out := map[string]string{}
	chain := ""
	for line := range strings.Lines(ns.Run("nft", "-a", "list", "table", "inet", felix.TableName)) {
		if _, rest, ok := strings.Cut(line, "\tchain "); ok {
			chain, _, _ = strings.Cut(rest, " ")
		} else if strings.HasPrefix(line, "\t\t") && chain != "" {
			out[chain] += handle.FindString(line)
		}
	}
	return out
}

// TestOnlyWhatChangedIsWritten goes from one ruleset to others: chains that are
// the same keep their rules, and a change of elements alone writes no chain.
func TestOnlyWhatChangedIsWritten(t *testing.T) {
	base := rulesets()["all"]
	base.SourceCheck.BGPPort = 179
	for _, c := range []struct {
		name   string
		change func(*felix.Ruleset)
		chains []string // that are written
	}{
		{"ports of the NAT", func(r *felix.Ruleset) { r.NAT.PortMin, r.NAT.PortMax = 1000, 2000 }, []string{"postrouting"}},
		{"port of BGP", func(r *felix.Ruleset) { r.SourceCheck.BGPPort = 1790 }, []string{"from-pod-to-node"}},
		{"pods may send to the node", func(r *felix.Ruleset) { r.SourceCheck.ToHost = "Accept" }, []string{"from-pod-to-node"}},
		{"a node more", func(r *felix.Ruleset) {
			r.Tunnels.Nodes = append(slices.Clone(r.Tunnels.Nodes), netip.MustParseAddr("10.0.0.9"))
		}, nil},
		{"a pool more", func(r *felix.Ruleset) { r.NAT.Exclude = append(slices.Clone(r.NAT.Exclude), prefixes("fd66::/48")...) }, nil},
		{"tunnels of the other kind", func(r *felix.Ruleset) { r.Tunnels.IPIP = true }, []string{"input"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ns, scratch := nstest.New(t), nstest.New(t)
			r := open(t, ns)
			apply(t, r, base)
			before := handles(t, ns)
			rules := base
			c.change(&rules)
			apply(t, r, rules)
			var written []string
			for _, chain := range slices.Sorted(maps.Keys(before)) {
				if handles(t, ns)[chain] != before[chain] {
					written = append(written, chain)
				}
			}
			if !slices.Equal(written, c.chains) || r.Stats().Replaced != 1 {
				t.Errorf("chains %v are written, want %v; %+v", written, c.chains, r.Stats())
			}
			apply(t, open(t, scratch), rules)
			if a, b := list(ns), list(scratch); a != b {
				t.Errorf("not what a table from scratch is:\n%s\n%s", a, b)
			}
			fresh := open(t, ns)
			apply(t, fresh, rules)
			if s := fresh.Stats(); s.Replaced+s.Chains+s.Elements != 0 {
				t.Errorf("a fresh process writes: %+v", s)
			}
		})
	}
}
