package bench

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/bgp/internal/bgptest"
)

const (
	idlePeers  = 4
	idleRoutes = 5000
	idleNodes  = 1000
	// idleSettle is how long the agent has to come to rest, idleFor how long it
	// is looked at.
	idleSettle = 20 * time.Second
	idleFor    = time.Minute
)

// BenchmarkIdle looks at an agent that has nothing to do: four sessions, 5,000
// routes in the kernel, 1,000 nodes in a real API server. In "apart" each peer
// announces a fourth of the routes, in "alike" each announces all, as two pairs of
// routers do. "cpu-%" is of one core.
func BenchmarkIdle(b *testing.B) {
	for _, name := range []string{"apart", "alike"} {
		b.Run(name, func(b *testing.B) {
			n := bgptest.New(b)
			var peers []*bgptest.Host
			for i := range idlePeers {
				peers = append(peers, n.Host(11+i))
			}
			links, r := idleAgent(b, n, peers)
			for i, w := range links {
				first, count := firstPrefix+i*idleRoutes/idlePeers, idleRoutes/idlePeers
				if name == "alike" {
					first, count = firstPrefix, idleRoutes
				}
				w.Send(bgptest.Announcements(first, count, []netip.Addr{netip.MustParseAddr(peers[i].V4)}))
			}
			r.until(b, time.Now(), idleRoutes)
			time.Sleep(idleSettle)
			for b.Loop() {
				cpu, start := r.cpu(b), time.Now()
				time.Sleep(idleFor)
				b.ReportMetric(100*(r.cpu(b)-cpu).Seconds()/time.Since(start).Seconds(), "cpu-%")
				b.ReportMetric(r.memory(b, "VmRSS"), "rss-MiB")
				b.ReportMetric(r.memory(b, "RssAnon"), "rss-anon-MiB")
				b.ReportMetric(r.memory(b, "VmHWM"), "peak-MiB")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// idleAgent starts an agent with a session to each peer.
func idleAgent(b *testing.B, n *bgptest.Net, peers []*bgptest.Host) ([]*bgptest.Wire, *receiver) {
	b.Helper()
	var objects strings.Builder
	fmt.Fprintf(&objects, convergeObjects, "10.9.0.2", peers[0].V4)
	for _, p := range peers[1:] {
		fmt.Fprintf(&objects, "---\napiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: %q}\nspec: {peerIP: %s, asNumber: 64512}\n", "peer-"+p.V4, p.V4)
	}
	for i := range idleNodes {
		fmt.Fprintf(&objects, "---\napiVersion: v1\nkind: Node\nmetadata: {name: node-%d, labels: {rack: r%d}, annotations: {projectcalico.org/IPv4Address: 10.%d.%d.7/24}}\n",
			i, i/20, 10+i>>8, i&0xff)
	}
	r := startAgent(b, n, 2, objects.String())
	var links []*bgptest.Wire
	for _, p := range peers {
		c, err := p.Listen().Accept()
		if err != nil {
			b.Fatal(err)
		}
		links = append(links, bgptest.Speak(b, c, 64512, p.V4))
		links[len(links)-1].Send(bgptest.EndOfRIB())
	}
	r.rest(b)
	r.empty = r.routes(b)
	return links, r
}
