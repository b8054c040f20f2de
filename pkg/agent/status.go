package agent

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
)

// reportStatus keeps what the API server says of this node true: the node's
// address with its subnet, which other nodes compare with theirs, and
// NetworkUnavailable, which is cleared once the node can carry pods. It is
// never set again by a running agent: pods keep talking while it restarts.
func (a *agent) reportStatus(ctx context.Context, ready func()) error {
	ready()
	for cleared := false; ; {
		wait := time.Minute
		if err := a.annotateAddress(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("node address not recorded", "error", err)
			wait = retryAfter
		}
		if err := a.annotateDrain(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("drain not confirmed", "error", err)
			wait = retryAfter
		}
		if err := a.tellReflector(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("load of the route reflector not told", "error", err)
			wait = retryAfter
		}
		if len(a.conds.waiting(gateCluster, gateKernel, gateBGP)) == 0 {
			err := a.cluster.SetNetworkUnavailable(ctx, false, "MuslinIsUp", "Muslin forwards pod traffic on this node")
			switch {
			case err != nil && ctx.Err() == nil:
				a.log.Warn("node condition not written", "error", err)
				wait = retryAfter
			case err == nil && !cleared:
				cleared = true
				a.log.Info("node network is up")
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.conds.changed:
		case <-time.After(wait):
		}
	}
}

// annotateAddress records the node's address with the length of its subnet, as
// the kernel has it (projectcalico.org/IPv4Address, IPv6Address). An
// annotation that somebody else set to another address is left alone.
func (a *agent) annotateAddress(ctx context.Context) error {
	self, ok := findNode(a.cluster.Snapshot(), a.cfg.Node)
	if !ok {
		return nil
	}
	add := map[string]string{}
	for annotation, known := range map[string]netip.Prefix{kube.AnnotationIPv4Address: self.IPv4, kube.AnnotationIPv6Address: self.IPv6} {
		if !known.IsValid() {
			continue
		}
		text := onLink(a.links.Host(), known.Addr()).String()
		old := self.Annotations[annotation]
		if text != old && (old == "" || strings.HasPrefix(old, known.Addr().String())) && text != "invalid Prefix" {
			add[annotation] = text
		}
	}
	if len(add) == 0 {
		return nil
	}
	return a.cluster.AnnotateNode(ctx, add)
}

// onLink finds the address among the kernel's, with its subnet's length.
func onLink(h model.Host, addr netip.Addr) netip.Prefix {
	for _, l := range h.Links {
		for _, p := range l.Addresses {
			if p.Addr() == addr {
				return p
			}
		}
	}
	return netip.Prefix{}
}
