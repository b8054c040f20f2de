package app

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

// Nodes a and b exist; x does not.
func TestFateOf(t *testing.T) {
	type owner = map[string]string
	pod := func(node, name string) owner { return owner{"node": node, "namespace": "default", "pod": name} }
	mine, other := ip("10.0.0.5"), ip("10.0.0.9")
	for name, c := range map[string]struct {
		owner, alternate owner
		noHandle         bool
		pods             map[string]podFacts
		want             fate
	}{
		// The node lives.
		"pod has it":                       {owner: pod("a", "db"), pods: map[string]podFacts{"db": {node: "a", ips: mine}}, want: kept},
		"pod is gone":                      {owner: pod("a", "db"), want: leaked},
		"pod has finished":                 {owner: pod("a", "db"), pods: map[string]podFacts{"db": {node: "a", ips: mine, finished: true}}, want: leaked},
		"another pod has it":               {owner: pod("a", "db"), pods: map[string]podFacts{"web": {node: "b", ips: mine}}, want: kept},
		"another, finished pod had it":     {owner: pod("a", "db"), pods: map[string]podFacts{"web": {node: "b", ips: mine, finished: true}}, want: leaked},
		"pod was made anew elsewhere":      {owner: pod("a", "db"), pods: map[string]podFacts{"db": {node: "b"}}, want: leaked},
		"and asks for it":                  {owner: pod("a", "db"), pods: map[string]podFacts{"db": {node: "b", asks: mine}}, want: awaited},
		"and asks for it, its last word":   {owner: pod("a", "db"), pods: map[string]podFacts{"db": {node: "b", asks: mine, finished: true}}, want: leaked},
		"and asks, and the one before has": {owner: pod("a", "db"), pods: map[string]podFacts{"db": {node: "b", asks: mine}, "x": {node: "a", ips: mine}}, want: kept},
		"and asks for another":             {owner: pod("a", "db"), pods: map[string]podFacts{"db": {node: "b", asks: other}}, want: leaked},
		"and asks, not scheduled yet":      {owner: pod("a", "db"), pods: map[string]podFacts{"db": {asks: mine}}, want: kept},
		"and asks, on the same node":       {owner: pod("a", "db"), pods: map[string]podFacts{"db": {node: "a", asks: mine}}, want: kept},
		"on the host's network by now":     {owner: pod("a", "db"), pods: map[string]podFacts{"db": {node: "a", host: true}}, want: leaked},
		"has others":                       {owner: pod("a", "db"), pods: map[string]podFacts{"db": {node: "a", ips: other}}, want: leaked},
		"alternate owner has it":           {owner: pod("a", "db"), alternate: pod("b", "next"), pods: map[string]podFacts{"next": {node: "b"}}, want: kept},
		"a tunnel":                         {owner: owner{"node": "a"}, want: kept},
		"no handle":                        {owner: pod("a", "db"), noHandle: true, want: kept},
		"no owner":                         {want: kept},

		// The node was deleted, renamed, or has never existed.
		"node gone, pod is there":                  {owner: pod("x", "db"), pods: map[string]podFacts{"db": {node: "x", ips: mine}}, want: kept},
		"node gone, pod has no address yet":        {owner: pod("x", "db"), pods: map[string]podFacts{"db": {node: "x"}}, want: kept},
		"node gone, pod has finished":              {owner: pod("x", "db"), pods: map[string]podFacts{"db": {node: "x", ips: mine, finished: true}}, want: left},
		"node gone, pod too":                       {owner: pod("x", "db"), want: left},
		"node gone, pod too, others are there":     {owner: pod("x", "db"), pods: map[string]podFacts{"web": {node: "x", ips: other}}, want: left},
		"node gone, pod elsewhere":                 {owner: pod("x", "db"), pods: map[string]podFacts{"db": {node: "b", ips: other}}, want: left},
		"node gone, pod elsewhere waits for it":    {owner: pod("x", "db"), pods: map[string]podFacts{"db": {node: "b", asks: mine}}, want: awaited},
		"node gone, a pod elsewhere has it":        {owner: pod("x", "db"), pods: map[string]podFacts{"web": {node: "b", ips: mine}}, want: kept},
		"node gone, alternate owner lives":         {owner: pod("x", "db"), alternate: pod("b", "next"), pods: map[string]podFacts{"next": {node: "b", ips: mine}}, want: kept},
		"node gone, a tunnel":                      {owner: owner{"node": "x"}, want: left},
		"node gone, a tunnel, pods are there":      {owner: owner{"node": "x"}, pods: map[string]podFacts{"web": {node: "x"}}, want: kept},
		"node gone, a tunnel, of hostNetwork only": {owner: owner{"node": "x"}, pods: map[string]podFacts{"proxy": {node: "x", host: true, ips: other}}, want: left},
		"node gone, no handle":                     {owner: pod("x", "db"), noHandle: true, want: left},
		"node gone, no handle, pod is there":       {owner: pod("x", "db"), noHandle: true, pods: map[string]podFacts{"db": {node: "x", ips: mine}}, want: kept},
	} {
		t.Run(name, func(t *testing.T) {
			a := ipam.Allocation{Addr: mine[0]}
			a.Handle, a.Owner, a.Alternate = "net.1", c.owner, c.alternate
			if c.noHandle {
				a.Handle = ""
			}
			if got := cluster(c.pods).fateOf(a); got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
		})
	}
}

