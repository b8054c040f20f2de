package policyrelay

import (
	"context"
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

// blockFor is how long the API server's word of a block that was written may take.
const blockFor = 2 * time.Second

// former are those who had addresses within handOverFor, and the nodes whose agents
// watched.
type former struct {
	owners map[netip.Addr]map[podKey]time.Time // until then
	nodes  map[model.NodeName]time.Time        // until then
	pruned time.Time
	turned chan struct{} // closed once somebody may have less to wait for; nil: nobody waits
}

func newFormer() former {
	return former{owners: map[netip.Addr]map[podKey]time.Time{}, nodes: map[model.NodeName]time.Time{}}
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
		f.owners[a][k] = time.Now().Add(handOverFor)
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
		for k, until := range owners {
			if now.After(until) {
				delete(owners, k)
			}
		}
		if len(owners) == 0 {
			delete(f.owners, a)
		}
	}
	for n, until := range f.nodes {
		if now.After(until) {
			delete(f.nodes, n)
		}
	}
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
	present := map[model.NodeName]bool{}
	for s := range x.all {
		if !s.holds(owners) {
			present[s.node] = true
		} else {
			over = false
		}
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
	return slices.DeleteFunc(requested, func(n string) bool { return present[model.NodeName(n)] }), nil, nil
}

// holds reports whether a subscriber may not know yet what has become of a pod.
func (s *Subscription) holds(owners map[podKey]bool) bool {
	if !s.acknowledges || len(s.needs) == 0 {
		return false
	}
	for k := range owners {
		if _, sent := s.sent[k]; sent || s.pending[k] || !s.current {
			return true
		}
	}
	return false
}

// Acknowledge notes that all up to a number counts in the subscriber's kernel.
func (s *Subscription) Acknowledge(number uint64) {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	s.current = s.current || number >= s.first && s.first != 0
	if s.current {
		delete(s.index.former.nodes, s.node)
	}
	for k, n := range s.sent {
		if n <= number {
			delete(s.sent, k)
		}
	}
	s.index.former.turn()
}

// leave notes that a subscriber who needs something is not there any more. The caller holds the
// index's mu.
func (s *Subscription) leave() {
	if s.acknowledges && len(s.needs) > 0 {
		s.index.former.nodes[s.node] = time.Now().Add(handOverFor)
	}
	s.index.former.turn()
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
	ctx, cancel := context.WithTimeout(ctx, handOverFor)
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
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
}
