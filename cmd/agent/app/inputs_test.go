package app

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
)

func closed(news []<-chan struct{}) bool {
	return slices.ContainsFunc(news, func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	})
}

// TestGatherMissesNothing: whatever input is another, who gathered hears of it; BGP
// hears of those alone that it is decided by.
func TestGatherMissesNothing(t *testing.T) {
	in := &inputs{
		node: "n1", read: func() {}, pods: &task.Cell[podSet]{}, podCIDRs: &task.Cell[[]netip.Prefix]{},
		saved: &task.Cell[*savedState]{}, origin: &task.Cell[originView]{},
	}
	addr, prefix := netip.MustParseAddr("10.0.0.1"), netip.MustParsePrefix("10.0.0.0/26")
	set := map[string]struct {
		bgp bool
		set func() bool
	}{
		"cluster":  {true, func() bool { return in.cluster.Set(cluster{Snapshot: model.Snapshot{Synced: true}}) }},
		"held":     {true, func() bool { return in.held.Set(holdings{blocks: []model.Block{{CIDR: prefix}}}) }},
		"host":     {true, func() bool { return in.host.Set(host{version: 1}) }},
		"floating": {true, func() bool { return in.floating.Set([]netip.Prefix{prefix}) }},
		"pods":     {true, func() bool { return in.pods.Set(podSet{rev: 1}) }},
		"podCIDRs": {true, func() bool { return in.podCIDRs.Set([]netip.Prefix{prefix}) }},
		"saved":    {true, func() bool { return in.saved.Set(&savedState{}) }},
		"rib":      {false, func() bool { return in.rib.Set(rib{version: 1}) }},
		"config":   {false, func() bool { return in.config.Set(&bgp.Config{}) }},
		"tunnels":  {false, func() bool { return in.tunnels.Set(felix.TunnelAddresses{IPIP: addr}) }},
		"origin":   {false, func() bool { return in.origin.Set(originView{listed: true}) }},
	}
	for f := range reflect.TypeFor[inputs]().Fields() {
		if !strings.Contains(f.Type.String(), "task.Cell[") {
			continue
		}
		s, known := set[f.Name]
		if !known {
			t.Errorf("%s is no input that this test knows", f.Name)
			continue
		}
		before := in.gather()
		if closed(before.all) {
			t.Fatalf("%s: news before there is any", f.Name)
		}
		if !s.set() || !closed(before.all) || closed(before.ofBGP) != s.bgp {
			t.Errorf("%s: all hear of it: %v, BGP does: %v", f.Name, closed(before.all), closed(before.ofBGP))
		}
	}
}

// TestGatherChooses: the state on disk is what is known while it is in force.
func TestGatherChooses(t *testing.T) {
	in := &inputs{
		node: "n1", read: func() {}, pods: &task.Cell[podSet]{}, podCIDRs: &task.Cell[[]netip.Prefix]{},
		saved: &task.Cell[*savedState]{}, origin: &task.Cell[originView]{},
	}
	block := func(text string) model.Block { return model.Block{CIDR: netip.MustParsePrefix(text), Node: "n1"} }
	in.pods.Set(podSet{1, []model.Endpoint{endpoint("a", "cali1", "10.0.9.1")}})
	in.held.Set(holdings{blocks: []model.Block{block("10.0.0.0/26")}, borrowed: []netip.Prefix{netip.MustParsePrefix("10.0.5.5/32")}})
	in.floating.Set([]netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")})
	in.podCIDRs.Set([]netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")})
	if s := in.gather().snapshot; len(s.Blocks) != 2 || len(s.Borrowed) != 2 || s.Blocks[1].Node != "n1" {
		t.Errorf("got %+v", s)
	}
	in.saved.Set(&savedState{Snapshot: model.Snapshot{Blocks: []model.Block{block("10.0.9.0/26"), block("10.0.8.0/26")}}})
	if s := in.gather().snapshot; len(s.Blocks) != 1 || s.Blocks[0] != block("10.0.9.0/26") || len(s.Borrowed) != 0 {
		t.Errorf("with the state on disk in force: %+v", s)
	}
	in.saved.Set(nil)
	if s := in.gather().snapshot; len(s.Blocks) != 2 {
		t.Errorf("once it is over: %+v", s)
	}
}
