package app

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/rest"

	"github.com/muslin-net/muslin/pkg/model"
)

// apiConnections are those to the API server. One from an address that the node
// loses hangs until HTTP/2 has missed its pings, for 45 s, and in that time nobody
// tells the agent what the node's address is now.
type apiConnections struct {
	mu   sync.Mutex
	open map[*apiConnection]bool
	had  []netip.Addr // by the host; owned by who calls host
}

// dialMost is how long one is waited for: the first packet is sent four times.
const dialMost = 10 * time.Second

// apiConnection is one of them, known until it is closed.
type apiConnection struct {
	net.Conn
	of *apiConnections
}

// newAPIConnections has all clients that are made from cfg use one transport, whose
// connections can be ended.
func newAPIConnections(cfg *rest.Config) (*apiConnections, error) {
	c := &apiConnections{open: map[*apiConnection]bool{}}
	own := rest.CopyConfig(cfg)
	own.Dial = c.dial
	shared, err := rest.TransportFor(own) // with a Dial, clients share none by themselves
	if err != nil {
		return nil, fmt.Errorf("make transport to the API server: %w", err)
	}
	*cfg = rest.Config{Host: cfg.Host, Transport: shared, QPS: cfg.QPS, Burst: cfg.Burst}
	return c, nil
}

func (c *apiConnections) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: dialMost, KeepAlive: 30 * time.Second}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	known := &apiConnection{conn, c}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[known] = true
	return known, nil
}

// Close forgets the connection, too.
func (c *apiConnection) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// host ends the connections from addresses that the host had and has no more; they
// are made anew at once, from one that it has.
func (c *apiConnections) host(h model.Host) {
	have := addressesOf(h)
	gone := slices.DeleteFunc(c.had, func(a netip.Addr) bool { return slices.Contains(have, a) })
	c.had = have
	if len(gone) == 0 {
		return
	}
	c.mu.Lock()
	var dead []*apiConnection
	for conn := range c.open {
		if from, ok := conn.LocalAddr().(*net.TCPAddr); ok && slices.Contains(gone, from.AddrPort().Addr().Unmap()) {
			dead = append(dead, conn)
		}
	}
	c.mu.Unlock()
	for _, conn := range dead {
		_ = conn.Close() // whoever uses it hears of it
	}
}

func addressesOf(h model.Host) (out []netip.Addr) {
	for _, l := range h.Links {
		for _, p := range l.Addresses {
			out = append(out, p.Addr())
		}
	}
	return out
}
