package bgp_test

import (
	"net/netip"
	"testing"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

// TestMisread: what no node can read is told without one; what one node can read and
// another cannot is left to them.
func TestMisread(t *testing.T) {
	for value, wrong := range map[[2]string]bool{
		{bgp.AnnotationSource, "fd00::1"}:           true, // of the other family
		{bgp.AnnotationSource, "192.0.2.300"}:       true,
		{bgp.AnnotationSource, "192.0.2.0/24"}:      false,
		{bgp.AnnotationMultihop, "300"}:             true,
		{bgp.AnnotationMultihop, "2"}:               false,
		{bgp.AnnotationConnect, "maybe"}:            true,
		{bgp.AnnotationConnectRetry, "-3s"}:         true,
		{bgp.AnnotationGracefulRestart, "maybe"}:    true,
		{bgp.AnnotationFamilies, "v5"}:              true,
		{bgp.AnnotationFamilies, "ipv6"}:            false,
		{bgp.AnnotationHoldTime, "1s"}:              true,
		{bgp.AnnotationReExport, "Some"}:            true,
		{bgp.AnnotationReExport, "All"}:             false,
		{"muslin.io/hold-tme", "9s"}:                true,
		{bgp.AnnotationPrefixLimit, "100"}:          false,
		{"example.com/" + bgp.AnnotationBFD, "300"}: false,
	} {
		peer := model.BGPPeer{Name: "p", Node: "n9", PeerIP: netip.MustParseAddr("192.0.2.1"), ASN: 65001, Annotations: map[string]string{value[0]: value[1]}}
		got := bgp.Misread(model.Snapshot{Peers: []model.BGPPeer{peer}})
		if len(got) > 1 || len(got) == 1 != wrong || wrong && got[0].Field != "metadata.annotations["+value[0]+"]" {
			t.Errorf("%s: %q: %v", value[0], value[1], got)
		}
	}
	config := model.BGPConfiguration{Name: "default", Annotations: map[string]string{
		bgp.AnnotationMaxPaths: "65", bgp.AnnotationCordoned: "Perhaps", bgp.AnnotationOriginCheck: "On", bgp.AnnotationHoldTime: "x",
	}}
	if got := bgp.Misread(model.Snapshot{BGP: []model.BGPConfiguration{config}}); len(got) != 4 {
		t.Errorf("of BGPConfiguration: %v", got)
	}
}
