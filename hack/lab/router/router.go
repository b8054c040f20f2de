// Package router is the routers of a lab: the configuration of real BIRD and FRR
// from the topology, and the machines that run them.
package router

import (
	"context"
	_ "embed"
	"fmt"
	"net/netip"
	"strings"
	"text/template"
	"time"

	"github.com/muslin-net/muslin/hack/lab/fabric"
	"github.com/muslin-net/muslin/hack/lab/internal/boot"
	"github.com/muslin-net/muslin/hack/lab/internal/wait"
	"github.com/muslin-net/muslin/hack/lab/machine"
	"github.com/muslin-net/muslin/hack/lab/topology"
)

//go:embed bird.conf.tmpl
var birdTemplate string

//go:embed bgpd.conf.tmpl
var frrTemplate string

// values are what the templates of router configurations see.
type values struct {
	topology.Router
	RouterID        netip.Addr
	NodeAS          uint32
	Hold, Keepalive int // seconds
	BFD             int // milliseconds; 0: off
	Racks           []topology.Rack
	Neighbors       []topology.Router
	// Families are the address families in use, each with sessions of its own.
	Families []family
}

// family is one address family, with its names in the two languages.
type family struct {
	V6      bool
	Channel string // BIRD's channel: ipv4 or ipv6
	List    string // FRR's word for prefix lists: ip or ipv6
}

// Of returns the family's address of two.
func (f family) Of(a topology.Address) netip.Addr {
	if f.V6 {
		return a.V6
	}
	return a.V4
}

// Net returns the family's prefix of a subnet.
func (f family) Net(s topology.Subnet) netip.Prefix {
	if f.V6 {
		return s.V6
	}
	return s.V4
}

// Config returns the routing program's configuration of one router.
func Config(t *topology.Topology, name string) (string, error) {
	router := t.Router(name)
	hold := int(t.HoldTime / time.Second)
	config := values{
		Router: router, RouterID: identifier(router), NodeAS: t.NodeAS,
		Hold: hold, Keepalive: max(1, hold/3), BFD: int(t.BFD / time.Millisecond), Racks: t.RacksOf(name),
	}
	if t.Core.V4.IsValid() {
		config.Families = append(config.Families, family{V6: false, Channel: "ipv4", List: "ip"})
	}
	if t.Core.V6.IsValid() {
		config.Families = append(config.Families, family{V6: true, Channel: "ipv6", List: "ipv6"})
	}
	for _, other := range t.Routers {
		if other.Name != name {
			config.Neighbors = append(config.Neighbors, other)
		}
	}
	text := birdTemplate
	if router.Kind == topology.FRR {
		text = frrTemplate
	}
	parsed, err := template.New(name).Funcs(template.FuncMap{"symbol": birdSymbol}).Parse(text)
	if err != nil {
		return "", fmt.Errorf("parse configuration template of %s: %w", name, err)
	}
	var out strings.Builder
	if err := parsed.Execute(&out, config); err != nil {
		return "", fmt.Errorf("render configuration of %s: %w", name, err)
	}
	return out.String(), nil
}

// identifier is the router's IPv4 address; without one the end of its IPv6 address, for it
// is four octets either way (RFC 4271, section 4.2).
func identifier(r topology.Router) netip.Addr {
	if r.Core.V4.IsValid() {
		return r.Core.V4
	}
	bytes := r.Core.V6.As16()
	return netip.AddrFrom4([4]byte(bytes[12:]))
}

// birdSymbol makes a name that BIRD takes unquoted.
func birdSymbol(name string) string { return strings.ReplaceAll(name, "-", "_") }

// Make writes a router's disk and spec.
func Make(m machine.Machine, t *topology.Topology) error {
	router := t.Router(m.Name)
	config, err := Config(t, router.Name)
	if err != nil {
		return err
	}
	spec := m.Spec()
	var fresh []string
	var files map[string]string
	switch router.Kind {
	case topology.BIRD:
		fresh = []string{"/etc/bird"}
		files = map[string]string{"/etc/bird/bird.conf": config}
		spec.Services = birdServices()
	case topology.FRR:
		const others = "hostname %s\nlog stdout\n"
		fresh = []string{"/etc/frr", "/var/log/frr"}
		files = map[string]string{
			"/etc/frr/bgpd.conf":  config,
			"/etc/frr/bfdd.conf":  fmt.Sprintf(others, router.Name),
			"/etc/frr/zebra.conf": fmt.Sprintf(others, router.Name),
			"/etc/frr/vtysh.conf": "no service integrated-vtysh-config\n",
		}
		spec.Services = frrServices(t.BFD > 0)
	}
	if err := m.WriteDisk(fresh, files); err != nil {
		return err
	}
	return m.Make(spec)
}

func birdServices() []boot.Service {
	return []boot.Service{
		{Name: "run-bird", Argv: []string{"mkdir", "-p", "/run/bird"}, Once: true},
		{Name: "bird", Argv: []string{"bird", "-f", "-c", "/etc/bird/bird.conf"}, Socket: "/run/bird/bird.ctl"},
	}
}

// frrServices starts the daemons as FRR's own user, which they insist on.
func frrServices(bfd bool) []boot.Service {
	services := []boot.Service{
		{Name: "run-frr", Argv: []string{"install", "-d", "-o", "frr", "-g", "frr", "/run/frr", "/etc/frr"}, Once: true},
		{Name: "zebra", Argv: []string{"/usr/lib/frr/zebra", "-P", "0"}, Socket: "/run/frr/zserv.api"},
	}
	if bfd {
		services = append(services, boot.Service{Name: "bfdd", Argv: []string{"/usr/lib/frr/bfdd", "-P", "0"}, Socket: "/run/frr/bfdd.vty"})
	}
	return append(services, boot.Service{Name: "bgpd", Argv: []string{"/usr/lib/frr/bgpd", "-P", "0"}, Socket: "/run/frr/bgpd.vty"})
}

// WaitRoutes waits until every router has a session with every other: until it
// has a route to each rack of the others.
func WaitRoutes(ctx context.Context, f fabric.Fabric) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, rack := range f.Topology.Racks {
		for _, router := range f.Topology.Routers {
			if router.Name == rack.Router || router.Name == rack.Second {
				continue
			}
			for _, prefix := range []netip.Prefix{rack.Subnet.V4, rack.Subnet.V6} {
				if !prefix.IsValid() {
					continue
				}
				if err := waitRoute(ctx, f, router.Name, prefix); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// waitRoute waits until the machine's main table has a route to the prefix.
func waitRoute(ctx context.Context, f fabric.Fabric, machine string, prefix netip.Prefix) error {
	for {
		routes, err := f.Routes(machine)
		if err == nil {
			for _, route := range routes {
				if route.To == prefix {
					return nil
				}
			}
		}
		if err := wait.Sleep(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("wait for route to %s on %s: %w", prefix, machine, err)
		}
	}
}
