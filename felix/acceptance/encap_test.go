package acceptance

import (
	"fmt"
	"slices"
	"testing"

	"github.com/muslin-net/muslin/pkg/model"
)

// step is a change of the pools that reaches the nodes one after the other.
type step struct {
	mode  model.Encap
	order []int
}

// Each change is between two modes and in another order of nodes: packets go
// one way and are answered the other in between.
var steps = []step{
	{model.EncapAlways, []int{0, 1, 2}},
	{model.EncapCrossSubnet, []int{2, 0, 1}},
	{model.EncapNever, []int{1, 2, 0}},
	{model.EncapCrossSubnet, []int{2, 1, 0}},
	{model.EncapAlways, []int{1, 0, 2}},
	{model.EncapNever, []int{0, 2, 1}},
}

// changeUnderTraffic changes the pools' encapsulation through all modes while
// pods and hosts talk. No packet may be lost, and in each mode the packets take
// the tunnel between those nodes that are to use it, and no other.
func changeUnderTraffic(t *testing.T, kind encapsulation) {
	c := newCluster(t, kind)
	all := c.talk(t)
	c.check(t, all, model.EncapNever)
	group := steps
	if kind.byIPAM { // no tunnel is not all right in the end: a node that is on no link is told of
		group = append(slices.Clip(group), step{model.EncapCrossSubnet, []int{1, 0, 2}})
	}
	for _, s := range group {
		for _, i := range s.order {
			all.enter(fmt.Sprintf("%s comes to %s", s.mode, c.nodes[i].Name))
			c.change(c.nodes[i], s.mode)
			all.advance(t, 20)
		}
		c.awaitRoutes(t, s.mode)
		c.check(t, all, s.mode)
	}
	all.end(t)
	for _, n := range c.nodes {
		n.content(t)
	}
}

// talk has pods and hosts talk, each family where the encapsulation has it.
func (c *cluster) talk(t *testing.T) flows {
	t.Helper()
	c.awaitRoutes(t, model.EncapNever)
	var all flows
	for family := range c.kind.devices {
		for _, pair := range [][2]int{{0, 1}, {0, 2}, {2, 1}} {
			from, to := c.nodes[pair[0]], c.nodes[pair[1]]
			all = append(all, start(t, fmt.Sprintf("pod on %s to pod on %s (%d)", from.Name, to.Name, family),
				from.pod, to.endpoint.Addresses[family]))
		}
		all = append(all, start(t, fmt.Sprintf("node b to pod on c (%d)", family), c.nodes[1].ns, c.nodes[2].endpoint.Addresses[family]))
	}
	return all
}

// check counts packets on the tunnels' devices: more than a handful where the
// mode has them go that way, none where it has not.
func (c *cluster) check(t *testing.T, all flows, mode model.Encap) {
	t.Helper()
	all.enter("in mode " + string(mode))
	all.settle() // what is under way may still take the old way
	const packets = 20
	type counter struct {
		node   *node
		family int
	}
	before := map[counter]int{}
	for _, n := range c.nodes {
		for family, device := range c.kind.devices {
			before[counter{n, family}] = n.received(t, device)
		}
	}
	all.advance(t, packets)
	all.settle()
	for at, was := range before {
		device := c.kind.devices[at.family]
		got := at.node.received(t, device) - was
		tunnelled := false
		for _, n := range c.nodes {
			tunnelled = tunnelled || n != at.node && c.device(n, at.node, at.family, mode) == device
		}
		if tunnelled && got < packets || !tunnelled && got > 0 {
			t.Errorf("mode %s: node %s received %d packets by %s; tunnelled: %t", mode, at.node.Name, got, device, tunnelled)
		}
	}
}
