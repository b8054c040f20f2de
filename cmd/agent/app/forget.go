package app

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/muslin-net/muslin/pkg/task"
)

// The connections of addresses that nobody has any more are ended once in sweepEvery at most,
// and in sweepPart times as long as it takes: an ADD waits meanwhile.
const (
	sweepEvery = time.Second
	sweepPart  = 20
)

// forget ends the connections of addresses that changed hands, once the kernel judges
// new ones by what is wanted now. No ADD of such an address is answered before; those of
// addresses that are free end together. Where nothing is judged there is nothing to
// inherit, and to look at the kernel's connections costs tens of milliseconds.
func (p *policyLoop) forget(evaluated bool, next *task.Next) error {
	switch left := time.Until(p.sweepAt); {
	case !evaluated:
		p.tenure.unjudged()
		return nil
	case p.tenure.idle():
		return nil
	case !p.tenure.urgent() && left > 0:
		*next = next.Within(left)
		return nil
	}
	began := time.Now()
	err := p.end(p.tenure.search(p.assigned))
	p.sweepAt = time.Now().Add(max(sweepEvery, sweepPart*time.Since(began)))
	return err
}

// end ends connections.
func (p *policyLoop) end(s search) (err error) {
	if len(s.blocks) > 0 {
		_, err = p.sink.ForgetAll(s.has)
	} else {
		_, err = p.sink.Forget(slices.Collect(maps.Keys(s.addresses)))
	}
	if errors.Is(err, errors.ErrUnsupported) {
		if !p.deaf {
			p.log.Warn("a pod may inherit connections with the address of another", "error", err)
		}
		p.deaf, err = true, nil
	}
	if err == nil {
		p.tenure.found(s)
	}
	return err
}

// ofSelf are the node's own addresses that IPAM gave it.
func (p *policyLoop) ofSelf(next *task.Next) (out []netip.Addr) {
	own := get(&p.in.tunnels, &next.Changed)
	for _, a := range []netip.Addr{own.IPIP, own.VXLAN, own.VXLANV6} {
		if a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}

// dropping are the node's blocks where what is sent to a free address is dropped, by their
// version. One that is not IPAM's has none.
func (p *policyLoop) dropping(next *task.Next) map[netip.Prefix]uint64 {
	holes, versions := get(p.holes, &next.Changed), p.alloc.Versions()
	out := make(map[netip.Prefix]uint64, len(holes))
	for _, b := range holes {
		out[b] = versions[b]
	}
	return out
}

// assigned yields the addresses of the node's blocks that are not free: of its own pods, of other nodes' and
// of its tunnels.
func (p *policyLoop) assigned(yield func(netip.Addr) bool) {
	for _, a := range p.alloc.Allocations() {
		if !yield(a.Addr) {
			return
		}
	}
}
