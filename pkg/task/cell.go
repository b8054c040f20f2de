package task

import (
	"reflect"
	"sync"
)

// Cell holds the newest value of one thing. Reading it says how to learn of the
// next. The zero value holds the zero value of T and is ready to use.
//
// Who writes does not know who reads, and who reads rings nobody's bell: a value
// that comes to matter to one more reader costs its writer no line.
type Cell[T any] struct {
	updates sync.Mutex // one at a time
	mu      sync.Mutex
	value   T
	changed chan struct{}
}

// Get gives the newest value, and a channel that is closed once there is a newer
// one. The value is shared: it must not be changed.
func (c *Cell[T]) Get() (value T, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changed == nil {
		c.changed = make(chan struct{})
	}
	return c.value, c.changed
}

// Value gives the newest value to who does not wait for the next.
func (c *Cell[T]) Value() T {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.value
}

// Set makes v the newest value, and reports whether it is another one than before
// (reflect.DeepEqual). Readers hear only of a difference.
func (c *Cell[T]) Set(v T) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if reflect.DeepEqual(c.value, v) {
		return false
	}
	c.value = v
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
	return true
}

// Update sets the cell to what f gives, with no other Update between: where several
// keep a cell by reading the same thing, the value that was read last stays.
func (c *Cell[T]) Update(f func() T) bool {
	c.updates.Lock()
	defer c.updates.Unlock()
	return c.Set(f())
}
