package bgp

import (
	"crypto/sha256"
	"net/netip"

	"github.com/muslin-net/muslin/pkg/model"
)

// asnOf is a node's AS number: its annotation, else the cluster's.
func (b *builder) asnOf(n model.Node) model.ASN {
	switch {
	case n.ASN != 0:
		return n.ASN
	case b.defaults.ASN != 0:
		return b.defaults.ASN
	}
	return model.DefaultASN
}

// routerID is a node's IPv4 address, else a number made of its name.
func routerID(n model.Node) netip.Addr {
	if a := n.IPv4.Addr(); a.IsValid() {
		return a
	}
	return hashedRouterID(n.Name)
}

// sameRouterID tells of nodes with this one's router ID: a session between them is
// refused, and a reflector takes the routes of one for the other's, come back (RFC 4271
// section 6.2, RFC 4456 section 8).
func (b *builder) sameRouterID() {
	own := routerID(b.node)
	for _, n := range b.snap.Nodes {
		if n.Name != b.node.Name && routerID(n) == own {
			b.problem(model.Ref{Kind: "Node", Name: string(b.node.Name)}, "", "RouterIDConflict",
				"router ID %s is node %s's, too, and they do not hear each other's routes: give the one without an IPv4 address one, or another name", own, n.Name)
		}
	}
}

// hashedRouterID takes the first four octets of the SHA-256 of the name, as
// Calico does, kept inside the unicast range: neither 0.x, nor 127.x, nor
// class D and E.
func hashedRouterID(n model.NodeName) netip.Addr {
	sum := sha256.Sum256([]byte(n))
	first := sum[0]
	if first > 223 {
		first -= 32
	}
	if first == 0 || first == 127 {
		first++
	}
	return netip.AddrFrom4([4]byte{first, sum[1], sum[2], sum[3]})
}

// clusterID is a node's route reflector cluster id; the zero value when it is
// no reflector or the annotation is no IPv4 address.
func clusterID(n model.Node) netip.Addr {
	a, err := netip.ParseAddr(n.RouteReflectorClusterID)
	if err != nil || !a.Is4() {
		return netip.Addr{}
	}
	return a
}

// isReflector follows Calico: any cluster id at all takes a node out of the
// mesh, also one that cannot be read.
func isReflector(n model.Node) bool { return n.RouteReflectorClusterID != "" }

// listenPort is where a node listens: its own BGPConfiguration, else the
// cluster's, else 179.
func (b *builder) listenPort(n model.NodeName) int {
	port := 0
	for _, c := range b.snap.BGP {
		if c.Name == nodeConfigName(n) && c.ListenPort != 0 {
			port = c.ListenPort
		}
	}
	if port == 0 {
		port = b.defaults.ListenPort
	}
	if port < 1 || port > 65535 {
		return DefaultListenPort
	}
	return port
}

// listenAddresses honours bindMode NodeIP.
func (b *builder) listenAddresses() []netip.Addr {
	if !b.defaults.BindNodeIP {
		return nil
	}
	var out []netip.Addr
	for _, p := range b.node.Subnets() {
		out = append(out, p.Addr())
	}
	return out
}
