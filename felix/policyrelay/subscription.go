package policyrelay

import (
	"encoding/binary"
	"errors"
	"strings"

	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/felix/policyrelay/relayrpc"
	"github.com/muslin-net/muslin/pkg/model"
)

const (
	mostPending = 20_000 // changes of pods that a subscriber may be behind
	mostNeeds   = 10_000
	perResponse = 500 // pods
)

// errSlow ends the stream of an agent that does not read: it begins anew, with what it has.
var errSlow = errors.New("the agent is too far behind")

// errSum refuses what is no digest.
var errSum = errors.New("a sum is not of 16 bytes")

// errManyNeeds refuses an agent that needs more than any node's policies can name.
var errManyNeeds = errors.New("too many needs")

// Subscription is what one agent needs, and what it has not been sent of it yet. What
// is due is names, not pods: a pod that changes twice is sent once, as it is then.
type Subscription struct {
	index    *Index
	wakes    chan struct{}
	needs    map[*need]bool
	refused  []policy.Need
	revision uint64
	reset    uint32
	queue    []*entry // of needs that are new, or gone
	pending  map[podKey]bool
	open     bool // something is to be sent, if only that this is all
	begun    bool
	slow     bool

	acknowledgement
}

// Subscribe gives a Subscription of a node without needs. It has to be closed.
func (x *Index) Subscribe(node model.NodeName, acknowledges bool) *Subscription {
	s := &Subscription{
		index: x, wakes: make(chan struct{}, 1), needs: map[*need]bool{}, pending: map[podKey]bool{},
		acknowledgement: acknowledgement{node: node, acknowledges: acknowledges, sent: map[podKey]uint64{}},
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.all[s] = true
	return s
}

// Close ends it.
func (s *Subscription) Close() {
	x := s.index
	x.mu.Lock()
	defer x.mu.Unlock()
	s.leave()
	for n := range s.needs {
		x.release(n, s)
	}
	s.needs = nil
	delete(x.all, s)
}

// wake tells that there may be something to send. The caller holds the index's mu.
func (s *Subscription) wake() {
	select {
	case s.wakes <- struct{}{}:
	default:
	}
}

// note has a pod be sent. The caller holds the index's mu.
func (s *Subscription) note(k podKey) {
	if s.slow = s.slow || len(s.pending) >= mostPending; !s.slow {
		s.waits(k)
	}
	s.open = true
	s.wake()
}

// Need has the subscriber need these, and nothing else; revision is theirs. Where it is
// the first time, have is what the agent has of them: the digest of each bucket, or nil.
func (s *Subscription) Need(list []policy.Need, revision uint64, have []digest) error {
	if len(list) > mostNeeds {
		return errManyNeeds
	}
	x := s.index
	x.mu.Lock()
	defer x.mu.Unlock()
	next := map[*need]bool{}
	s.refused = nil
	for _, of := range list {
		n := x.want(of)
		if n == nil {
			s.refused = append(s.refused, of)
			continue
		}
		n.of[s], next[n] = true, true
	}
	old, begun := s.needs, s.begun
	s.needs, s.revision, s.open, s.begun = next, revision, true, true
	if !begun {
		s.come()
		s.begin(have)
	}
	for n := range next {
		if begun && !old[n] {
			s.enqueue(n)
		}
	}
	for n := range old {
		if !next[n] {
			s.enqueue(n) // what no other need has is dropped when its turn comes
			x.release(n, s)
		}
	}
	s.wake()
	return nil
}

func (s *Subscription) enqueue(n *need) {
	for g := range n.groups {
		for e := range g.pods {
			s.queue = append(s.queue, e)
		}
	}
}

// begin has those buckets be sent that differ from what the agent has.
func (s *Subscription) begin(have []digest) {
	var sums [buckets]digest
	view := map[*entry]bool{}
	for n := range s.needs {
		for g := range n.groups {
			for e := range g.pods {
				if !view[e] {
					view[e] = true
					sums[e.bucket] = sums[e.bucket].plus(e.sum)
				}
			}
		}
	}
	for b := range sums {
		if len(have) != buckets || have[b] != sums[b] {
			s.reset |= 1 << b
		}
	}
	for e := range view {
		if s.reset&(1<<e.bucket) != 0 {
			s.queue = append(s.queue, e)
		}
	}
}

// sees reports whether a need of the subscriber has a pod.
func (s *Subscription) sees(e *entry) bool {
	if e.group == nil {
		return false
	}
	if len(s.needs) < len(e.group.needs) {
		for n := range s.needs {
			if n.groups[e.group] {
				return true
			}
		}
		return false
	}
	for n := range e.group.needs {
		if s.needs[n] {
			return true
		}
	}
	return false
}

// Next gives what is due, a piece of it, or nil if nothing is. An error ends the
// subscription.
func (s *Subscription) Next() (*relayrpc.Response, error) {
	x := s.index
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case s.slow:
		return nil, errSlow
	case !x.synced || !s.begun || !s.open:
		return nil, nil
	}
	out := newEncoder()
	out.out.Reset_, s.reset = s.reset, 0
	s.number++
	number := 0
	for ; len(s.queue) > 0 && number < perResponse; number++ {
		e := s.queue[len(s.queue)-1]
		s.queue = s.queue[:len(s.queue)-1]
		s.send(out, keyOf(&e.PolicyPod))
	}
	if len(s.queue) == 0 {
		s.queue = nil // its memory goes
	}
	for k := range s.pending {
		if number++; number > perResponse {
			break
		}
		s.sends(k)
		s.send(out, k)
	}
	if len(s.queue)+len(s.pending) == 0 {
		s.open = false
		out.out.Complete, out.out.Revision = true, s.revision
		if s.first == 0 {
			s.first = s.number
		}
		if len(s.sent) > 0 || s.acknowledges && !s.current {
			out.out.Number = s.number
		}
		for _, n := range s.refused {
			out.out.Refused = append(out.out.Refused, &relayrpc.Need{Selector: n.Selector, Port: n.Port})
		}
	}
	return out.out, nil
}

// send puts a pod into a Response as it is now.
func (s *Subscription) send(out *encoder, k podKey) {
	if e := s.index.pods[k]; e != nil && s.sees(e) {
		out.put(&e.member, e.group.key)
		return
	}
	out.out.Drop = append(out.out.Drop, k.String())
}

// keyFrom reads a pod's name as send writes it.
func keyFrom(text string) podKey {
	namespace, name, _ := strings.Cut(text, "/")
	return podKey{namespace, name}
}

// subscribe has a Subscription need, or know, what a Request says.
func subscribe(s *Subscription, q *relayrpc.Request) error {
	if q.Acknowledged != 0 {
		s.Acknowledge(q.Acknowledged)
		return nil
	}
	var have []digest
	for _, b := range q.Sums {
		if len(b) != 16 {
			return errSum
		}
		have = append(have, digest{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])})
	}
	list := make([]policy.Need, 0, len(q.Needs))
	for _, n := range q.Needs {
		list = append(list, policy.Need{Selector: n.Selector, Port: n.Port})
	}
	return s.Need(list, q.Revision, have)
}
