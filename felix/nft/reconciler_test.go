package nft

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
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

// floating pairs floating addresses with pods'.
func floating(pairs ...string) felix.Floating {
	f := felix.Floating{Enabled: true}
	for _, p := range pairs {
		a, pod, _ := strings.Cut(p, " ")
		f.IPs = append(f.IPs, felix.FloatingIP{Address: netip.MustParseAddr(a), Pod: netip.MustParseAddr(pod)})
	}
	return f
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
	speaking := felix.SourceCheck{Prefix: "cali", ToHost: "Drop", BGPPort: 179, Pods: pods()}
	speaking.Pods[0].Speaks = true
	return map[string]felix.Ruleset{
		"empty":            {},
		"nat":              {NAT: nat},
		"nat v4":           {NAT: felix.NAT{Sources: prefixes("0.0.0.0/0"), Exclude: prefixes("255.0.0.0/8")}},
		"nat ports":        {NAT: ports},
		"nat address":      {NAT: address},
		"nat address6":     {NAT: address6},
		"no pods":          {SourceCheck: felix.SourceCheck{Prefix: "cali", ToHost: "Accept"}},
		"pods":             {SourceCheck: felix.SourceCheck{Prefix: "cali", ToHost: "Drop", Pods: pods()}},
		"pods of before":   {SourceCheck: felix.SourceCheck{Prefix: "pod", OtherPrefixes: []string{"cali", "x"}, ToHost: "Drop", Pods: pods()}},
		"speaking pods":    {SourceCheck: speaking},
		"floating":         {Floating: floating("10.99.0.1 10.65.0.1", "10.99.0.2 10.65.0.1", "fd99::1 fd65::1")},
		"floating, none":   {Floating: felix.Floating{Enabled: true}, NAT: nat},
		"services":         {Services: felix.ServiceGuard{Ranges: prefixes("10.96.0.0/12", "192.168.9.0/24", "fd96::/112")}},
		"services reject":  {Services: felix.ServiceGuard{Ranges: prefixes("10.96.0.0/12", "fd96::/112"), Reject: true}},
		"nat by interface": {NAT: felix.NAT{Sources: nat.Sources, Exclude: nat.Exclude, Interface: "eth*"}},
		"nat, one link":    {NAT: felix.NAT{Sources: nat.Sources, Exclude: nat.Exclude, Interface: "eth0", PortMin: 1024, PortMax: 2048}},
		"no tunnels from pods": {SourceCheck: felix.SourceCheck{Prefix: "cali", NoIPIP: true, NoVXLAN: true, Pods: pods()},
			Tunnels: felix.TunnelGuard{IPIP: true, VXLANPorts: []int{4789, 8472}, Nodes: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}},
		"external hosts": {Tunnels: felix.TunnelGuard{IPIP: true, VXLANPorts: []int{4789},
			Nodes: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, External: prefixes("10.8.0.0/24", "10.9.0.1/32", "fd08::/64")}},
		"tunnels": {Tunnels: felix.TunnelGuard{IPIP: true, VXLANPorts: []int{4789},
			Nodes: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}}},
		"all": {NAT: nat, Floating: floating("10.99.0.1 10.65.0.1"), SourceCheck: felix.SourceCheck{Prefix: "cali", ToHost: "Drop", Pods: pods()},
			Tunnels: felix.TunnelGuard{VXLANPorts: []int{4789}, Nodes: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}},
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

// list shows the table less the chain that only the reconciler writes, in order of the
// names of what is in it.
func list(ns *nstest.NS) string {
	text := strings.TrimSuffix(ns.Run("nft", "-nn", "list", "table", "inet", felix.TableName), "}\n")
	head, rest, _ := strings.Cut(text, "\n")
	parts := strings.Split(rest, "\n\n")
	for i := range parts {
		parts[i] = strings.TrimSuffix(parts[i], "\n")
	}
	parts = slices.DeleteFunc(parts, func(p string) bool { return strings.HasPrefix(p, "\tchain generation {") })
	slices.Sort(parts)
	return head + "\n" + strings.Join(parts, "\n\n") + "\n}\n"
}

// expressions are what the rules are made of, one a line, by their chains: nft's listing
// of rules does not show all of it. The chain that only the reconciler writes is left out.
func expressions(ns *nstest.NS) map[string][]string {
	out, chain := map[string][]string{}, ""
	for _, line := range strings.Split(ns.Run("nft", "--debug=netlink", "list", "table", "inet", felix.TableName), "\n") {
		if rule, ok := strings.CutPrefix(line, "inet "+felix.TableName+" "); ok {
			chain, _, _ = strings.Cut(rule, " ")
		}
		if strings.HasPrefix(line, "  [ ") && chain != "generation" {
			out[chain] = append(out[chain], line)
		}
	}
	return out
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
			if diff := cmp.Diff(expressions(theirs), expressions(ours)); diff != "" {
				t.Errorf("expressions that nft made of the text and ours differ (-text +ours):\n%s", diff)
			}
		})
	}
}

