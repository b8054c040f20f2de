package agent

import (
	"sync"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

// waysBook has the node's ways as BGP was told of them, for as long as any
// filter asks for interfaces; until then it costs nothing.
type waysBook struct {
	read func() bgp.Ways

	mu    sync.Mutex
	asked bool
	told  bgp.Ways
}

// ask gives the ways that a snapshot's filters are to be decided with.
func (b *waysBook) ask(snap model.Snapshot) bgp.Ways {
	asked, told := bgp.AsksForInterfaces(snap), bgp.Ways{}
	b.set(asked, told) // before the reading, which what comes after makes stale
	if asked {
		told = b.read()
		b.set(asked, told)
	}
	return told
}

func (b *waysBook) set(asked bool, told bgp.Ways) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked, b.told = asked, told
}

// get gives what ask gave last.
func (b *waysBook) get() bgp.Ways {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.told
}

// stale reports whether ask would give something else.
func (b *waysBook) stale(host model.Host, pods []model.Endpoint) bool {
	b.mu.Lock()
	asked, told := b.asked, b.told
	b.mu.Unlock()
	return asked && !told.Equal(bgp.NewWays(host, pods))
}
