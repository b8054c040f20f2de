package agent

import "sync/atomic"

// mtu is the largest packet of pod links, in bytes, as the data plane last
// computed it; 0 until then.
type mtu struct{ bytes atomic.Int64 }

func (m *mtu) set(bytes int) { m.bytes.Store(int64(bytes)) }
func (m *mtu) get() int      { return int(m.bytes.Load()) }
