package app

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/muslin-net/muslin/bgp"
)

func TestCountRefused(t *testing.T) {
	refuse := func(prefix, from, reason string) bgp.Refusal {
		return bgp.Refusal{Prefix: prefixOf(prefix), From: addrOf(from), Reason: reason}
	}
	got := countRefused([]bgp.Refusal{
		refuse("10.0.0.0/8", "192.0.2.9", "martians"),
		refuse("127.0.0.0/8", "192.0.2.1", "martians"),
		refuse("10.1.0.0/26", "192.0.2.1", "as path loop"),
		refuse("224.0.0.0/4", "192.0.2.1", "martians"),
	})
	want := []RefusedCount{
		{addrOf("192.0.2.1"), "as path loop", 1}, {addrOf("192.0.2.1"), "martians", 2}, {addrOf("192.0.2.9"), "martians", 1},
	}
	if d := cmp.Diff(texted(want), texted(got)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func texted(list []RefusedCount) (out []string) {
	for _, r := range list {
		out = append(out, r.Peer.String()+" "+r.Reason+" "+string(rune('0'+r.Count)))
	}
	return out
}
