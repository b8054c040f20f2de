package acceptance

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/pkg/model"
)

// overlap is how long nodes that change their VNI or port wait for each other:
// time enough for three to hear of it on a slow machine. linger is how long a
// device stays that is no longer wanted.
const (
	overlap = 10 * time.Second
	grace   = 2 * overlap
)

var vxlan = encapsulation{
	devices: []string{felix.VXLANDevice, felix.VXLANDeviceV6},
	set:     func(p *model.Pool, e model.Encap) { p.IPIP, p.VXLAN = model.EncapNever, e },
}

func TestVXLANChangesWithoutLoss(t *testing.T) { changeUnderTraffic(t, vxlan) }

// A node that is not on the link gets no route of its own without a tunnel: the
// default route leads to the router, which knows the blocks.
func TestVXLANWithoutBGP(t *testing.T) { changeUnderTraffic(t, withoutBGP(vxlan)) }

// TestVXLANNetworkChangesWithoutLoss changes VNI and port, then the VNI alone,
// then both back, on one node after the other while pods and hosts talk through
// the tunnel. No packet may be lost, and in the end the devices have their names.
func TestVXLANNetworkChangesWithoutLoss(t *testing.T) {
	c := newCluster(t, vxlan)
	all := c.talk(t)
	for _, n := range c.nodes {
		c.change(n, model.EncapAlways)
	}
	c.awaitRoutes(t, model.EncapAlways)
	c.check(t, all, model.EncapAlways)
	for _, s := range []struct {
		vni, port int
		order     []int
	}{
		{5000, 8472, []int{0, 1, 2}},
		{5001, 8472, []int{2, 0, 1}},
		{4096, 4789, []int{1, 2, 0}},
	} {
		for _, i := range s.order {
			all.enter(fmt.Sprintf("VNI %d and port %d come to %s", s.vni, s.port, c.nodes[i].Name))
			c.configure(c.nodes[i], model.FelixConfiguration{VXLANVNI: s.vni, VXLANPort: s.port})
			all.advance(t, 20)
		}
		for _, n := range c.nodes {
			for _, device := range vxlan.devices {
				eventually(t, fmt.Sprintf("%s on %s has VNI %d and port %d", device, n.Name, s.vni, s.port), func() bool {
					text, err := n.ns.Try("ip", "-d", "link", "show", "dev", device)
					return err == nil && strings.Contains(text, fmt.Sprintf("vxlan id %d ", s.vni)) && strings.Contains(text, fmt.Sprintf("dstport %d ", s.port))
				})
			}
		}
		c.awaitRoutes(t, model.EncapAlways)
		c.check(t, all, model.EncapAlways)
	}
	all.end(t)
	for _, n := range c.nodes {
		n.content(t)
	}
}
