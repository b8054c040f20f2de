package ipamtest

import (
	"maps"
	"slices"
)

// Snapshot is the state of a store at a moment.
type Snapshot struct {
	revision              uint64
	blocks, affs, handles map[string]object
}

// Snapshot copies the state.
func (s *Store) Snapshot() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Snapshot{s.revision, values(s.blocks), values(s.affs), values(s.handles)}
}

func values(in map[string]*object) map[string]object {
	out := make(map[string]object, len(in))
	for name, o := range in {
		out[name] = *o
	}
	return out
}

// Restore puts the store back to an earlier state, revisions and all, as etcd is
// from a backup. No watch is told; each has to list.
func (s *Store) Restore(to Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision = to.revision
	for now, then := range map[*map[string]*object]map[string]object{&s.blocks: to.blocks, &s.affs: to.affs, &s.handles: to.handles} {
		clear(*now) // clients hold the map
		for name, o := range then {
			(*now)[name] = &o
		}
	}
	s.restored++
	s.cond.Broadcast()
}

// RollBack writes the blocks that exist anew as they were at an earlier moment,
// as somebody does who puts an old manifest back.
func (s *Store) RollBack(to Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(s.blocks)) {
		have := s.blocks[name]
		then, ok := to.blocks[name]
		if !ok || have.deleted || then.deleted {
			continue
		}
		have.revision = s.tell(have.value, then.value)
		have.value = then.value
	}
}
