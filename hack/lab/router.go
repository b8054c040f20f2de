package lab

import (
	"context"
	_ "embed"
	"fmt"
	"net/netip"
	"strings"
	"text/template"
	"time"

	"github.com/muslin-net/muslin/hack/lab/internal/boot"
	"github.com/muslin-net/muslin/hack/lab/topology"
)

//go:embed bird.conf.tmpl
var birdTemplate string

//go:embed bgpd.conf.tmpl
var frrTemplate string

// routerConfig is what the templates of router configurations see.
type routerConfig struct {
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

// renderRouter returns the routing program's configuration of one router.
func renderRouter(t *topology.Topology, name string) (string, error) {
	router := t.Router(name)
	hold := int(t.HoldTime / time.Second)
	config := routerConfig{
		Router: router, RouterID: routerID(router), NodeAS: t.NodeAS,
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

// routerID is the router's IPv4 address; without one the end of its IPv6 address, for it
// is four octets either way (RFC 4271, section 4.2).
func routerID(r topology.Router) netip.Addr {
	if r.Core.V4.IsValid() {
		return r.Core.V4
	}
	bytes := r.Core.V6.As16()
	return netip.AddrFrom4([4]byte(bytes[12:]))
}

// birdSymbol makes a name that BIRD takes unquoted.
func birdSymbol(name string) string { return strings.ReplaceAll(name, "-", "_") }

// makeRouter writes a router's disk and spec.
func (l *Lab) makeRouter(router topology.Router) error {
	config, err := renderRouter(l.topology, router.Name)
	if err != nil {
		return err
	}
	spec := l.newSpec(router.Name)
	var fresh []string
	files := []content{l.hostsFile()}
	switch router.Kind {
	case topology.BIRD:
		fresh = []string{"/etc/bird"}
		files = append(files, content{"/etc/bird/bird.conf", config})
		spec.Services = birdServices()
	case topology.FRR:
		fresh = []string{"/etc/frr", "/var/log/frr"}
		files = append(files,
			content{"/etc/frr/bgpd.conf", config},
			content{"/etc/frr/bfdd.conf", "hostname " + router.Name + "\nlog stdout\n"},
			content{"/etc/frr/zebra.conf", "hostname " + router.Name + "\nlog stdout\n"},
			content{"/etc/frr/vtysh.conf", "no service integrated-vtysh-config\n"})
		spec.Services = frrServices(l.topology.BFD > 0)
	}
	if err := l.writeDisk(router.Name, fresh, files); err != nil {
		return err
	}
	return l.writeSpec(router.Name, spec)
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

// startRouters starts the routers and the outside host, and waits until every
// router has a session with every other.
func (l *Lab) startRouters(ctx context.Context) error {
	names := []string{l.topology.Outside.Name}
	for _, router := range l.topology.Routers {
		names = append(names, router.Name)
	}
	if err := l.startMachines(ctx, names); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, rack := range l.topology.Racks {
		for _, router := range l.topology.Routers {
			if router.Name == rack.Router || router.Name == rack.Second {
				continue
			}
			for _, prefix := range []netip.Prefix{rack.Subnet.V4, rack.Subnet.V6} {
				if !prefix.IsValid() {
					continue
				}
				if err := l.waitRoute(ctx, router.Name, prefix); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// waitRoute waits until the machine's main table has a route to the prefix.
func (l *Lab) waitRoute(ctx context.Context, machine string, prefix netip.Prefix) error {
	for {
		routes, err := l.Fabric.Routes(machine)
		if err == nil {
			for _, route := range routes {
				if route.To == prefix {
					return nil
				}
			}
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("wait for route to %s on %s: %w", prefix, machine, err)
		}
	}
}
