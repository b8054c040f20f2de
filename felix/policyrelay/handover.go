package policyrelay

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/muslin-net/muslin/felix/policyrelay/relayrpc"
	"github.com/muslin-net/muslin/pkg/model"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// handOverFor is how long who had an address before matters to who has it next, and how
// long an agent that does not watch any more does.
const handOverFor = time.Minute

// answerIn is how long before the caller gives up it is told why.
const answerIn = 200 * time.Millisecond

// blockFor is how long the API server's word of a block that was written may take.
const blockFor = 2 * time.Second

// former are those who had addresses within handOverFor, the nodes whose agents watched
// within it, and what agents that watch do not know yet.
type former struct {
	owners map[netip.Addr]map[podKey]time.Time // until then
	pods   map[podKey]time.Time                // the same ones
	nodes  map[model.NodeName]time.Time        // until then
	pruned time.Time

	unknown map[podKey]int         // how many subscribers have not acknowledged the last change of a pod
	behind  int                    // how many have not acknowledged their first answer
	present map[model.NodeName]int // subscribers of each node
	turned  chan struct{}          // closed once somebody may have less to wait for; nil: nobody waits
}

func newFormer() former {
	return former{
		owners: map[netip.Addr]map[podKey]time.Time{}, pods: map[podKey]time.Time{}, nodes: map[model.NodeName]time.Time{},
		unknown: map[podKey]int{}, present: map[model.NodeName]int{},
	}
}

// lost notes addresses that a pod had, and has no more.
func (f *former) lost(k podKey, was, is []netip.Addr) {
	for _, a := range was {
		if slices.Contains(is, a) {
			continue
		}
		if f.owners[a] == nil {
			f.owners[a] = map[podKey]time.Time{}
		}
		f.pods[k] = time.Now().Add(handOverFor)
		f.owners[a][k] = f.pods[k]
	}
}

// turn has those look again who wait.
func (f *former) turn() {
	if f.turned != nil {
		close(f.turned)
		f.turned = nil
	}
}

// prune forgets what is over.
func (f *former) prune() {
	now := time.Now()
	if now.Sub(f.pruned) < handOverFor/4 {
		return
	}
	f.pruned = now
	for a, owners := range f.owners {
		maps.DeleteFunc(owners, func(_ podKey, until time.Time) bool { return now.After(until) })
		if len(owners) == 0 {
			delete(f.owners, a)
		}
	}
	maps.DeleteFunc(f.pods, func(_ podKey, until time.Time) bool { return now.After(until) })
	maps.DeleteFunc(f.nodes, func(_ model.NodeName, until time.Time) bool { return now.After(until) })
}

// taken is an address that a pod of a node has been given.
type taken struct {
	node  model.NodeName
	pod   podKey
	addrs []netip.Addr
	// late: a block that gives it to the pod would be known by now. That of a node whose clock is behind
	// is taken for one of before the pod, and never is.
	late bool
}

// handedOver reports whether a pod has its addresses, and no subscriber takes them for
// those of who had them before; if not, changed is closed once it may be. away are
// nodes that do not subscribe: of those that are requested, or if none is, of those
// that did.
func (x *Index) handedOver(t taken, requested []string) (away []string, changed <-chan struct{}, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.pods[t.pod]
	if e != nil && e.Node != t.node {
		return nil, nil, status.Errorf(codes.PermissionDenied, "pod %s is not of node %s", t.pod, t.node)
	}
	over, owners := true, map[podKey]bool{}
	for _, a := range t.addrs {
		has := func(e *entry) bool { return slices.Contains(e.Addresses, a) }
		over = over && (e != nil && has(e) || t.late && !slices.ContainsFunc(x.claimants[a], has))
		for owner := range x.former.owners[a] {
			owners[owner] = true
		}
	}
	for owner := range owners {
		over = over && x.former.behind == 0 && x.former.unknown[owner] == 0
	}
	switch {
	case !over:
		if x.former.turned == nil {
			x.former.turned = make(chan struct{})
		}
		return nil, x.former.turned, nil
	case len(requested) == 0 && len(owners) > 0:
		for n := range x.former.nodes {
			requested = append(requested, string(n))
		}
	}
	return slices.DeleteFunc(requested, func(n string) bool { return x.former.present[model.NodeName(n)] > 0 }), nil, nil
}

