package app

import (
	"net/netip"

	"github.com/muslin-net/muslin/pkg/model"
)

// tenure knows which sandbox has which address, and which addresses may have
// connections of somebody who had them before: those that it names unclean, and those
// that are free in blocks that nobody has looked through.
//
// A free address of a block comes to no connection that was not there before: the
// block's route drops what is sent to it before the kernel keeps a connection. So a block
// is looked through once; after that it is enough to know which addresses somebody had.
type tenure struct {
	owner   map[netip.Addr]string     // of those that somebody has
	unclean map[netip.Addr]bool       // may have connections that are not its owner's
	blocks  map[netip.Prefix]*looking // those in which free addresses come to no connection
}

// looking is what is known of the free addresses of a block.
type looking struct {
	version uint64 // see ipam/alloc.Allocator.Versions; 0: not known, and then it is not looked through
	through bool   // they have no connections, except for those that were not free then:
	but     map[netip.Addr]bool
	clean   map[netip.Addr]bool // as long as it is not looked through: these have none
}

func (l *looking) due() bool { return l.version != 0 && !l.through }

// ofNode owns what no pod has: tunnel addresses.
const ofNode = "node"

// newTenure takes those that pods have had since before this process.
func newTenure(pods []model.Endpoint) *tenure {
	t := &tenure{unclean: map[netip.Addr]bool{}}
	t.next(pods, nil, nil)
	clear(t.unclean)
	return t
}

// next takes the pods of now, what the node itself has, and the blocks. Unclean are
// addresses that have another owner than before or none, and those of pods of which it is
// not known who had them before.
func (t *tenure) next(pods []model.Endpoint, ofSelf []netip.Addr, blocks map[netip.Prefix]uint64) {
	t.follow(blocks)
	now := map[netip.Addr]string{}
	for _, a := range ofSelf {
		now[a] = ofNode
	}
	for _, e := range pods {
		for _, a := range e.Addresses {
			now[a] = e.ContainerID
		}
	}
	for a, was := range t.owner {
		if now[a] != was {
			t.unclean[a] = true
		}
	}
	for a, is := range now {
		if _, had := t.owner[a]; !had && is != ofNode && !t.clean(a) {
			t.unclean[a] = true
		}
	}
	t.owner = now
}

// follow takes the blocks of now. In one that is new, or that somebody else has
// written, an address may have had an owner meanwhile.
func (t *tenure) follow(blocks map[netip.Prefix]uint64) {
	next := make(map[netip.Prefix]*looking, len(blocks))
	for b, version := range blocks {
		if next[b] = t.blocks[b]; next[b] == nil || next[b].version != version {
			next[b] = &looking{version: version, clean: map[netip.Addr]bool{}}
		}
	}
	t.blocks = next
}

// block finds the block of an address.
func (t *tenure) block(a netip.Addr) *looking {
	for prefix, b := range t.blocks {
		if prefix.Contains(a) {
			return b
		}
	}
	return nil
}

// clean reports whether an address that was free has no connections.
func (t *tenure) clean(a netip.Addr) bool {
	b := t.block(a)
	switch {
	case b == nil || t.unclean[a]:
		return false
	case b.through:
		return !b.but[a]
	}
	return b.clean[a]
}

// expect has addresses be unclean that pods are about to have, unless they are known to be clean.
func (t *tenure) expect(coming []netip.Addr) search {
	s := search{addresses: map[netip.Addr]bool{}}
	for _, a := range coming {
		if _, owned := t.owner[a]; !owned && !t.clean(a) {
			t.unclean[a], s.addresses[a] = true, true
		}
	}
	return s
}

// idle reports whether there is nothing to look for.
func (t *tenure) idle() bool {
	for _, b := range t.blocks {
		if b.due() {
			return false
		}
	}
	return len(t.unclean) == 0
}

// urgent reports whether a pod has an address that is unclean.
func (t *tenure) urgent() bool {
	for a := range t.unclean {
		if t.owner[a] != "" {
			return true
		}
	}
	return false
}

// search is what has to have no connections: some addresses, and all of some blocks but those
// that are not free.
type search struct {
	addresses map[netip.Addr]bool
	blocks    []netip.Prefix
	but       map[netip.Addr]bool
}

func (s search) has(a netip.Addr) bool {
	if s.addresses[a] {
		return true
	}
	for _, b := range s.blocks {
		if b.Contains(a) {
			return !s.but[a]
		}
	}
	return false
}

// search gives what is to be looked for. assigned are the addresses of the blocks that are
// not free, as far as they are not pods' of this node.
func (t *tenure) search(assigned func(yield func(netip.Addr) bool)) search {
	s := search{addresses: t.unclean, but: map[netip.Addr]bool{}}
	for prefix, b := range t.blocks {
		if b.due() {
			s.blocks = append(s.blocks, prefix)
		}
	}
	if len(s.blocks) == 0 {
		return s
	}
	for a := range assigned {
		s.but[a] = true
	}
	for a := range t.owner {
		s.but[a] = true
	}
	return s
}

// found notes that what was to be looked for has no connections any more.
func (t *tenure) found(s search) {
	for _, prefix := range s.blocks {
		b := t.blocks[prefix]
		b.through, b.but, b.clean = true, map[netip.Addr]bool{}, nil
		for a := range s.but {
			if _, owned := t.owner[a]; !owned && prefix.Contains(a) {
				b.but[a] = true
			}
		}
	}
	for a := range s.addresses {
		switch b := t.block(a); {
		case b == nil:
		case b.through:
			delete(b.but, a)
		default:
			b.clean[a] = true
		}
		delete(t.unclean, a)
	}
}

// unjudged notes that there is no policy, and so nothing to inherit. What is free may
// have any connection from here on.
func (t *tenure) unjudged() {
	clear(t.unclean)
	clear(t.blocks)
}
