package policynft

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/model"
)

// others are tables that are not ours, one of them of our name in another family.
const others = `table ip muslin-policy { set s { type ipv4_addr; elements = { 192.0.2.1 }; }; chain c { type filter hook forward priority 0; ip saddr @s counter drop; }; }
table inet other { map to { type ifname : verdict; elements = { "cali0" : accept }; }; chain forward { type filter hook forward priority 0; oifname vmap @to; }; }`

// TestForeignChanges changes the table a hundred times as others might, in random places. Each time all is as it was
// before, and tables of others stay. It tells how long that took, from before nft was run.
func TestForeignChanges(t *testing.T) {
	n := newNode(t)
	n.ns.Run("nft", others)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.sink.Run(ctx) }()
	<-n.sink.Ready()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	from := n.hosts[2].addrs[0]
	p := program(map[string]policy.Endpoint{"cali0": {Ingress: "i-0"}, "cali1": {Ingress: "i-1"}, "cali2": {}}, []policy.Set{
		{ID: "a-0", Kind: policy.Addresses, Addresses: model.SortedOf([]netip.Addr{from, n.hosts[1].addrs[0]})},
		{ID: "n-0", Kind: policy.Nets, Nets: model.SortedOf([]policy.Range{{First: from, Last: from}})},
	},
		chain("i-0", policy.Rule{Source: policy.Side{In: []policy.SetID{"a-0"}}, Verdict: policy.Allow}),
		chain("i-1", policy.Rule{Source: policy.Side{In: []policy.SetID{"n-0"}}, Verdict: policy.Allow}))
	n.apply(t, p)
	want, foreign := n.listed(), n.ns.Run("nft", "list", "table", "inet", "other")+n.ns.Run("nft", "list", "table", "ip", TableName)
	var took []time.Duration
	const changes = 100
	for i := range changes {
		text := n.foreign(i)
		began := time.Now()
		n.ns.Run("nft", text)
		<-n.sink.Changed()
		n.apply(t, p)
		took = append(took, time.Since(began))
		if now := n.listed(); !slices.Equal(now, want) {
			t.Fatalf("after %q the table is\n%s\nwant\n%s", text, now, want)
		}
	}
	slices.Sort(took)
	t.Logf("%d changes: repaired after %s p50, %s p99, %s at most", changes, took[changes/2], took[changes-2], took[changes-1])
	if now := n.ns.Run("nft", "list", "table", "inet", "other") + n.ns.Run("nft", "list", "table", "ip", TableName); now != foreign {
		t.Errorf("tables of others were\n%sand are\n%s", foreign, now)
	}
}

// listed gives the words of the table in order: chains that are written anew may stand elsewhere.
func (n *node) listed() []string {
	out := strings.FieldsFunc(n.ns.Run("nft", "-s", "list", "table", "inet", TableName), func(r rune) bool { return strings.ContainsRune("\n\t,={}", r) })
	for i := range out {
		out[i] = strings.TrimSpace(out[i])
	}
	slices.Sort(out)
	return out
}

// foreign is a change that leaves the table another.
func (n *node) foreign(i int) string {
	one := func(of ...string) string { return of[rand.IntN(len(of))] }
	chain := one("forward", "input", fromPod, toPod, "i-0", "i-1", "generation")
	switch i % 7 {
	case 0:
		return "delete table inet " + TableName
	case 1:
		return "flush chain inet " + TableName + " " + chain
	case 2:
		return "insert rule inet " + TableName + " " + chain + " counter accept"
	case 3:
		return "flush " + one("set inet "+TableName+" a-04", "set inet "+TableName+" n-04", "map inet "+TableName+" to", "map inet "+TableName+" from")
	case 4:
		return fmt.Sprintf("add set inet %s foreign { type ipv4_addr; elements = { 192.0.2.1 }; }; add chain inet %[1]s foreign { counter drop; }", TableName)
	case 5:
		return fmt.Sprintf(`add element inet %s to { "cali%d" : accept }`, TableName, i+3)
	}
	_, rules, _ := strings.Cut(n.ns.Run("nft", "-sa", "list", "chain", "inet", TableName, chain), "chain "+chain)
	handles := strings.Split(rules, "# handle ")[2:] // after that of the chain
	handle, _, _ := strings.Cut(handles[rand.IntN(len(handles))], "\n")
	return "delete rule inet " + TableName + " " + chain + " handle " + handle
}
