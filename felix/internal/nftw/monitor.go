package nftw

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nl"
)

// Run listens for changes of the table by others and hints through Changed,
// until ctx ends.
func (w *Writer) Run(ctx context.Context) error {
	return w.Follow(ctx, w.events, w.event, w.again, func(ctx context.Context) {
		nl.Every(ctx, func() time.Duration { return w.resync }, w.again)
	})
}

// again asks for the table to be read and applied again.
func (w *Writer) again() {
	w.markStale()
	w.Notify()
}

func (w *Writer) event(m nl.Message) {
	const nfgenmsg = 4 // bytes of struct nfgenmsg
	if m.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < nfgenmsg || m.Data[0] != unix.NFPROTO_INET {
		return
	}
	ours := false
	nl.Attrs(m.Data[nfgenmsg:], func(kind uint16, data []byte) {
		// Every kind of object has its table's name in the first attribute.
		if kind == unix.NFTA_TABLE_NAME && string(data) == w.name+"\x00" {
			ours = true
		}
	})
	w.mu.Lock()
	if ours = ours && m.PortID != w.port; ours {
		w.stats.Drift++
	}
	w.mu.Unlock()
	if ours {
		w.again()
	}
}
