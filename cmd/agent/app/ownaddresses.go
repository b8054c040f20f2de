package app

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/nodeaddr"
	"github.com/muslin-net/muslin/pkg/task"
)

// tunnelEnd is this node's end of a kind of tunnel.
type tunnelEnd struct {
	tunnel     alloc.Tunnel
	annotation string
	announced  func(model.Node) netip.Addr              // value of the annotation, as the API server has it
	field      func(*felix.TunnelAddresses) *netip.Addr // in TunnelAddresses
}

// tunnelEnds are the tunnels that need an address of the node's own, each with
// the node annotation that tells the other nodes (Calico's names).
var tunnelEnds = []tunnelEnd{
	{alloc.TunnelIPIP, kube.AnnotationIPIPTunnel, func(n model.Node) netip.Addr { return n.IPIPTunnel },
		func(t *felix.TunnelAddresses) *netip.Addr { return &t.IPIP }},
	{alloc.TunnelVXLAN, kube.AnnotationVXLANTunnel, func(n model.Node) netip.Addr { return n.VXLANTunnel },
		func(t *felix.TunnelAddresses) *netip.Addr { return &t.VXLAN }},
	{alloc.TunnelVXLANv6, kube.AnnotationVXLANTunnelV6, func(n model.Node) netip.Addr { return n.VXLANTunnelV6 },
		func(t *felix.TunnelAddresses) *netip.Addr { return &t.VXLANV6 }},
}

// tunnelGrace is how long a tunnel address that no pool asks for any more is
// kept: other nodes hear of a changed pool at different times, and send through
// the tunnel until they do. It is well below tunnel.DefaultGrace, so that the
// device outlives the annotation that sends others to it.
const tunnelGrace = 30 * time.Second

// ownAddresses sees to what the node itself needs of the pools: a first block,
// and an address for each tunnel that a pool asks for, taken back when none has
// done so for a while.
func (a *agent) ownAddresses(ctx context.Context, ready func()) error {
	ready()
	unwanted := map[alloc.Tunnel]time.Time{}
	task.Loop(ctx, func(ctx context.Context) (next task.Next) {
		get(&a.dataplane.up, &next.Changed)
		get(&a.in.held, &next.Changed)
		get(a.in.podCIDRs, &next.Changed)
		s := get(&a.in.common, &next.Changed).Snapshot
		self, ok := s.Node(a.cfg.Node)
		if !ok || s.IPAM.Locked { // without a Node object what this node claims is taken from it at once
			return next
		}
		if !a.podCIDRs.used.Load() {
			a.claimFirst(ctx, s)
		}
		for _, end := range tunnelEnds {
			wait, err := a.addressTunnel(ctx, end, s.Pools, self, unwanted)
			if err != nil && ctx.Err() == nil {
				a.log.Warn("tunnel address not settled", "tunnel", string(end.tunnel), "error", err)
				wait = retryAfter
			}
			next = next.Within(wait)
		}
		return next
	})
	return nil
}

// addressTunnel settles one tunnel; a positive duration says when to look
// again.
func (a *agent) addressTunnel(ctx context.Context, end tunnelEnd, pools []model.Pool, self model.Node, unwanted map[alloc.Tunnel]time.Time) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	now := end.announced(self)
	request, wanted := end.tunnel.Request(pools, self)
	if wanted {
		delete(unwanted, end.tunnel)
		return 0, a.giveTunnel(ctx, end, request, now, end.tunnel.Fits(now, pools, self))
	}
	if !now.IsValid() {
		return 0, nil
	}
	since, known := unwanted[end.tunnel]
	if !known {
		since = time.Now()
		unwanted[end.tunnel] = since
	}
	if left := tunnelGrace - time.Since(since); left > 0 {
		return left, nil
	}
	return 0, a.retireTunnel(ctx, end)
}

// giveTunnel has the allocator choose an address for the tunnel, and the data
// plane make its device. The other nodes are told, by the node's annotation,
// once that device takes packets: they send as soon as they read it.
func (a *agent) giveTunnel(ctx context.Context, end tunnelEnd, request alloc.Request, now netip.Addr, fits bool) error {
	if now.IsValid() && !fits {
		if err := a.retireTunnel(ctx, end); err != nil {
			return err
		}
		now = netip.Addr{}
	}
	got, err := a.alloc.Assign(ctx, request) // the same address again when there is one
	if err != nil || len(got) == 0 {
		return err
	}
	a.setTunnel(end, got[0])
	up := a.dataplane.up.Value()
	if got[0] == now || *end.field(&up) != got[0] {
		return nil
	}
	return a.cluster.AnnotateNode(ctx, map[string]string{end.annotation: got[0].String()})
}

// retireTunnel tells the other nodes first, and then gives the address back:
// nobody sends to an address that may have a new owner.
func (a *agent) retireTunnel(ctx context.Context, end tunnelEnd) error {
	if err := a.cluster.AnnotateNode(ctx, map[string]string{end.annotation: ""}); err != nil {
		return err
	}
	a.setTunnel(end, netip.Addr{})
	return a.alloc.Release(ctx, end.tunnel.Handle(a.cfg.Node))
}

// setTunnel records an address that the node has for a tunnel, the zero one that
// it has none.
func (a *agent) setTunnel(end tunnelEnd, addr netip.Addr) {
	own := a.in.tunnels.Value()
	*end.field(&own) = addr
	if a.in.tunnels.Set(own) {
		a.tellLive()
	}
}

// claimFirst sees to it that this node has a block of each family it has pools
// and an address of, so that the first pod need not wait for one.
func (a *agent) claimFirst(ctx context.Context, s model.Snapshot) {
	self, known := s.Node(a.cfg.Node)
	for _, family := range model.Families {
		if known && nodeaddr.Unreachable(self, family) || !slices.ContainsFunc(s.Pools, func(p model.Pool) bool { return family.Has(p.CIDR.Addr()) }) {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := a.alloc.EnsureBlock(ctx, family)
		cancel()
		if err != nil {
			a.log.Info("no first block yet", "family", family, "error", err)
		}
	}
}
