package nft

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nl"
)

// Run listens for changes of the table by others and hints through Changed,
// until ctx ends.
func (r *Reconciler) Run(ctx context.Context) error {
	return r.Follow(ctx, r.events, r.event, r.again, func(ctx context.Context) {
		nl.Every(ctx, func() time.Duration { return r.resync }, r.again)
	})
}

// again asks for the table to be read and applied again.
func (r *Reconciler) again() {
	r.markStale()
	r.Hint()
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
