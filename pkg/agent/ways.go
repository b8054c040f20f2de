package agent

import (
	"sync"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

// waysBook has the node's ways as BGP was told of them, as far as the cluster's
// objects ask for them; until then it costs nothing.
type waysBook struct {
	read func(bgp.Asks) bgp.Ways

	mu   sync.Mutex
	asks bgp.Asks
	told bgp.Ways
}

// ask gives the ways that a snapshot's objects are to be decided with.
func (b *waysBook) ask(snap model.Snapshot) bgp.Ways {
	asks, told := bgp.AsksOf(snap), bgp.Ways{}
	b.set(asks, told) // before the reading, which what comes after makes stale
	if asks != (bgp.Asks{}) {
		told = b.read(asks)
		b.set(asks, told)
	}
	return told
}

func (b *waysBook) set(asks bgp.Asks, told bgp.Ways) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asks, b.told = asks, told
}

// get gives the ways that BGP was told last.
func (b *waysBook) get() bgp.Ways {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.told
}

// stale reports whether ask would give something else.
func (b *waysBook) stale(host model.Host, pods []model.Endpoint) bool {
	b.mu.Lock()
	asks, told := b.asks, b.told
	b.mu.Unlock()
	return asks != (bgp.Asks{}) && !told.Equal(asks.Ways(host, pods))
}
