package kube

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
)

// leases are the addresses that blocks give to pods. A block says so before the pod's
// ADD is answered, and that it is over at DEL; the pod's status follows the kubelet's
// pace. Its fields are guarded by the cluster's mu.
type leases struct {
	self   model.NodeName // whose pods are known better: theirs are not looked at
	blocks *table[[]lease]
	listed bool
	need   *demand
	of     map[string][]lease // by block, as taken over
	byPod  map[string][]lease // by namespace/name
}

// lease is an address that a block gives to a pod of a node.
type lease struct {
	Addr  netip.Addr     `json:"addr"`
	Pod   string         `json:"pod"` // namespace/name
	Node  model.NodeName `json:"node"`
	Since time.Time      `json:"since"` // by the node's clock
}

func (l *leases) init(c *Cluster, self model.NodeName, pods *table[*model.PolicyPod]) {
	f := c.kind("IPAMBlock")
	l.blocks, l.need = demandTable(c, f, stripLeases, readLeases, func(knownPolicy) bool { return true })
	l.blocks.touched, l.of, l.byPod = map[string]bool{}, map[string][]lease{}, map[string][]lease{}
	l.self = self
	l.blocks.note = func() {
		if changed := l.take(pods); changed || l.listed != l.blocks.synced {
			l.listed = l.blocks.synced
			c.policies.notePods()
		}
	}
}

// take moves the leases of blocks that changed, and has their pods be looked at again.
// The caller holds mu.
func (l *leases) take(pods *table[*model.PolicyPod]) (changed bool) {
	for block := range l.blocks.touched {
		was, now := l.of[block], l.blocks.rows[block].value
		for _, x := range was {
			if x.Node == l.self || slices.Contains(now, x) {
				continue
			}
			if l.byPod[x.Pod] = slices.DeleteFunc(l.byPod[x.Pod], func(o lease) bool { return o == x }); len(l.byPod[x.Pod]) == 0 {
				delete(l.byPod, x.Pod)
			}
			pods.touch(x.Pod)
			changed = true
		}
		for _, x := range now {
			if x.Node != l.self && !slices.Contains(was, x) {
				l.byPod[x.Pod] = append(l.byPod[x.Pod], x)
				pods.touch(x.Pod)
				changed = true
			}
		}
		if l.of[block] = now; len(now) == 0 {
			delete(l.of, block)
		}
	}
	clear(l.blocks.touched)
	return changed
}

// clockError is how far the clocks of a node and of the API server, which counts whole
// seconds, may be apart.
const clockError = 2 * time.Second

// on gives a pod with what blocks give to it. A lease of another node, or of a pod of
// its name that was there before, is none of it.
func (l *leases) on(key string, p *model.PolicyPod) *model.PolicyPod {
	if l.blocks == nil || p.HostNetwork || p.Finished {
		return p
	}
	var out *model.PolicyPod
	for _, x := range l.byPod[key] {
		if x.Node != p.Node || x.Since.Before(p.Created.Add(-clockError)) {
			continue
		}
		if out == nil {
			c := *p
			out = &c
		}
		if out.Leased = append(out.Leased, x.Addr); !slices.Contains(p.Addresses, x.Addr) {
			out.Addresses = append(slices.Clip(out.Addresses), x.Addr)
		}
	}
	if out == nil {
		return p
	}
	slices.SortFunc(out.Leased, netip.Addr.Compare)
	return out
}

// stripLeases leaves of a block what it gives to pods.
func stripLeases(obj any) (any, error) {
	o, ok := obj.(*object)
	if !ok {
		return obj, nil
	}
	list, err := leasesOf(o.Spec)
	if err != nil || list == nil {
		list = []lease{} // the allocator tells of a block that cannot be read
	}
	if o.Spec, err = json.Marshal(list); err != nil {
		return nil, fmt.Errorf("strip %s: %w", o.Name, err)
	}
	o.Generation = 0 // it is another one at each change, also of what is stripped
	return stripObject(o)
}

// leasesOf reads IPAMBlock.spec. An address that was given back, and is kept out of use
// for a while, is nobody's.
func leasesOf(spec []byte) ([]lease, error) {
	var b struct {
		CIDR        netip.Prefix `json:"cidr"`
		Allocations []*int       `json:"allocations"`
		Attributes  []struct {
			Secondary  map[string]string `json:"secondary"`
			ReleasedAt string            `json:"releasedAt"`
		} `json:"attributes"`
	}
	if err := json.Unmarshal(spec, &b); err != nil {
		return nil, fmt.Errorf("read block: %w", err)
	}
	var out []lease
	a := b.CIDR.Masked().Addr()
	for _, slot := range b.Allocations {
		if slot != nil && *slot >= 0 && *slot < len(b.Attributes) {
			owner := b.Attributes[*slot]
			if s := owner.Secondary; owner.ReleasedAt == "" && s["pod"] != "" && s["namespace"] != "" {
				out = append(out, lease{Addr: a, Pod: s["namespace"] + "/" + s["pod"], Node: model.NodeName(s["node"]), Since: leaseTime(s["timestamp"])})
			}
		}
		a = a.Next()
	}
	return out, nil
}

// leaseTime reads the time as Calico writes it, which may have a monotonic reading
// behind. One that cannot be read is before all others.
func leaseTime(text string) time.Time {
	text, _, _ = strings.Cut(text, " m=")
	t, err := time.Parse("2006-01-02 15:04:05.999999999 -0700 MST", text)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

func readLeases(obj any) reading[[]lease] {
	var list []lease
	err := json.Unmarshal(obj.(*object).Spec, &list)
	return reading[[]lease]{value: list, ok: err == nil}
}
