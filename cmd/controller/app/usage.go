package app

import (
	"math"
	"net/netip"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muslin-net/muslin/pkg/model"
)

// The metrics of Calico's kube-controllers, under its names and labels.
var (
	inUseDesc      = prometheus.NewDesc("ipam_allocations_in_use", "Addresses in use, by pool and by the node that has them.", []string{"ippool", "node"}, nil)
	borrowedDesc   = prometheus.NewDesc("ipam_allocations_borrowed", "Addresses in use from blocks of other nodes.", []string{"ippool", "node"}, nil)
	blocksDesc     = prometheus.NewDesc("ipam_blocks", "Blocks, by pool and by the node they are affine to.", []string{"ippool", "node"}, nil)
	candidatesDesc = prometheus.NewDesc("ipam_allocations_gc_candidates", "Addresses whose pod does not have them, which are released after the grace.", []string{"ippool", "node"}, nil)
	sizeDesc       = prometheus.NewDesc("ipam_ippool_size", "Addresses in a pool.", []string{"ippool"}, nil)
	reservedDesc   = prometheus.NewDesc("ipam_ippool_reserved", "Addresses of a pool that IPReservations keep back, in use or not.", []string{"ippool"}, nil)
)

// freeDesc is Muslin's own: a node without a block of its own needs one.
var freeDesc = prometheus.NewDesc("muslin_ippool_blocks_free", "Blocks of a pool that no node has yet.", []string{"ippool"}, nil)

// What Calico keeps for dashboards of old: the same numbers without the pool.
var (
	nodeInUseDesc    = prometheus.NewDesc("ipam_allocations_per_node", "Addresses in use, by the node that has them. Prefer ipam_allocations_in_use.", []string{"node"}, nil)
	nodeBorrowedDesc = prometheus.NewDesc("ipam_allocations_borrowed_per_node", "Addresses in use from blocks of other nodes. Prefer ipam_allocations_borrowed.", []string{"node"}, nil)
	nodeBlocksDesc   = prometheus.NewDesc("ipam_blocks_per_node", "Blocks, by the node they are affine to. Prefer ipam_blocks.", []string{"node"}, nil)
)

// unknownNode is the label of addresses whose owner names no node, as Calico
// has it.
const unknownNode = "unknown_node"

// usageMetrics gives the numbers of the last survey; a nil one takes none.
type usageMetrics struct {
	mu       sync.Mutex
	pools    []model.Pool
	reserved []netip.Prefix
	usage    map[place]usage
}

func (m *usageMetrics) set(s model.Snapshot, u map[place]usage) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pools, m.reserved, m.usage = s.Pools, s.Reserved, u
}

// Describe implements prometheus.Collector.
func (m *usageMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		inUseDesc, borrowedDesc, blocksDesc, candidatesDesc, sizeDesc, reservedDesc, freeDesc, nodeInUseDesc, nodeBorrowedDesc, nodeBlocksDesc,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *usageMetrics) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	nodes, blocks := map[string]usage{}, map[string]int{}
	for at, u := range m.usage {
		node := nodeLabel(at.node)
		gauge(inUseDesc, float64(u.inUse), at.pool, node)
		gauge(borrowedDesc, float64(u.borrowed), at.pool, node)
		gauge(blocksDesc, float64(u.blocks), at.pool, node)
		gauge(candidatesDesc, float64(u.candidates), at.pool, node)
		nodes[node] = nodes[node].plus(u)
		blocks[at.pool] += u.blocks
	}
	for node, u := range nodes {
		gauge(nodeInUseDesc, float64(u.inUse), node)
		gauge(nodeBorrowedDesc, float64(u.borrowed), node)
		gauge(nodeBlocksDesc, float64(u.blocks), node)
	}
	for i := range m.pools {
		p := &m.pools[i]
		gauge(sizeDesc, addresses(p.CIDR), p.Name)
		gauge(reservedDesc, reservedIn(p.CIDR, m.reserved), p.Name)
		gauge(freeDesc, math.Pow(2, float64(p.BlockSize-p.CIDR.Bits()))-float64(blocks[p.Name]), p.Name)
	}
}

func nodeLabel(n model.NodeName) string {
	if n == "" {
		return unknownNode
	}
	return string(n)
}

// addresses is how many addresses a prefix has; exact up to 2^53.
func addresses(p netip.Prefix) float64 {
	return math.Pow(2, float64(p.Addr().BitLen()-p.Bits()))
}

// reservedIn is how many addresses of a pool the reservations hold. They may
// overlap: each address counts once.
func reservedIn(pool netip.Prefix, reserved []netip.Prefix) float64 {
	inside := make([]netip.Prefix, 0, len(reserved))
	for _, r := range reserved {
		switch {
		case !r.Overlaps(pool):
		case r.Bits() <= pool.Bits():
			return addresses(pool)
		default:
			inside = append(inside, r.Masked())
		}
	}
	// Of two prefixes that overlap one holds the other: the wider comes first.
	slices.SortFunc(inside, netip.Prefix.Compare)
	sum := 0.0
	var last netip.Prefix
	for _, r := range inside {
		if !last.IsValid() || !last.Overlaps(r) {
			sum += addresses(r)
			last = r
		}
	}
	return sum
}
