package app

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/muslin-net/muslin/felix/nodeview"
	"github.com/muslin-net/muslin/felix/policynft"
	"github.com/muslin-net/muslin/pkg/model"
)

// mostDenied is how many kinds of denied packets are kept: those that came last.
const mostDenied = 1000

// deniedList is the packets that policy denied, those that are alike as one.
type deniedList struct {
	mu   sync.Mutex
	list []nodeview.Denied // oldest Last first
}

// note adds a packet. pod is the one of this node that policy judged.
func (l *deniedList) note(k policynft.Denied, pod string, now time.Time) {
	one := nodeview.Denied{
		Direction: k.Direction, By: k.By, Pod: pod, Protocol: k.Protocol,
		Source: k.Source.Addr(), Destination: k.Destination.Addr(), Port: k.Destination.Port(),
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	known := slices.IndexFunc(l.list, func(d nodeview.Denied) bool {
		d.First, d.Last, d.Count = time.Time{}, time.Time{}, 0
		return d == one
	})
	one.First, one.Last, one.Count = now, now, 1
	switch {
	case known >= 0:
		one.First, one.Count = l.list[known].First, l.list[known].Count+1
		l.list = slices.Delete(l.list, known, known+1)
	case len(l.list) == mostDenied:
		l.list = slices.Delete(l.list, 0, 1)
	}
	l.list = append(l.list, one)
}

// get gives those that are kept, the last one first.
func (l *deniedList) get() []nodeview.Denied {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := slices.Clone(l.list)
	slices.Reverse(out)
	for i := range out {
		out[i].Age = max(1, time.Since(out[i].Last))
	}
	return out
}

// listenAgain is when listening for denied packets is tried anew: an agent of before
// may not have ended.
const listenAgain = 10 * time.Second

// receiveDenied keeps the denied packets that the kernel tells of, until ctx ends.
func (p *policyLoop) receiveDenied(ctx context.Context, ready func()) error {
	ready()
	reported := ""
	for ctx.Err() == nil {
		err := p.sink.Listen(ctx, func(k policynft.Denied) {
			p.denied.note(k, evaluated(p.endpoints.List(), k), time.Now())
		})
		if err != nil && err.Error() != reported {
			reported = err.Error()
			p.log.Warn("denied packets are not seen; they are denied all the same", "error", err)
		}
		pause(ctx, listenAgain)
	}
	return nil
}

// evaluated names the pod that a packet was denied for: it is that of this node's end.
func evaluated(pods []model.Endpoint, k policynft.Denied) string {
	own := k.Destination.Addr()
	if k.Direction == "egress" {
		own = k.Source.Addr()
	}
	i := slices.IndexFunc(pods, func(e model.Endpoint) bool {
		return slices.Contains(e.Addresses, own)
	})
	if i < 0 {
		return ""
	}
	return pods[i].Namespace + "/" + pods[i].Pod
}

// dropped counts the packets that the kernel denied in each direction.
func (p *policyLoop) dropped() (ingress, egress uint64) {
	var errs [2]error
	ingress, errs[0] = p.sink.Dropped("ingress")
	egress, errs[1] = p.sink.Dropped("egress")
	if err := cmp.Or(errs[0], errs[1]); err != nil {
		p.log.Debug("count denied packets", "error", err)
	}
	return ingress, egress
}
