package topology

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

// parser turns a file into a Topology and gathers what is wrong with it.
type parser struct {
	errs  []error
	names map[string]bool
	racks map[string]Rack
	used  map[netip.Addr]string
}

func (p *parser) errorf(format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf(format, args...))
}

func (p *parser) parse(raw file) *Topology {
	t := &Topology{NodeAS: raw.NodeAS, HoldTime: p.holdTime(raw.HoldTime), BFD: p.bfd(raw.BFD)}
	t.Core = p.subnet("core", raw.Core.Subnet, raw.Core.Subnet6)
	if t.NodeAS == 0 {
		p.errorf("nodeAS: missing")
	}
	p.routers(t, raw)
	t.ControlPlane = p.host(t, "controlPlane", raw.ControlPlane, "cp", controlPlaneHost)
	t.Outside = p.host(t, "outside", raw.Outside, "outside", outsideHost)
	for _, rack := range raw.Racks {
		p.rack(t, rack)
	}
	p.overlaps(t)
	next := map[string]uint32{}
	for _, node := range raw.Nodes {
		p.nodes(t, node, next)
	}
	if len(t.Nodes) == 0 {
		p.errorf("nodes: there are none")
	}
	return t
}

func (p *parser) holdTime(text string) time.Duration {
	if text == "" {
		return defaultHoldTime
	}
	hold, err := time.ParseDuration(text)
	if err != nil || hold < minHoldTime || hold > maxHoldTime || hold%time.Second != 0 {
		p.errorf("holdTime %q: not whole seconds from %s to %s", text, minHoldTime, maxHoldTime)
		return defaultHoldTime
	}
	return hold
}

func (p *parser) bfd(text string) time.Duration {
	if text == "" {
		return 0
	}
	interval, err := time.ParseDuration(text)
	if err != nil || interval < minBFD || interval > maxBFD || interval%time.Millisecond != 0 {
		p.errorf("bfd %q: not whole milliseconds from %s to %s", text, minBFD, maxBFD)
		return 0
	}
	return interval
}

func (p *parser) name(field, name string) {
	switch {
	case !namePattern.MatchString(name):
		p.errorf("%s: name %q: want 1 to 10 of a-z, 0-9 and -, a letter first", field, name)
	case name == Fabric || name == Core:
		p.errorf("%s: name %q: is kept for the lab's own use", field, name)
	case p.names[name]:
		p.errorf("%s: name %q: used twice", field, name)
	}
	p.names[name] = true
}

func (p *parser) subnet(field, v4, v6 string) Subnet {
	var subnet Subnet
	var err error
	if subnet.V4, err = netip.ParsePrefix(v4); v4 == "" && v6 != "" {
		subnet.V4 = netip.Prefix{} // IPv6 alone
	} else if err != nil || !subnet.V4.Addr().Is4() || subnet.V4 != subnet.V4.Masked() || subnet.V4.Bits() > 28 {
		p.errorf("%s: subnet %q: want an IPv4 prefix of at most /28, as in 10.1.1.0/24", field, v4)
		subnet.V4 = netip.Prefix{}
	}
	if v6 == "" {
		return subnet
	}
	if subnet.V6, err = netip.ParsePrefix(v6); err != nil || !subnet.V6.Addr().Is6() || subnet.V6 != subnet.V6.Masked() || subnet.V6.Bits() > 112 {
		p.errorf("%s: subnet6 %q: want an IPv6 prefix of at most /112, as in fd00:1:1::/64", field, v6)
		subnet.V6 = netip.Prefix{}
	}
	return subnet
}

// address takes host number host of the subnet for owner.
func (p *parser) address(owner string, subnet Subnet, host uint32) Address {
	var address Address
	if subnet.V4.IsValid() {
		last := uint32(1)<<(32-subnet.V4.Bits()) - 2
		if host < 1 || host > last {
			p.errorf("%s: host number %d: not in 1 to %d of %s", owner, host, last, subnet.V4)
			return Address{}
		}
		bytes := subnet.V4.Addr().As4()
		binary.BigEndian.PutUint32(bytes[:], binary.BigEndian.Uint32(bytes[:])+host)
		address.V4 = netip.AddrFrom4(bytes)
	}
	if subnet.V6.IsValid() {
		address.V6 = v6Host(subnet.V6, host)
	}
	if taken := address.Main(); taken.IsValid() { // else it is reported already
		if before := p.used[taken]; before != "" {
			p.errorf("%s: address %s: already taken by %s", owner, taken, before)
		}
		p.used[taken] = owner
	}
	return address
}

// v6Host writes the decimal host number as the last group, so that host 11 is
// …::11 and reads like the IPv4 address.
func v6Host(prefix netip.Prefix, host uint32) netip.Addr {
	group, err := strconv.ParseUint(strconv.FormatUint(uint64(host), 10), 16, 16)
	if err != nil {
		group = uint64(host) // beyond 9999: plain binary
	}
	bytes := prefix.Addr().As16()
	binary.BigEndian.PutUint16(bytes[14:], uint16(group))
	return netip.AddrFrom16(bytes)
}

