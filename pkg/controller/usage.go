package controller

import (
	"math"
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
)

// usageMetrics gives the numbers of the last survey; a nil one takes none.
type usageMetrics struct {
	mu    sync.Mutex
	pools []model.Pool
	usage map[place]usage
}

func (m *usageMetrics) set(pools []model.Pool, u map[place]usage) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pools, m.usage = pools, u
}

// Describe implements prometheus.Collector.
func (m *usageMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{inUseDesc, borrowedDesc, blocksDesc, candidatesDesc, sizeDesc} {
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
	for at, u := range m.usage {
		gauge(inUseDesc, float64(u.inUse), at.pool, string(at.node))
		gauge(borrowedDesc, float64(u.borrowed), at.pool, string(at.node))
		gauge(blocksDesc, float64(u.blocks), at.pool, string(at.node))
		gauge(candidatesDesc, float64(u.candidates), at.pool, string(at.node))
	}
	for i := range m.pools {
		p := &m.pools[i]
		gauge(sizeDesc, math.Pow(2, float64(p.CIDR.Addr().BitLen()-p.CIDR.Bits())), p.Name)
	}
}
