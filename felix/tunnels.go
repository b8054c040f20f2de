package felix

import (
	"cmp"
	"crypto/sha1"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// Names of the tunnel devices, Calico's, so that a mixed cluster works.
const (
	IPIPDevice    = "tunl0"
	VXLANDevice   = "vxlan.calico"
	VXLANDeviceV6 = "vxlan-v6.calico"
)

// While the VNI or the port of a VXLAN device changes, the one to come is beside
// it and then the one that has been, with these endings.
const (
	nextSuffix     = ".next"
	previousSuffix = ".last"
)

// NextDevice and Predecessor name what is beside a VXLAN device while its VNI or port
// changes: the device that will have its name, and the one that had it.
func NextDevice(device string) string { return strings.TrimSuffix(device, ".calico") + nextSuffix }
func PreviousDevice(device string) string {
	return strings.TrimSuffix(device, ".calico") + previousSuffix
}

// isTunnel says whether a link is a tunnel device of ours, by its name.
func isTunnel(name string) bool {
	for _, device := range []string{VXLANDevice, VXLANDeviceV6} {
		if name == device || name == NextDevice(device) || name == PreviousDevice(device) {
			return true
		}
	}
	return name == IPIPDevice
}

// Calico's defaults (FelixConfiguration vxlanVNI, vxlanPort) and the bytes that
// a tunnel adds to each packet.
const (
	DefaultVXLANVNI  = 4096
	DefaultVXLANPort = 4789

	ipipOverhead    = 20
	vxlanOverhead   = 50
	vxlanOverheadV6 = 70
)

func (c *builder) vxlanPort() int { return cmp.Or(c.config.VXLANPort, DefaultVXLANPort) }

func wants(e model.Encap) bool { return e == model.EncapAlways || e == model.EncapCrossSubnet }

// encapsulations says which tunnels any pool asks for.
func (c *builder) encapsulations() (ipip, vxlan4, vxlan6 bool) {
	for _, p := range c.Snapshot.Pools {
		v4 := p.CIDR.Addr().Is4()
		ipip = ipip || v4 && wants(p.IPIP)
		vxlan4 = vxlan4 || v4 && wants(p.VXLAN)
		vxlan6 = vxlan6 || !v4 && wants(p.VXLAN)
	}
	off := c.config.VXLANDisabled
	return ipip && !c.config.IPIPDisabled, vxlan4 && !off, vxlan6 && !off
}

// tunnels are the devices that this node needs: for each encapsulation that a
// pool asks for, once the node has an address for it.
func (c *builder) tunnels() []Tunnel {
	ipip, v4, v6 := c.encapsulations()
	var out []Tunnel
	if _, ok := c.carrier(c.self.IPv4.Addr()); ipip && ok && c.self.IPIPTunnel.IsValid() {
		out = append(out, Tunnel{
			Kind: IPIP, Name: IPIPDevice, Address: c.self.IPIPTunnel, Local: c.self.IPv4.Addr(),
			MTU: c.tunnelMTU(c.config.IPIPMTU, c.linkMTU(c.self.IPv4), ipipOverhead),
		})
	}
	if v4 {
		out = c.appendVXLAN(out, model.IPv4, c.config.VXLANMTU, vxlanOverhead)
	}
	if v6 {
		out = c.appendVXLAN(out, model.IPv6, c.config.VXLANMTUV6, vxlanOverheadV6)
	}
	return out
}

func (c *builder) appendVXLAN(out []Tunnel, f model.Family, mtu, overhead int) []Tunnel {
	local := c.self.Subnet(f)
	_, ok := c.carrier(local.Addr())
	address, mac := vxlanEnd(c.self, f)
	if !ok || !address.IsValid() {
		return out
	}
	t := Tunnel{
		Kind: VXLAN, Name: vxlanDevice(f), Address: address, Local: local.Addr(), Parent: c.parent(local.Addr()),
		MTU: c.tunnelMTU(mtu, c.linkMTU(local), overhead), MAC: mac,
		VNI: cmp.Or(c.config.VXLANVNI, DefaultVXLANVNI), Port: c.vxlanPort(),
	}
	for _, n := range c.Snapshot.Nodes {
		address, mac := vxlanEnd(n, f)
		if outer := n.Address(f); n.Name != c.Self && outer.IsValid() && address.IsValid() {
			t.Peers = append(t.Peers, TunnelPeer{Address: address, MAC: mac, Node: outer})
		}
	}
	slices.SortFunc(t.Peers, func(a, b TunnelPeer) int { return a.Address.Compare(b.Address) })
	return append(out, t)
}

func vxlanDevice(f model.Family) string { return model.OfFamily(f, VXLANDevice, VXLANDeviceV6) }

// vxlanEnd is the tunnel address and MAC of a node. A node that does not say
// its MAC has the one that Calico derives from its name.
func vxlanEnd(n model.Node, f model.Family) (netip.Addr, string) {
	if f == model.IPv4 {
		return n.VXLANTunnel, cmp.Or(n.VXLANMAC, derivedMAC(string(n.Name)))
	}
	return n.VXLANTunnelV6, cmp.Or(n.VXLANMACV6, derivedMAC(string(n.Name)+"-v6"))
}

// derivedMAC is 66 (the letter f) and the first five bytes of the name's SHA-1
// (Calico vtepMACForHost).
func derivedMAC(name string) string {
	sum := sha1.Sum([]byte(name))
	return fmt.Sprintf("66:%02x:%02x:%02x:%02x:%02x", sum[0], sum[1], sum[2], sum[3], sum[4])
}

// tunnelled is the way through a tunnel, nil when the prefix's pool asks for
// none, the next hop is no node with an end of it, or the device is not there
// yet: then the direct way is kept, so that no packet is lost while it comes.
func (r *resolver) tunnelled(p netip.Prefix, nh netip.Addr) []NextHop {
	if !r.encapsulated {
		return nil
	}
	_, i, ok := r.pools.covering(p)
	if !ok {
		return nil
	}
	pool := r.c.Snapshot.Pools[i]
	node, isNode := r.c.nodes[nh]
	if !isNode || node.Name == r.c.Self || pool.CIDR.Addr().Is4() != nh.Is4() {
		return nil
	}
	f := model.FamilyOf(nh)
	subnet := r.c.self.Subnet(f)
	needed := func(e model.Encap, disabled bool) bool {
		return !disabled && (e == model.EncapAlways || e == model.EncapCrossSubnet && !subnet.Masked().Contains(nh))
	}
	if f == model.IPv4 && needed(pool.IPIP, r.c.config.IPIPDisabled) && node.IPIPTunnel.IsValid() {
		return r.over(IPIPDevice, nh)
	}
	if needed(pool.VXLAN, r.c.config.VXLANDisabled) {
		if address := model.OfFamily(f, node.VXLANTunnel, node.VXLANTunnelV6); address.IsValid() {
			return r.over(vxlanDevice(f), address)
		}
	}
	return nil
}

// tunnelLink is the link of a tunnel device, or of its heir in the moment in
// which the name goes from the one to the other.
func (c *builder) tunnelLink(device string) (model.Link, bool) {
	l, ok := c.names[device]
	if !ok {
		l, ok = c.names[NextDevice(device)]
	}
	return l, ok
}

func (r *resolver) over(device string, gateway netip.Addr) []NextHop {
	l, ok := r.c.tunnelLink(device)
	if !ok || !l.AdminUp {
		return nil
	}
	key := gateway.WithZone(device)
	if gateway.Is4() {
		key = netip.AddrFrom16(gateway.As16()).WithZone(device)
	}
	hops, ok := r.found[key]
	if !ok {
		hops = []NextHop{{Gateway: gateway, Link: l.Index, Device: l.Name, OnLink: true}}
		r.found[key] = hops
	}
	return hops
}
