// Changed for Muslin: see README.md in third_party/gobgp.

package server

import (
	"sync"

	"github.com/osrg/gobgp/v4/internal/pkg/table"
)

// sentPaths are the add-path local identifiers that a peer was sent for each
// destination. There is one entry for every route and peer, nearly always with
// a single identifier, so those are kept without a set of their own.
type sentPaths struct {
	mu      sync.RWMutex
	single  map[table.PathDestLocalKey]uint32
	several map[table.PathDestLocalKey]map[uint32]struct{} // two or more, and not in single
}

// add notes that a path was sent.
func (s *sentPaths) add(dest table.PathDestLocalKey, id uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ids, ok := s.several[dest]; ok {
		ids[id] = struct{}{}
		return
	}
	other, ok := s.single[dest]
	switch {
	case ok && other == id:
	case ok:
		if s.several == nil {
			s.several = make(map[table.PathDestLocalKey]map[uint32]struct{})
		}
		s.several[dest] = map[uint32]struct{}{other: {}, id: {}}
		delete(s.single, dest)
	default:
		if s.single == nil {
			s.single = make(map[table.PathDestLocalKey]uint32)
		}
		s.single[dest] = id
	}
}

// remove notes that a path was withdrawn.
func (s *sentPaths) remove(dest table.PathDestLocalKey, id uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ids, ok := s.several[dest]; ok {
		delete(ids, id)
		if len(ids) == 1 {
			for last := range ids {
				s.single[dest] = last
			}
			delete(s.several, dest)
		}
		return
	}
	if other, ok := s.single[dest]; ok && other == id {
		delete(s.single, dest)
	}
}

// has tells whether a path was sent.
func (s *sentPaths) has(dest table.PathDestLocalKey, id uint32) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if ids, ok := s.several[dest]; ok {
		_, sent := ids[id]
		return sent
	}
	other, ok := s.single[dest]
	return ok && other == id
}

// count is how many paths were sent for a destination.
func (s *sentPaths) count(dest table.PathDestLocalKey) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if ids, ok := s.several[dest]; ok {
		return len(ids)
	}
	if _, ok := s.single[dest]; ok {
		return 1
	}
	return 0
}

func (s *sentPaths) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.single, s.several = nil, nil
}
