package ipamview

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

// Finding is one contradiction.
type Finding struct {
	Class  string `json:"class"`  // one of the classes below
	Object string `json:"object"` // what it is about: an address, a block, a handle
	Text   string `json:"text"`   // a sentence with what to do
	// Taken is the allocation of a leak, for `ipam release --from-report`.
	Taken *Taken `json:"allocation,omitempty"`
}

// The classes of findings.
const (
	Leaked      = "LeakedAddress"
	Unallocated = "AddressNotAllocated"
	Duplicate   = "DuplicateAddress"
	BadBlock    = "InvalidBlock"
	StrayBlock  = "StrayBlock"
	BadAffinity = "StaleAffinity"
	LeakedHand  = "LeakedHandle"
)

// Check finds what does not fit, sorted by class and object.
func (s *Survey) Check() []Finding {
	var out []Finding
	add := func(class, object, format string, args ...any) {
		out = append(out, Finding{Class: class, Object: object, Text: fmt.Sprintf(format, args...)})
	}
	for _, text := range s.Invalid {
		add(BadBlock, strings.SplitN(text, ":", 2)[0], "%s", text)
	}
	out = append(out, s.addresses()...)
	out = append(out, s.missing()...)
	s.blocks(add)
	s.affinities(add)
	s.handles(add)
	slices.SortStableFunc(out, func(a, b Finding) int { return cmp.Or(cmp.Compare(a.Class, b.Class), cmp.Compare(a.Object, b.Object)) })
	return out
}

// addresses looks for leaks and for addresses with two owners.
func (s *Survey) addresses() []Finding {
	var out []Finding
	for i := range s.Taken {
		t := s.Taken[i]
		if i > 0 && s.Taken[i-1].Addr == t.Addr {
			out = append(out, Finding{Class: Duplicate, Object: t.Addr.String(), Text: fmt.Sprintf(
				"%s is assigned in block %s to %s and in block %s to %s; delete the younger of the two pods", t.Addr, s.Taken[i-1].Block, s.Taken[i-1].owner(), t.Block, t.owner())})
		}
		if why := s.leak(t); why != "" {
			out = append(out, Finding{Class: Leaked, Object: t.Addr.String(), Text: why + "; muslinctl ipam release frees it", Taken: &t})
		}
	}
	return out
}

// leak says why nobody can be using an address; empty when somebody does.
func (s *Survey) leak(t Taken) string {
	node, nodeExists := s.Nodes[model.NodeName(t.Node)]
	switch {
	case t.Pod != "":
		p, ok := s.Pods[t.Addr]
		switch {
		case !ok:
			return fmt.Sprintf("%s belongs to pod %s/%s, which does not exist or does not use it", t.Addr, t.Namespace, t.Pod)
		case p.Namespace != t.Namespace || p.Name != t.Pod:
			return fmt.Sprintf("%s belongs to pod %s/%s, and is used by pod %s/%s", t.Addr, t.Namespace, t.Pod, p.Namespace, p.Name)
		}
	case t.Service != "" && s.Services[t.Addr] == "": // one that shares it has it as well
		return fmt.Sprintf("%s belongs to Service %s/%s, which does not exist or does not have it; the controller takes it back, is it running?", t.Addr, t.Namespace, t.Service)
	case strings.HasSuffix(t.Type, "TunnelAddress") && !nodeExists:
		return fmt.Sprintf("%s is a tunnel address of node %s, which does not exist", t.Addr, t.Node)
	case strings.HasSuffix(t.Type, "TunnelAddress") && !slices.Contains(node.Tunnels, t.Addr):
		return fmt.Sprintf("%s is a tunnel address of node %s, which uses another one", t.Addr, t.Node)
	}
	return ""
}

// missing finds pods and Services whose address nobody has assigned.
func (s *Survey) missing() []Finding {
	taken := make(map[netip.Addr]bool, len(s.Taken))
	for i := range s.Taken {
		taken[s.Taken[i].Addr] = true
	}
	var out []Finding
	for a, p := range s.Pods {
		if pool, in := s.PoolOf(a); in && !taken[a] {
			out = append(out, Finding{Class: Unallocated, Object: a.String(), Text: fmt.Sprintf(
				"%s of IPPool %s is used by pod %s/%s and not assigned to it: somebody else may get it; delete the pod", a, pool.Name, p.Namespace, p.Name)})
		}
	}
	for a, service := range s.Services {
		if pool, in := s.PoolOf(a); in && !taken[a] {
			out = append(out, Finding{Class: Unallocated, Object: a.String(), Text: fmt.Sprintf(
				"%s of IPPool %s is in the status of Service %s and not assigned to it: somebody else may get it; the controller assigns it, is it running?", a, pool.Name, service)})
		}
	}
	return out
}

func (s *Survey) blocks(add func(class, object, format string, args ...any)) {
	confirmed := map[ipam.AffinityKey]bool{}
	for _, a := range s.Affinities {
		confirmed[ipam.AffinityKey{Node: a.Node, CIDR: a.CIDR}] = true
	}
	for _, b := range s.Blocks {
		object := "block " + b.CIDR.String()
		if _, in := s.PoolOf(b.CIDR.Addr()); !in {
			add(StrayBlock, object, "block %s lies in no pool; make its pool again, or delete the pods in it", b.CIDR)
		}
		if b.Node == "" {
			continue
		}
		if _, ok := s.Nodes[b.Node]; !ok {
			add(StrayBlock, object, "block %s belongs to node %s, which does not exist; the controller takes it back, is it running?", b.CIDR, b.Node)
		} else if !confirmed[ipam.AffinityKey{Node: b.Node, CIDR: b.CIDR}] {
			add(BadAffinity, object, "block %s belongs to node %s, which has no BlockAffinity for it: it is not announced; the node's agent makes one, is it running?", b.CIDR, b.Node)
		}
	}
	for i := 1; i < len(s.Blocks); i++ {
		if a, b := s.Blocks[i-1], s.Blocks[i]; a.CIDR.Overlaps(b.CIDR) {
			add(StrayBlock, "block "+b.CIDR.String(), "block %s overlaps block %s; the pool's block size was changed under them", b.CIDR, a.CIDR)
		}
	}
}

func (s *Survey) affinities(add func(class, object, format string, args ...any)) {
	owner := map[netip.Prefix]model.NodeName{}
	exists := map[netip.Prefix]bool{}
	for _, b := range s.Blocks {
		owner[b.CIDR], exists[b.CIDR] = b.Node, true
	}
	for _, a := range s.Affinities {
		object := "affinity " + ipam.AffinityName(a.Node, a.CIDR)
		switch {
		case a.Type != "host" || a.State != model.BlockConfirmed:
		case !exists[a.CIDR]:
			add(BadAffinity, object, "node %s has a claim to block %s, which does not exist: it is announced for nothing; the node's agent drops it, is it running?", a.Node, a.CIDR)
		case owner[a.CIDR] != a.Node:
			add(BadAffinity, object, "node %s claims block %s, which belongs to %s: both announce it; delete BlockAffinity %s with kubectl", a.Node, a.CIDR, cmp.Or(string(owner[a.CIDR]), "nobody"), ipam.AffinityName(a.Node, a.CIDR))
		}
	}
}

func (s *Survey) handles(add func(class, object, format string, args ...any)) {
	have := map[string]int{}
	for i := range s.Taken {
		have[ipam.HandleName(s.Taken[i].Handle)]++
	}
	for name, h := range s.Handles {
		if have[name] == 0 {
			add(LeakedHand, "handle "+name, "handle %s has no address; muslinctl ipam release --from-report deletes it", h.ID)
		}
	}
}