func (p *parser) routers(t *Topology, raw file) {
	if len(raw.Routers) == 0 {
		p.errorf("routers: there are none")
	}
	for i, router := range raw.Routers {
		owner := "router " + router.Name
		p.name(owner, router.Name)
		if router.Kind != BIRD && router.Kind != FRR {
			p.errorf("%s: kind %q: want bird or frr", owner, router.Kind)
		}
		if router.AS == 0 {
			p.errorf("%s: as: missing", owner)
		}
		host := router.Host
		if host == 0 {
			host = uint32(i + 1)
		}
		t.Routers = append(t.Routers, Router{
			Name: router.Name, Kind: router.Kind, AS: router.AS, Core: p.address(owner, t.Core, host),
		})
	}
}

func (p *parser) host(t *Topology, field string, raw fileHost, name string, number uint32) Host {
	if raw.Name == "" {
		raw.Name = name
	}
	if raw.Host == 0 {
		raw.Host = number
	}
	if raw.Via == "" && len(t.Routers) > 0 {
		raw.Via = t.Routers[0].Name
	}
	p.name(field, raw.Name)
	if t.Router(raw.Via).Name == "" {
		p.errorf("%s: via %q: no such router", field, raw.Via)
	}
	return Host{Name: raw.Name, Via: raw.Via, Address: p.address(field, t.Core, raw.Host)}
}

func (p *parser) rack(t *Topology, raw fileRack) {
	owner := "rack " + raw.Name
	p.name(owner, raw.Name)
	if t.Router(raw.Router).Name == "" {
		p.errorf("%s: router %q: no such router", owner, raw.Router)
	}
	rack := Rack{Name: raw.Name, Router: raw.Router, Subnet: p.subnet(owner, raw.Subnet, raw.Subnet6)}
	if rack.Subnet.V6.IsValid() != t.Core.V6.IsValid() {
		p.errorf("%s: subnet6: racks and core must all have one, or none", owner)
	}
	if (raw.Subnet == "") != !t.Core.V4.IsValid() && t.Core.V6.IsValid() {
		p.errorf("%s: subnet: racks and core must all have one, or none", owner)
	}
	rack.Gateway = p.address(owner, rack.Subnet, gatewayHost)
	if raw.Second != "" {
		if t.Router(raw.Second).Name == "" || raw.Second == raw.Router {
			p.errorf("%s: second %q: no other router of that name", owner, raw.Second)
		}
		rack.Second, rack.SecondGateway = raw.Second, p.address(owner, rack.Subnet, secondHost)
	}
	p.racks[rack.Name] = rack
	t.Racks = append(t.Racks, rack)
}

// overlaps refuses subnets that share addresses: they could not be routed.
func (p *parser) overlaps(t *Topology) {
	type owned struct {
		owner  string
		prefix netip.Prefix
	}
	all := []owned{{"core", t.Core.V4}, {"core", t.Core.V6}}
	for _, rack := range t.Racks {
		all = append(all, owned{"rack " + rack.Name, rack.Subnet.V4}, owned{"rack " + rack.Name, rack.Subnet.V6})
	}
	for i, a := range all {
		for _, b := range all[:i] {
			if a.prefix.IsValid() && b.prefix.IsValid() && a.prefix.Overlaps(b.prefix) {
				p.errorf("%s: subnet %s: overlaps %s of %s", a.owner, a.prefix, b.prefix, b.owner)
			}
		}
	}
}

// nodes adds the node, or the Count nodes, of one entry. next holds the next
// free host number of each rack.
func (p *parser) nodes(t *Topology, raw fileNode, next map[string]uint32) {
	if raw.Kind == "" {
		raw.Kind = Full
	}
	rack, ok := p.racks[raw.Rack]
	if !ok {
		p.errorf("node %s: rack %q: no such rack", raw.Name, raw.Rack)
		return
	}
	if raw.Kind == Light && !t.Core.V4.IsValid() {
		p.errorf("node %s: kind light: needs IPv4, by which the lab sees that it is alive", raw.Name)
	}
	if raw.Kind != Full && raw.Kind != Light {
		p.errorf("node %s: kind %q: want full or light", raw.Name, raw.Kind)
	}
	if raw.Count < 0 || raw.Count > 0 && raw.Host > 0 {
		p.errorf("node %s: count %d: must be positive, and not together with host", raw.Name, raw.Count)
	}
	names := []string{raw.Name}
	if raw.Count > 0 {
		names = nil
		for i := 1; i <= raw.Count; i++ {
			names = append(names, raw.Name+strconv.Itoa(i))
		}
	}
	for _, name := range names {
		host := raw.Host
		if host == 0 {
			host = max(next[rack.Name], firstNodeHost)
			next[rack.Name] = host + 1
		}
		owner := "node " + name
		p.name(owner, name)
		t.Nodes = append(t.Nodes, Node{Name: name, Rack: rack.Name, Kind: raw.Kind, Address: p.address(owner, rack.Subnet, host)})
	}
}
