package acceptance

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nstest"
	"github.com/muslin-net/muslin/pkg/model"
)

// encapsulation is a kind of tunnel, with the devices it has.
type encapsulation struct {
	devices []string // for IPv4 and, if it has one, for IPv6
	set     func(*model.Pool, model.Encap)
	byIPAM  bool // nobody speaks BGP: nodes know each other's blocks
}

func withoutBGP(e encapsulation) encapsulation {
	e.byIPAM = true
	return e
}

// cluster is three nodes: a and b in one subnet, c in another, and a router
// between them that knows the nodes' blocks, as one that speaks BGP with them.
type cluster struct {
	kind  encapsulation
	nodes []*node

	mu     sync.Mutex // guards what follows
	mode   map[model.NodeName]model.Encap
	config map[model.NodeName]model.FelixConfiguration // as the node has it; none: defaults
	// announced are the nodes whose tunnel addresses the others know: those
	// whose devices were up once. A node announces its end of a tunnel only
	// when packets may come by it.
	announced map[model.NodeName]bool
}

func newCluster(t *testing.T, kind encapsulation) *cluster {
	t.Helper()
	c := &cluster{kind: kind, mode: map[model.NodeName]model.Encap{}, config: map[model.NodeName]model.FelixConfiguration{}, announced: map[model.NodeName]bool{}}
	router := nstest.New(t)
	router.Run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	for subnet := 1; subnet <= 2; subnet++ {
		bridge := fmt.Sprintf("subnet%d", subnet)
		router.IP("link add " + bridge + " type bridge")
		router.IP(fmt.Sprintf("addr add 10.%d.0.254/24 dev %s", subnet, bridge))
		router.IP(fmt.Sprintf("addr add fd0%d::254/64 dev %s nodad", subnet, bridge))
		router.IP("link set " + bridge + " up")
	}
	for i, place := range []struct {
		name   model.NodeName
		subnet int
	}{{"a", 1}, {"b", 1}, {"c", 2}} {
		n := newNode(t, i+1, place.name, place.subnet)
		port := "to-" + string(n.Name)
		n.ns.Veth("eth0", router, port, []string{n.IPv4.String(), n.IPv6.String()}, nil)
		router.IP(fmt.Sprintf("link set %s master subnet%d", port, place.subnet))
		n.ns.IP(fmt.Sprintf("route add default via 10.%d.0.254", place.subnet))
		n.ns.IP(fmt.Sprintf("-6 route add default via fd0%d::254", place.subnet))
		for _, block := range n.blocks {
			router.IP(fmt.Sprintf("route add %s via %s", block, n.address(block)))
		}
		n.stepped = func(h model.Host) { c.announce(n, h) }
		c.mode[n.Name] = model.EncapNever
		c.nodes = append(c.nodes, n)
	}
	c.publish()
	for _, n := range c.nodes {
		n.run(t)
	}
	return c
}

// address is the node's own of the family of a prefix.
func (n *node) address(family netip.Prefix) netip.Addr {
	if family.Addr().Is4() {
		return n.IPv4.Addr()
	}
	return n.IPv6.Addr()
}

// announce makes the tunnel addresses of a node known to the others once its
// devices are up.
func (c *cluster) announce(n *node, h model.Host) {
	for _, device := range c.kind.devices {
		up := func(l model.Link) bool { return l.Name == device && l.AdminUp }
		if !slices.ContainsFunc(h.Links, up) {
			return
		}
	}
	c.mu.Lock()
	news := !c.announced[n.Name]
	c.announced[n.Name] = true
	c.mu.Unlock()
	if news {
		c.publish()
	}
}

// publish tells every node what it may know.
func (c *cluster) publish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.nodes {
		n.tell(c.view(n), c.routes(n))
	}
}

func (c *cluster) view(of *node) model.Snapshot {
	s := model.Snapshot{Synced: true}
	if config, ok := c.config[of.Name]; ok {
		s.Felix = []model.FelixConfiguration{config}
	}
	for i, cidr := range []string{"10.65.0.0/16", "fd65::/48"}[:len(c.kind.devices)] {
		p := model.Pool{Name: cidr, CIDR: netip.MustParsePrefix(cidr), BlockSize: []int{26, 122}[i], NATOutgoing: true, Allocatable: true}
		c.kind.set(&p, c.mode[of.Name])
		s.Pools = append(s.Pools, p)
	}
	for _, n := range c.nodes {
		known := n.Node
		if n != of && !c.announced[n.Name] {
			known.IPIPTunnel, known.VXLANTunnel, known.VXLANTunnelV6 = netip.Addr{}, netip.Addr{}, netip.Addr{}
		}
		s.Nodes = append(s.Nodes, known)
	}
	for _, n := range c.nodes {
		for _, block := range n.blocks {
			if n == of || c.kind.byIPAM {
				s.Blocks = append(s.Blocks, model.Block{CIDR: block, Node: n.Name, State: model.BlockConfirmed})
			}
		}
	}
	if mesh := false; c.kind.byIPAM {
		s.BGP, s.LentKnown = []model.BGPConfiguration{{Name: "default", MeshEnabled: &mesh}}, true
	}
	return s
}

// routes are what the node learned of the others.
func (c *cluster) routes(of *node) []model.Learned {
	var out []model.Learned
	if c.kind.byIPAM {
		return nil
	}
	for _, n := range c.nodes {
		for _, block := range n.blocks {
			if n != of {
				out = append(out, model.Learned{Prefix: block, Multipath: &model.Multipath{NextHops: []netip.Addr{n.address(block)}, Mesh: true}})
			}
		}
	}
	slices.SortFunc(out, func(a, b model.Learned) int { return felix.ComparePrefix(a.Prefix, b.Prefix) })
	return out
}

// change gives one node the pool with another mode.
func (c *cluster) change(n *node, mode model.Encap) {
	c.mu.Lock()
	c.mode[n.Name] = mode
	c.mu.Unlock()
	c.publish()
}

// configure gives one node another FelixConfiguration.
func (c *cluster) configure(n *node, config model.FelixConfiguration) {
	config.Name = "default"
	c.mu.Lock()
	c.config[n.Name] = config
	c.mu.Unlock()
	c.publish()
}

// device is the one that the route from one node to another's block leads over;
// none if it has none.
func (c *cluster) device(from, to *node, family int, mode model.Encap) string {
	far := from.IPv4.Masked() != to.IPv4.Masked()
	if family < len(c.kind.devices) && (mode == model.EncapAlways || mode == model.EncapCrossSubnet && far) {
		return c.kind.devices[family]
	}
	if far && c.kind.byIPAM {
		return ""
	}
	return "eth0"
}

// awaitRoutes waits until every node sends to every other as the mode says.
func (c *cluster) awaitRoutes(t *testing.T, mode model.Encap) {
	t.Helper()
	for _, from := range c.nodes {
		for _, to := range c.nodes {
			for family, block := range to.blocks {
				if from == to {
					continue
				}
				want := c.device(from, to, family, mode)
				eventually(t, fmt.Sprintf("%s reaches %s over %s (mode %s)", from.Name, block, want, mode),
					func() bool { return from.group(block) == want })
			}
		}
	}
}