// waitedFor are the nodes whose agents have not acknowledged something.
func (x *Index) waitedFor() (out []model.NodeName) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for s := range x.all {
		if s.acknowledges && (!s.current || len(s.sent)+len(s.pending) > 0) {
			out = append(out, s.node)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// acknowledgement is how far a subscriber's kernel is. The index's mu guards it.
type acknowledgement struct {
	node         model.NodeName
	acknowledges bool
	number       uint64            // of the last Response
	first        uint64            // of the first one that is complete
	current      bool              // that one is acknowledged
	sent         map[podKey]uint64 // changes that are to be acknowledged, by the number of their Response
}

// Acknowledge notes that all up to a number counts in the subscriber's kernel.
func (s *Subscription) Acknowledge(number uint64) {
	x := s.index
	x.mu.Lock()
	defer x.mu.Unlock()
	if !s.current && s.first != 0 && number >= s.first {
		s.current = true
		x.former.behind--
		x.former.turn()
		delete(x.former.nodes, s.node)
	}
	for k, n := range s.sent {
		if n <= number {
			if delete(s.sent, k); !s.pending[k] {
				x.former.known(k)
			}
		}
	}
}

// waits notes that a change of a pod is to be sent. The caller holds the index's mu.
func (s *Subscription) waits(k podKey) {
	if _, sent := s.sent[k]; s.acknowledges && !s.pending[k] && !sent {
		s.index.former.unknown[k]++
	}
	s.pending[k] = true
}

// sends notes that it is sent. Only what became of who had an address is to be
// acknowledged. The caller holds the index's mu.
func (s *Subscription) sends(k podKey) {
	delete(s.pending, k)
	_, lost := s.index.former.pods[k]
	_, before := s.sent[k]
	switch {
	case !s.acknowledges:
	case lost || before:
		s.sent[k] = s.number
		s.slow = s.slow || len(s.sent) > mostPending
	default:
		s.index.former.known(k)
	}
}

// known notes that one subscriber more knows the last change of a pod.
func (f *former) known(k podKey) {
	if f.unknown[k]--; f.unknown[k] == 0 {
		delete(f.unknown, k)
		f.turn()
	}
}

// come notes that a subscriber has said what it needs. The caller holds the index's mu.
func (s *Subscription) come() {
	if s.acknowledges {
		s.index.former.behind++
		s.index.former.present[s.node]++
	}
}

// leave notes that a subscriber is not there any more: who needed something is
// away. The caller holds the index's mu.
func (s *Subscription) leave() {
	f := &s.index.former
	if !s.acknowledges || !s.begun {
		return
	}
	if f.present[s.node]--; f.present[s.node] == 0 {
		delete(f.present, s.node)
	}
	if !s.current {
		f.behind--
	}
	for k := range s.pending {
		s.sent[k] = 0
	}
	for k := range s.sent {
		f.known(k)
	}
	if len(s.needs) > 0 {
		f.nodes[s.node] = time.Now().Add(handOverFor)
	}
	f.turn()
}

// HandOver is the call of that name.
func (s *Server) HandOver(ctx context.Context, q *relayrpc.HandOverRequest) (*relayrpc.HandOverResponse, error) {
	node, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	t := taken{node: node, pod: podKey{q.Namespace, q.Name}}
	for _, b := range q.Addresses {
		a, ok := netip.AddrFromSlice(b)
		if !ok {
			return nil, status.Errorf(codes.InvalidArgument, "an address of %d bytes", len(b))
		}
		t.addrs = append(t.addrs, a.Unmap())
	}
	late := time.After(blockFor)
	until := time.Now().Add(handOverFor)
	if end, ok := ctx.Deadline(); ok && end.Before(until) {
		until = end.Add(-answerIn)
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	for {
		away, changed, err := s.Index.handedOver(t, q.Nodes)
		if err != nil || changed == nil {
			return &relayrpc.HandOverResponse{Nodes: away}, err
		}
		select {
		case <-changed:
		case <-late:
			t.late = true
		case <-ctx.Done():
			return nil, status.Errorf(codes.DeadlineExceeded, "the new owner is not known yet, or not to nodes %v", s.Index.waitedFor())
		}
	}
}
