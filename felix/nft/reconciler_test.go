package nft

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nstest"
)

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

func pods() []felix.PodSource {
	return []felix.PodSource{
		{Interface: "cali0001", Sources: prefixes("10.65.0.1/32", "10.99.0.0/24", "fd65::1/128", "fd99::/64")},
		{Interface: "cali0002", Sources: prefixes("10.65.0.2/32")},
	}
}

// rulesets are the shapes that a table can have.
func rulesets() map[string]felix.Ruleset {
	nat := felix.NAT{
		Sources: prefixes("10.65.0.0/16", "10.66.0.0/16", "fd65::/48"),
		Exclude: prefixes("10.65.0.0/16", "10.66.0.0/16", "10.70.0.0/16", "fd65::/48"),
	}
	ports, address, address6 := nat, nat, nat
	ports.PortMin, ports.PortMax = 10000, 20000
	address.Address = netip.MustParseAddr("192.168.7.7")
	address.PortMin, address.PortMax = 10000, 20000
	address6.Address = netip.MustParseAddr("fd00::7")
	return map[string]felix.Ruleset{
		"empty":        {},
		"nat":          {NAT: nat},
		"nat v4":       {NAT: felix.NAT{Sources: prefixes("0.0.0.0/0"), Exclude: prefixes("255.0.0.0/8")}},
		"nat ports":    {NAT: ports},
		"nat address":  {NAT: address},
		"nat address6": {NAT: address6},
		"no pods":      {Spoofing: felix.Spoofing{Prefix: "cali", ToHost: "Accept"}},
		"pods":         {Spoofing: felix.Spoofing{Prefix: "cali", ToHost: "Drop", Pods: pods()}},
		"tunnels": {Tunnels: felix.TunnelGuard{IPIP: true, VXLANPort: 4789,
			Nodes: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}}},
		"all": {NAT: nat, Spoofing: felix.Spoofing{Prefix: "cali", ToHost: "Drop", Pods: pods()},
			Tunnels: felix.TunnelGuard{VXLANPort: 4789, Nodes: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}},
	}
}

func open(t *testing.T, ns *nstest.NS) *Reconciler {
	t.Helper()
	r, err := New(Options{NetNS: ns.Path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func apply(t *testing.T, r *Reconciler, rules felix.Ruleset) {
	t.Helper()
	rules.Complete = true
	if err := r.Apply(context.Background(), felix.State{Rules: rules}); err != nil {
		t.Fatal(err)
	}
}

// list shows the table less the chain that only the reconciler writes.
func list(ns *nstest.NS) string {
	text := ns.Run("nft", "-nn", "list", "table", "inet", felix.TableName)
	before, rest, found := strings.Cut(text, "\tchain generation {")
	if !found {
		return text
	}
	_, after, _ := strings.Cut(rest, "\t}\n")
	if !strings.HasSuffix(before, "{\n") {
		before = strings.TrimSuffix(before, "\n")
	}
	return before + after
}

// TestTextAndKernelAgree loads each ruleset twice, by the reconciler and by nft
// from its text, and has nft list both.
func TestTextAndKernelAgree(t *testing.T) {
	for name, rules := range rulesets() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours, theirs := nstest.New(t), nstest.New(t)
			file := filepath.Join(t.TempDir(), "rules")
			if err := os.WriteFile(file, []byte(rules.String()), 0o600); err != nil {
				t.Fatal(err)
			}
			theirs.Run("nft", "-c", "-f", file)
			theirs.Run("nft", "-f", file)
			apply(t, open(t, ours), rules)
			if diff := cmp.Diff(list(theirs), list(ours)); diff != "" {
				t.Errorf("the text and what is in the kernel differ (-text +kernel):\n%s", diff)
			}
		})
	}
}
