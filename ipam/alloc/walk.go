package alloc

import (
	"hash/fnv"
	"net/netip"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

// maxIndexBits bounds the number of blocks of a pool that are looked at; an
// IPv6 pool can have more than anybody will ever use.
const maxIndexBits = 40

// walk is the order in which a node looks for a free block in a pool. It
// starts at the FNV-32 hash of the node's name, so that nodes which come up
// together do not fight for the same block, and goes on in steps of an odd
// number which is the node's own too. The number of blocks is a power of two,
// so such steps visit each block once; and unlike steps of one they do not run
// into the neighbour's blocks, which keeps the number of tries low in a pool
// that is nearly full.
type walk struct {
	pool        netip.Prefix
	bits        int // length of a block
	count       uint64
	start, step uint64
}

func newWalk(pool model.Pool, node model.NodeName) walk {
	bits := max(blockBits(pool), pool.CIDR.Bits())
	count := uint64(1) << min(bits-pool.CIDR.Bits(), maxIndexBits)
	return walk{
		pool: pool.CIDR, bits: bits, count: count,
		start: uint64(hash(string(node))) % count,
		step:  uint64(hash(string(node)+"/step")) | 1,
	}
}

// at is the k-th block to try, for k from 0 to count-1.
func (w walk) at(k uint64) netip.Prefix {
	index := (w.start + k*w.step) % w.count
	// A block holds at most 4096 addresses, so the shift stays below 24 bits.
	shift := w.pool.Addr().BitLen() - w.bits
	return netip.PrefixFrom(ipam.AddrAt(w.pool.Addr(), index<<shift), w.bits)
}

func hash(s string) uint32 {
	h := fnv.New32()
	h.Write([]byte(s))
	return h.Sum32()
}
