package cniserver

import (
	"context"
	"sync"
)

// locks is a set of locks by name. A name exists while somebody holds it or
// waits for it.
type locks struct {
	mu   sync.Mutex
	held map[string]*lock
}

type lock struct {
	free  chan struct{} // holds one token when nobody has the lock
	users int
}

// acquire takes the names in the given order and returns the function that
// gives them back. It waits as long as ctx lasts.
func (l *locks) acquire(ctx context.Context, names ...string) (release func(), err error) {
	var taken []string
	release = func() {
		for i := len(taken) - 1; i >= 0; i-- {
			l.give(taken[i])
		}
	}
	for _, name := range names {
		k := l.use(name)
		select {
		case <-k.free:
			taken = append(taken, name)
		case <-ctx.Done():
			l.leave(name)
			release()
			return nil, context.Cause(ctx)
		}
	}
	return release, nil
}

// try is acquire without waiting; it reports whether all names were free.
func (l *locks) try(names ...string) (release func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range names {
		if l.held[name] != nil {
			return nil, false
		}
	}
	for _, name := range names {
		k := l.entry(name)
		k.users++
		<-k.free // just made, so it is there
	}
	return func() {
		for _, name := range names {
			l.give(name)
		}
	}, true
}

func (l *locks) entry(name string) *lock {
	if l.held == nil {
		l.held = map[string]*lock{}
	}
	k := l.held[name]
	if k == nil {
		k = &lock{free: make(chan struct{}, 1)}
		k.free <- struct{}{}
		l.held[name] = k
	}
	return k
}

func (l *locks) use(name string) *lock {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.entry(name)
	k.users++
	return k
}

func (l *locks) give(name string) {
	l.mu.Lock()
	l.held[name].free <- struct{}{}
	l.mu.Unlock()
	l.leave(name)
}

func (l *locks) leave(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.held[name]
	if k.users--; k.users == 0 {
		delete(l.held, name)
	}
}
