package nft

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nl"
)

// Run listens for changes of the table by others and hints through Changed,
// until ctx ends.
func (r *Reconciler) Run(ctx context.Context) error {
	r.once.Do(func() { close(r.ready) })
	ctx, cancel := context.WithCancel(ctx)
	var ticking sync.WaitGroup
	ticking.Go(func() { r.tick(ctx) })
	defer ticking.Wait()
	defer cancel()
	return r.events.Follow(ctx, r.event, r.again)
}

func (r *Reconciler) tick(ctx context.Context) {
	t := time.NewTicker(r.resync)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			r.again()
		}
	}
}

// again asks for the table to be read and applied again.
func (r *Reconciler) again() {
	r.markStale()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

func (r *Reconciler) event(m nl.Message) {
	const nfgenmsg = 4 // bytes of struct nfgenmsg
	if m.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < nfgenmsg || m.Data[0] != unix.NFPROTO_INET {
		return
	}
	ours := false
	nl.Attrs(m.Data[nfgenmsg:], func(kind uint16, data []byte) {
		// Every kind of object has its table's name in the first attribute.
		if kind == unix.NFTA_TABLE_NAME && string(data) == felix.TableName+"\x00" {
			ours = true
		}
	})
	r.mu.Lock()
	if ours = ours && m.PortID != r.port; ours {
		r.stats.Drift++
	}
	r.mu.Unlock()
	if ours {
		r.again()
	}
}
