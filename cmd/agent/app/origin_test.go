package app

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
)

func receivedFrom(prefix, nextHop string) model.Learned {
	a := netip.MustParseAddr(nextHop)
	return model.Learned{Prefix: netip.MustParsePrefix(prefix), Multipath: &model.Multipath{NextHops: []netip.Addr{a}, From: []netip.Addr{a}}}
}

func blocksOf(owned ...string) kube.Blocks { // prefix, node, prefix, node…
	b := kube.Blocks{Listed: true}
	for i := 0; i < len(owned); i += 2 {
		b.List = append(b.List, model.Block{CIDR: netip.MustParsePrefix(owned[i]), Node: model.NodeName(owned[i+1]), State: model.BlockConfirmed})
	}
	return b
}

func clusterWith(mode bgp.OriginMode) model.Snapshot {
	return model.Snapshot{
		BGP:   []model.BGPConfiguration{{Name: "default", Annotations: map[string]string{bgp.AnnotationOriginCheck: string(mode)}}},
		Pools: []model.Pool{{CIDR: netip.MustParsePrefix("10.244.0.0/16")}},
		Nodes: []model.Node{{Name: "n2", IPv4: netip.MustParsePrefix("192.0.2.2/24")}},
	}
}

func texts(learned []model.Learned, _ time.Duration) string {
	out := ""
	for _, l := range learned {
		out += l.Prefix.String() + " "
	}
	return out
}

func TestOriginStandsBetweenSpeakerAndKernel(t *testing.T) {
	good, bad, outside := receivedFrom("10.244.2.0/26", "192.0.2.2"), receivedFrom("10.244.9.0/26", "192.0.2.254"), receivedFrom("203.0.113.0/24", "192.0.2.254")
	now := time.Unix(1000, 0)
	o := newOrigin(slog.New(slog.DiscardHandler))
	expect := func(when, want string, standing int, total uint64) {
		t.Helper()
		if got := texts(o.pass(o.view.Value(), []model.Learned{good, bad, outside}, now)); got != want {
			t.Errorf("%s: passes %s, want %s", when, got, want)
		}
		if s := o.status(); s.Standing != standing || s.Total[bgp.ReasonNoBlock] != total {
			t.Errorf("%s: %d stand, %v in total, want %d and %d", when, s.Standing, s.Total, standing, total)
		}
	}
	const all, confirmed = "10.244.2.0/26 10.244.9.0/26 203.0.113.0/24 ", "10.244.2.0/26 203.0.113.0/24 "
	known := blocksOf("10.244.2.0/26", "n2")

	o.learn(clusterWith(bgp.OriginOff), "n1", nil, kube.Blocks{})
	expect("off", all, 0, 0)
	o.learn(clusterWith(bgp.OriginWarn), "n1", nil, known)
	expect("warn", all, 0, 0)
	now = now.Add(bgp.RefusalGrace)
	expect("warn, after a while", all, 1, 1)
	now = now.Add(time.Hour)
	expect("warn, long after", all, 1, 1)

	// Turned on before the blocks are known: what is installed stays.
	o.learn(clusterWith(bgp.OriginEnforce), "n1", nil, kube.Blocks{})
	expect("enforce, blocks not known", all, 0, 1)
	if !o.status().Waiting {
		t.Error("the status does not say that blocks are waited for")
	}
	stale := known
	stale.Stale = true
	o.learn(clusterWith(bgp.OriginEnforce), "n1", nil, stale)
	expect("enforce, server out of reach", all, 0, 1)
	o.learn(clusterWith(bgp.OriginEnforce), "n1", nil, known)
	expect("enforce", confirmed, 0, 1)
	now = now.Add(bgp.RefusalGrace)
	expect("enforce, after a while", confirmed, 1, 2)

	// What is new while the server cannot be reached has nothing to lose.
	o.learn(clusterWith(bgp.OriginEnforce), "n1", nil, stale)
	expect("refused before, server out of reach", confirmed, 1, 2)

	o.learn(clusterWith(bgp.OriginOff), "n1", nil, kube.Blocks{})
	expect("off again", all, 0, 2)
}

// A node's own blocks come from its allocator; what the server still says of
// them does not count.
func TestOriginKnowsOwnBlocksBest(t *testing.T) {
	o := newOrigin(slog.New(slog.DiscardHandler))
	own := []model.Block{{CIDR: netip.MustParsePrefix("10.244.1.0/26"), Node: "n1"}}
	o.learn(clusterWith(bgp.OriginEnforce), "n1", own, blocksOf("10.244.2.0/26", "n1"))
	got := texts(o.pass(o.view.Value(), []model.Learned{receivedFrom("10.244.1.0/26", "192.0.2.2"), receivedFrom("10.244.2.0/26", "192.0.2.254")}, time.Now()))
	if got != "" {
		t.Errorf("passes %s: the first is this node's own block, the second no longer is one", got)
	}
}