func TestAdoptionWritesNothing(t *testing.T) {
	ns := nstest.New(t)
	for name, rules := range rulesets() {
		apply(t, open(t, ns), rules)
		before := list(ns)
		fresh := open(t, ns)
		apply(t, fresh, rules)
		apply(t, fresh, rules)
		if s := fresh.Stats(); s.Replaced != 0 || s.Elements != 0 {
			t.Errorf("%s: a fresh process wrote what is there: %+v", name, s)
		}
		if diff := cmp.Diff(before, list(ns)); diff != "" {
			t.Errorf("%s: the table changed:\n%s", name, diff)
		}
	}
}

func TestPodsComeAndGoAsElements(t *testing.T) {
	ns := nstest.New(t)
	r := open(t, ns)
	rules := rulesets()["all"]
	apply(t, r, rules)
	for _, pods := range [][]felix.PodSource{
		pods()[:1],
		append(pods(), felix.PodSource{Interface: "cali0003", Sources: prefixes("10.65.0.3/32", "10.98.0.0/24")}),
		nil,
		pods(),
	} {
		rules.SourceCheck.Pods = pods
		apply(t, r, rules)
		other := nstest.New(t)
		apply(t, open(t, other), rules)
		if diff := cmp.Diff(list(other), list(ns)); diff != "" {
			t.Errorf("not what a table from scratch is:\n%s", diff)
		}
	}
	for _, f := range []felix.Floating{
		floating("10.99.0.1 10.65.0.2", "10.99.0.3 10.65.0.2", "fd99::1 fd65::1"), // moved, new
		floating("10.99.0.3 10.65.0.2"),
		floating(),
	} {
		rules.Floating = f
		apply(t, r, rules)
		other := nstest.New(t)
		apply(t, open(t, other), rules)
		if diff := cmp.Diff(list(other), list(ns)); diff != "" {
			t.Errorf("floating addresses: not what a table from scratch is:\n%s", diff)
		}
	}
	if s := r.Stats(); s.Replaced != 1 || s.Elements == 0 {
		t.Errorf("stats: %+v", s)
	}
}

func TestIncompleteRulesLeaveTheTable(t *testing.T) {
	ns := nstest.New(t)
	all := rulesets()["all"]
	if err := open(t, ns).Apply(context.Background(), felix.State{Rules: rulesets()["nat"]}); err != nil {
		t.Fatal(err)
	}
	if got := list(ns); !strings.Contains(got, "masquerade") {
		t.Errorf("where there is no table, the first one is written: %s", got)
	}
	apply(t, open(t, ns), all)
	before := list(ns)
	if err := open(t, ns).Apply(context.Background(), felix.State{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, list(ns)); diff != "" {
		t.Errorf("the table of an earlier process changed:\n%s", diff)
	}
}

func TestDriftIsRepaired(t *testing.T) {
	ns := nstest.New(t)
	ns.Run("nft", "add table inet other; add chain inet other c { type filter hook input priority 0; policy accept; }")
	r := open(t, ns)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	<-r.Ready()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	rules := rulesets()["all"]
	apply(t, r, rules)
	select {
	case <-r.Changed():
		t.Error("our own changes are taken for somebody else's")
	default:
	}
	want := list(ns)
	for _, spoil := range []string{
		"delete table inet muslin",
		"flush table inet muslin",
		"flush chain inet muslin postrouting",
		"flush set inet muslin nat-from4",
		"flush set inet muslin pod-source4",
		"add element inet muslin pod-source4 { \"cali9999\" . 10.1.1.1 }",
		"add element inet muslin nat-from4 { 172.16.0.0/12 }",
		"insert rule inet muslin prerouting drop",
		"chain inet muslin input { policy drop; }",
		"add chain inet muslin extra { type filter hook input priority 5; policy drop; }",
		"delete chain inet muslin input; add chain inet muslin input",
		"replace rule inet muslin generation handle $HANDLE drop",
		"flush ruleset",
	} {
		if strings.Contains(spoil, "$HANDLE") {
			text := ns.Run("nft", "-a", "list", "chain", "inet", "muslin", "generation")
			_, rest, _ := strings.Cut(text, "return comment")
			_, rest, _ = strings.Cut(rest, "# handle ")
			handle, _, _ := strings.Cut(rest, "\n")
			spoil = strings.Replace(spoil, "$HANDLE", handle, 1)
		}
		ns.Run("nft", spoil)
		<-r.Changed()
		apply(t, r, rules)
		if diff := cmp.Diff(want, list(ns)); diff != "" {
			t.Errorf("after %s (-want +got):\n%s", spoil, diff)
		}
	}
	ns.Run("nft", "add table inet other; add chain inet other d")
	ns.Run("nft", "flush chain inet muslin postrouting")
	<-r.Changed()
	apply(t, r, rules)
	if got := ns.Run("nft", "list", "tables"); !strings.Contains(got, "inet other") {
		t.Errorf("another tool's table is gone: %s", got)
	}
}

// world is a node with two pods, known and unknown, and a host outside.
type world struct{ node, known, unknown, outside *nstest.NS }

func newWorld(t *testing.T) world {
	w := world{nstest.New(t), nstest.New(t), nstest.New(t), nstest.New(t)}
	w.node.Run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
		"net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")
	w.node.Veth("eth0", w.outside, "eth0", []string{"192.168.7.1/24", "fd07::1/64"}, []string{"192.168.7.2/24", "fd07::2/64"})
	w.node.Veth("cali0001", w.known, "eth0", []string{"10.65.1.254/24", "fd65:0:0:1::254/64"}, []string{"10.65.1.1/24", "10.65.1.66/24", "fd65:0:0:1::1/64"})
	w.node.Veth("cali0002", w.unknown, "eth0", []string{"10.65.2.254/24"}, []string{"10.65.2.1/24"})
	w.known.IP("route add default via 10.65.1.254")
	w.known.IP("-6 route add default via fd65:0:0:1::254")
	w.unknown.IP("route add default via 10.65.2.254")
	return w
}

