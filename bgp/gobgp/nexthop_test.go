package gobgp

import (
	"testing"

	"github.com/muslin-net/muslin/bgp/internal/bgptest"
)

// IPv4 routes over an IPv6 session, with IPv6 next hops where the peer sends
// them (RFC 8950).
func TestIPv4OverIPv6(t *testing.T) {
	n := bgptest.New(t)
	a, b := n.Host(1), n.Host(2)
	bird := b.StartBIRD(`protocol static { ipv4; route 10.244.50.0/26 blackhole; }
protocol static { ipv6; route fd44:50::/64 blackhole; }
protocol bgp node { local fd09::2 as 65001; neighbor fd09::1 as 64512; connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv4 { extended next hop on; import all; export all; }; ipv6 { import all; export all; }; }
`)
	s := startSpeaker(t, a, "")
	s.apply(desired(t, withPeer(clusterOf(a), b.V6, 65001)))
	s.established(b.V6)
	bgptest.Eventually(t, "learned", bgptest.Contains(s.learned, "10.244.50.0/26 via [fd09::2]", "fd44:50::/64 via [fd09::2]"))
	bgptest.Eventually(t, "told", bgptest.Contains(bird.Routes, own, "BGP.next_hop: 10.9.0.1", "fd44::40/122", "BGP.next_hop: fd09::1"))
}
