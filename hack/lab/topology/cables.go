package topology

import (
	"fmt"
	"net/netip"
	"strings"
)

// Names kept for the lab's own use: the namespace of the switches, and the
// switch (and the routers' interface) of the core subnet.
const (
	Fabric = "fabric"
	Core   = "core"
)

// nodeInterface is the only network interface of hosts and nodes.
const nodeInterface = "eth0"

// Link is one cable: from an interface of a machine to a port of a switch.
type Link struct {
	Interface, Port, Bridge string
	Address                 Address
	Subnet                  Subnet
}

// Route is one route a machine has from boot.
type Route struct {
	To  netip.Prefix // 0.0.0.0/0 and ::/0 for the default route
	Via netip.Addr
}

// Links returns the cables of a machine. A router's interfaces are called
// "core" and like its racks, everybody else has eth0.
func (t *Topology) Links(machine string) []Link {
	for _, host := range []Host{t.ControlPlane, t.Outside} {
		if host.Name == machine {
			return []Link{{nodeInterface, machine, Core, host.Address, t.Core}}
		}
	}
	if node, ok := t.Node(machine); ok {
		return []Link{{nodeInterface, machine, node.Rack, node.Address, t.Rack(node.Rack).Subnet}}
	}
	router := t.Router(machine)
	links := []Link{{Core, machine + "-0", Core, router.Core, t.Core}}
	for i, rack := range t.RacksOf(machine) {
		port := fmt.Sprintf("%s-%d", machine, i+1)
		links = append(links, Link{rack.Name, port, rack.Name, rack.Gateway, rack.Subnet})
	}
	return links
}

// Routes returns the routes a machine has from boot: nodes and hosts know
// their default gateway, hosts in the core also each rack's router. Routers
// know nothing but their own subnets; the rest they learn by BGP.
func (t *Topology) Routes(machine string) []Route {
	if node, ok := t.Node(machine); ok {
		return defaultRoutes(t.Rack(node.Rack).Gateway)
	}
	switch machine {
	case t.Outside.Name:
		return defaultRoutes(t.Router(t.Outside.Via).Core)
	case t.ControlPlane.Name:
		routes := defaultRoutes(t.Router(t.ControlPlane.Via).Core)
		for _, rack := range t.Racks {
			routes = append(routes, through(t.Router(rack.Router).Core, rack.Subnet)...)
		}
		return routes
	}
	return nil
}

func defaultRoutes(via Address) []Route {
	return through(via, Subnet{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)})
}

// through has the routes to a subnet in the families that the gateway has.
func through(via Address, to Subnet) []Route {
	var routes []Route
	if via.V4.IsValid() {
		routes = append(routes, Route{to.V4, via.V4})
	}
	if via.V6.IsValid() {
		routes = append(routes, Route{to.V6, via.V6})
	}
	return routes
}

// HostsFile lets every machine find the others by name.
func (t *Topology) HostsFile() string {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for _, machine := range t.Machines() {
		for _, a := range t.Links(machine)[0].Address.All() {
			fmt.Fprintf(&b, "%s %s\n", a, machine)
		}
	}
	return b.String()
}