func (w world) rules() felix.Ruleset {
	return felix.Ruleset{
		NAT: felix.NAT{Sources: prefixes("10.65.0.0/16", "fd65::/48"), Exclude: prefixes("10.65.0.0/16", "fd65::/48")},
		SourceCheck: felix.SourceCheck{Prefix: "cali", ToHost: "Accept", Pods: []felix.PodSource{
			{Interface: "cali0001", Sources: prefixes("10.65.1.1/32", "fd65:0:0:1::1/128")},
		}},
	}
}

func pings(ns *nstest.NS, args ...string) bool {
	out, err := ns.Try("ping", append([]string{"-c", "1", "-W", "1"}, args...)...)
	if !strings.Contains(out, "packets transmitted") {
		panic(fmt.Sprintf("ping does not work here: %v", err))
	}
	return err == nil
}

func TestMasqueradeAndSourceCheck(t *testing.T) {
	w := newWorld(t)
	r := open(t, w.node)
	// The outside has no route to the pods: only a masqueraded packet is
	// answered.
	if pings(w.known, "192.168.7.2") {
		t.Fatal("the outside answers a pod without masquerading: the test proves nothing")
	}
	w.outside.IP("route add 10.65.2.0/24 via 192.168.7.1")
	if !pings(w.unknown, "192.168.7.2") {
		t.Fatal("the unknown pod is cut off without rules: the test proves nothing")
	}
	apply(t, r, w.rules())
	for _, c := range []struct {
		name string
		from *nstest.NS
		args []string
		want bool
	}{
		{"masqueraded", w.known, []string{"192.168.7.2"}, true},
		{"masqueraded IPv6", w.known, []string{"fd07::2"}, true},
		{"to the node", w.known, []string{"10.65.1.254"}, true},
		{"to the node, IPv6", w.known, []string{"fd65:0:0:1::254"}, true},
		{"with an address that is not the pod's", w.known, []string{"-I", "10.65.1.66", "192.168.7.2"}, false},
		{"with that address to the node", w.known, []string{"-I", "10.65.1.66", "10.65.1.254"}, false},
		{"from an unknown pod", w.unknown, []string{"192.168.7.2"}, false},
		{"from the node", w.node, []string{"192.168.7.2"}, true},
		{"from outside to the node", w.outside, []string{"192.168.7.1"}, true},
	} {
		if got := pings(c.from, c.args...); got != c.want {
			t.Errorf("%s: answered %t, want %t", c.name, got, c.want)
		}
	}
	rules := w.rules()
	rules.SourceCheck.Pods[0].Sources = prefixes("10.65.1.1/32", "10.65.1.64/26")
	apply(t, r, rules)
	if !pings(w.known, "-I", "10.65.1.66", "192.168.7.2") {
		t.Error("an allowed source prefix is dropped")
	}
	w.outside.IP("addr add 172.31.0.1/32 dev lo")
	w.node.IP("route add 172.31.0.0/24 via 192.168.7.2")
	if !pings(w.known, "172.31.0.1") {
		t.Fatal("the service range is not reached without a guard: the test proves nothing")
	}
	rules.Services.Ranges = prefixes("172.31.0.0/24")
	apply(t, r, rules)
	if pings(w.known, "172.31.0.1") {
		t.Error("a packet for a service range is sent on")
	}
	if !pings(w.node, "172.31.0.1") {
		t.Error("the node's own packet for a service range is dropped")
	}
	rules.Services.Reject = true
	apply(t, r, rules)
	if pings(w.known, "172.31.0.1") || !pings(w.node, "172.31.0.1") {
		t.Error("with Reject the pod's packet is sent on, or the node's is not")
	}
	rules.SourceCheck.ToHost = "Drop"
	apply(t, r, rules)
	if pings(w.known, "10.65.1.254") || !pings(w.known, "192.168.7.2") || !pings(w.node, "10.65.1.1") {
		t.Error("with Drop a pod may reach the outside and answer the node, and nothing else on the node")
	}
}
