package agent

import (
	"net"
	"net/netip"
	"slices"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"

	"github.com/muslin-net/muslin/pkg/model"
)

// apiConnections are those to the API server. One from an address that the node
// loses hangs until HTTP/2 has missed its pings, for 45 s, and in that time nobody
// tells the agent what the node's address is now.
type apiConnections struct {
	dialer *connrotation.Dialer
	had    []netip.Addr
}

// newAPIConnections has cfg's connections made so that they can be ended.
func newAPIConnections(cfg *rest.Config) *apiConnections {
	d := connrotation.NewDialer((&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext)
	cfg.Dial = d.DialContext
	return &apiConnections{dialer: d}
}

// host ends the connections when an address that the host had is gone; they are
// made anew at once, from one that it has.
func (c *apiConnections) host(h model.Host) {
	have := connectable(h)
	if slices.ContainsFunc(c.had, func(a netip.Addr) bool { return !slices.Contains(have, a) }) {
		c.dialer.CloseAll()
	}
	c.had = have
}

// connectable are the host's addresses that reach beyond a link.
func connectable(h model.Host) (out []netip.Addr) {
	for _, l := range h.Links {
		for _, p := range l.Addresses {
			if a := p.Addr(); !a.IsLinkLocalUnicast() && !a.IsLoopback() {
				out = append(out, a)
			}
		}
	}
	return out
}
