package gobgp

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"

	"github.com/osrg/gobgp/v4/api"
	gobgp "github.com/osrg/gobgp/v4/pkg/server"

	"github.com/muslin-net/muslin/bgp"
)

// server is one life of a GoBGP server.
type server struct {
	bgp *gobgp.BgpServer
	log *slog.Logger

	// in force: what GoBGP took without an error
	paths    map[netip.Prefix]bgp.Path
	peers    map[netip.Addr]bgp.Peer
	policies map[policyID]bgp.Policy
	ran      map[netip.Addr]used
	notified map[netip.Addr]uint64 // NOTIFICATIONs sent, when last looked
	refusals map[netip.Addr]uint64 // NOTIFICATIONs received, when last looked
	chains   *chains               // what GoBGP was given for the policies and their peers
	issue    int                   // how many chains there were

	ribCancel context.CancelFunc
	evCancel  context.CancelFunc
}

// startServer starts GoBGP with two tables only: each further family would
// cost memory and serve nobody.
func startServer(ctx context.Context, log *slog.Logger, cfg bgp.Config, received func(peerRecord)) (*server, error) {
	s := &server{
		log: log, paths: map[netip.Prefix]bgp.Path{}, peers: map[netip.Addr]bgp.Peer{}, ran: map[netip.Addr]used{},
		notified: map[netip.Addr]uint64{}, refusals: map[netip.Addr]uint64{},
	}
	s.bgp = gobgp.NewBgpServer(gobgp.LoggerOption(filterLevel(log, received), nil))
	go s.bgp.Serve()
	err := s.bgp.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{
		Asn:              uint32(cfg.ASN),
		RouterId:         cfg.RouterID.String(),
		ListenPort:       int32(cfg.ListenPort),
		ListenAddresses:  listenAddresses(cfg),
		UseMultiplePaths: true,
		Families:         []uint32{0, 1}, // GoBGP's numbers of ipv4-unicast and ipv6-unicast
	}})
	if err != nil {
		s.bgp.Stop()
		return nil, fmt.Errorf("start bgp as %s on port %d: %w", cfg.ASN, cfg.ListenPort, err)
	}
	return s, nil
}

// listenAddresses names the wildcards one by one: on a host without IPv6
// GoBGP's own default would fail.
func listenAddresses(cfg bgp.Config) []string {
	var out []string
	for _, a := range cfg.Listen {
		out = append(out, a.String())
	}
	if len(out) > 0 {
		return out
	}
	out = append(out, "0.0.0.0")
	if _, err := os.Stat("/proc/net/if_inet6"); err == nil {
		out = append(out, "::")
	}
	return out
}

// globalChanged reports a difference that only a new server can honour.
func globalChanged(old, cfg bgp.Config) bool {
	return old.ASN != 0 && (old.ASN != cfg.ASN || old.RouterID != cfg.RouterID || old.ListenPort != cfg.ListenPort || !slices.Equal(old.Listen, cfg.Listen))
}

// stop ends all sessions with a Cease, and every goroutine of the server's: those
// of BFD are left over by StopBgp alone.
func (s *server) stop() {
	s.unwatch()
	s.bgp.Stop()
}

// stopGracefully ends them by closing the connections, for a process that ends.
func (s *server) stopGracefully(ctx context.Context) {
	s.unwatch()
	if err := s.bgp.StopBgp(ctx, &api.StopBgpRequest{AllowGracefulRestart: true}); err != nil {
		s.log.Error("bgp could not be stopped", "error", err)
	}
}

func (s *server) unwatch() {
	for _, cancel := range []context.CancelFunc{s.ribCancel, s.evCancel} {
		if cancel != nil {
			cancel()
		}
	}
}
