package nft

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nstest"
)

// many gives the host prefixes of every second address: no two make an interval.
func many(from string, n int) []netip.Prefix {
	var out []netip.Prefix
	for a := netip.MustParseAddr(from); len(out) < n; a = a.Next().Next() {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out
}

// TestTenThousandElements has more elements in a set than one netlink attribute
// of 64 KiB holds: every one is there, in sets that are written with the table and
// in those that change by themselves.
func TestTenThousandElements(t *testing.T) {
	const n, nets = 10_000, 2_000 // the kernel is slow with the latter
	rules := felix.Ruleset{
		NAT:         felix.NAT{Sources: prefixes("10.0.0.0/8", "fd00::/8"), Exclude: append(many("10.0.0.0", n), many("fd00::", n)...)},
		Tunnels:     felix.TunnelGuard{IPIP: true},
		SourceCheck: felix.SourceCheck{Prefix: "cali", ToHost: "Accept", BGPPort: 179},
	}
	for _, p := range rules.NAT.Exclude {
		rules.Tunnels.Nodes = append(rules.Tunnels.Nodes, p.Addr())
	}
	few := rules
	for i := range n {
		pod := felix.PodSource{Interface: fmt.Sprintf("cali%06d", i), Sources: []netip.Prefix{rules.NAT.Exclude[i], rules.NAT.Exclude[n+i]}, Speaks: true}
		if i < nets {
			pod.Sources = append(pod.Sources, netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/24", i/250, i%250)))
		}
		rules.SourceCheck.Pods = append(rules.SourceCheck.Pods, pod)
	}
	few.SourceCheck.Pods = rules.SourceCheck.Pods[:1]
	ns := nstest.New(t)
	r := open(t, ns)
	for _, step := range []struct {
		name  string
		rules felix.Ruleset
		pods  int
	}{{"with the table", rules, n}, {"removed", few, 1}, {"added", rules, n}} {
		apply(t, r, step.rules)
		for set, want := range map[string]int{
			"nodes4": n, "nodes6": n, "nat-not4": n, "nat-not6": n,
			"pod-source4": step.pods, "pod-source6": step.pods, "pod-source-net4": min(step.pods, nets), "pod-speakers": step.pods,
		} {
			text := ns.Run("nft", "-n", "list", "set", "inet", felix.TableName, set)
			_, elements, _ := strings.Cut(text, "elements = {")
			if got := strings.Count(elements, ",") + 1; got != want {
				t.Errorf("%s: set %s has %d elements, want %d", step.name, set, got, want)
			}
		}
	}
	fresh := open(t, ns)
	apply(t, fresh, rules)
	if s := fresh.Stats(); s.Replaced != 0 || s.Elements != 0 {
		t.Errorf("a fresh process finds it other than wanted: %+v", s)
	}
}