// story plays judge over surveys of what a node x, deleted at the start, held,
// with what is due taken away after each. It gives "<minutes>: <what went>".
type story struct {
	t      *testing.T
	blocks map[string][]address // of node x, by prefix
	claims []model.Block
	memory memory
	at     time.Duration
	log    []string
}

func (s *story) survey(after time.Duration, w world) {
	s.t.Helper()
	s.at += after
	w.claims = s.claims
	var blocks []*ipam.Block
	for _, cidr := range slices.Sorted(maps.Keys(s.blocks)) {
		blocks = append(blocks, blockOf(s.t, cidr, "x", s.blocks[cidr]...))
	}
	var due verdicts
	s.memory, due = evaluate(s.memory, surveyOf(w, blocks...), w, nil, now.Add(s.at), patient)
	var went []string
	for _, h := range due.handles {
		for _, l := range h {
			went = append(went, l.alloc.Addr.String())
			cidr := l.cidr.String()
			s.blocks[cidr] = slices.DeleteFunc(s.blocks[cidr], func(a address) bool { return a.addr == l.alloc.Addr.String() })
		}
	}
	for _, b := range due.blocks {
		went = append(went, b.cidr.String())
		delete(s.blocks, b.cidr.String())
		s.claims = slices.DeleteFunc(s.claims, func(c model.Block) bool { return c.CIDR == b.cidr })
		s.memory.took(b, true, now.Add(s.at))
	}
	if len(went) > 0 {
		s.log = append(s.log, fmt.Sprintf("%.1f: %s", s.at.Minutes(), strings.Join(went, " ")))
	}
}

func TestDeletedNodesStory(t *testing.T) {
	const step = 30 * time.Second
	db, web := podFacts{node: "x", ips: ip("10.0.0.1")}, podFacts{node: "x", ips: ip("10.0.0.65")}
	both := map[string]podFacts{"db": db, "web": web}
	begin := func(t *testing.T) *story {
		return &story{t: t, blocks: map[string][]address{
			"10.0.0.0/26":  {{"10.0.0.1", "net.1", "x", "db"}, {"10.0.0.2", "vxlan-tunnel-addr-x", "x", ""}},
			"10.0.0.64/26": {{"10.0.0.65", "net.2", "x", "web"}},
		}}
	}
	play := func(s *story, times int, pods map[string]podFacts) {
		for range times {
			s.survey(step, cluster(pods))
		}
	}
	check := func(t *testing.T, s *story, want ...string) {
		t.Helper()
		if d := cmp.Diff(want, s.log); d != "" {
			t.Error(d)
		}
	}
	t.Run("pods stay: nothing goes", func(t *testing.T) {
		s := begin(t)
		play(s, 100, both)
		check(t, s)
	})
	t.Run("an address goes a minute after its pod, blocks and tunnel last", func(t *testing.T) {
		s := begin(t)
		play(s, 2, both)
		play(s, 10, map[string]podFacts{"web": web})
		check(t, s, "2.5: 10.0.0.1")
		play(s, 10, nil)
		check(t, s, "2.5: 10.0.0.1", "7.5: 10.0.0.65 10.0.0.2", "8.0: 10.0.0.0/26 10.0.0.64/26")
	})
	t.Run("the node comes back", func(t *testing.T) {
		s := begin(t)
		play(s, 2, nil)
		w := cluster(nil)
		w.nodes["x"] = nil
		s.survey(step, w) // its kubelet and its pods follow
		play(s, 100, both)
		check(t, s)
	})
	t.Run("an agent that lives on claims again: only once in a grace", func(t *testing.T) {
		s := &story{t: t, blocks: map[string][]address{"10.0.0.0/26": nil}}
		for range 60 {
			if len(s.blocks) == 0 {
				s.blocks["10.0.0.64/26"] = nil
			}
			s.survey(step, cluster(nil))
		}
		check(t, s, "1.5: 10.0.0.0/26", "12.0: 10.0.0.64/26", "22.5: 10.0.0.64/26")
	})
	t.Run("a claim without a block", func(t *testing.T) {
		s := &story{t: t, blocks: map[string][]address{}, claims: []model.Block{
			{CIDR: netip.MustParsePrefix("10.0.0.0/26"), Node: "x", State: model.BlockPending},
			{CIDR: netip.MustParsePrefix("10.0.0.64/26"), Node: "a", State: model.BlockPending},
		}}
		play(s, 4, nil)
		check(t, s, "1.5: 10.0.0.0/26")
	})
	t.Run("a borrower's address keeps no block", func(t *testing.T) {
		s := &story{t: t, blocks: map[string][]address{"10.0.0.0/26": {{"10.0.0.1", "net.9", "b", "guest"}}}}
		play(s, 4, map[string]podFacts{"guest": {node: "b", ips: ip("10.0.0.1")}})
		check(t, s, "1.5: 10.0.0.0/26")
	})
}

// An awaited address goes at the first sight, with what its pod had beside it.
func TestAwaitedGoesAtOnce(t *testing.T) {
	w := cluster(map[string]podFacts{"db": {node: "b", asks: ip("10.0.0.1")}})
	s := surveyOf(w, blockOf(t, "10.0.0.0/26", "a", address{"10.0.0.1", "net.1", "a", "db"}),
		blockOf(t, "fd00::/122", "a", address{"fd00::1", "net.1", "a", "db"}))
	if got, _, _ := due(s, w, nil); !slices.Equal(got, []string{"net.1"}) {
		t.Errorf("%v", got)
	}
}
