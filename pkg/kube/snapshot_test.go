package kube

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// change is something that happens to a table of a Cluster.
type change struct {
	name string
	do   func(c *Cluster, object string, i int)
}

func made(name, spec string, args ...any) *object {
	return &object{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: json.RawMessage(fmt.Sprintf(spec, args...))}
}

// changes has one for each table that a Snapshot is made of: object comes, or becomes
// what it is in its i-th form.
func changes() []change {
	meta := func(name, key string, i int) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: name, Labels: map[string]string{key: fmt.Sprint(i)}}
	}
	return []change{
		{"node", func(c *Cluster, o string, i int) {
			n := &corev1.Node{ObjectMeta: meta(o, "rack", i)}
			n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("10.0.0.%d", 1+i)}}
			_ = c.nodes.Add(n)
		}},
		{"label", func(c *Cluster, o string, i int) {
			n := &corev1.Node{ObjectMeta: meta(o+"-other", "team", i)}
			n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.3"}}
			_ = c.nodes.Add(n)
		}},
		{"namespace", func(c *Cluster, o string, i int) {
			_ = c.namespaces.Add(&corev1.Namespace{ObjectMeta: meta(o, "team", i)})
		}},
		{"pool", func(c *Cluster, o string, i int) { _ = c.pools.Add(made(o, `{"cidr": "10.%d.0.0/16"}`, i)) }},
		{"bgp", func(c *Cluster, o string, i int) {
			_ = c.bgp.Add(made(o, `{"serviceClusterIPs": [{"cidr": "10.%d.1.0/24"}]}`, i))
		}},
		{"peer", func(c *Cluster, o string, i int) {
			_ = c.peers.Add(made(o, `{"peerIP": "10.0.0.%d", "asNumber": %d}`, i, 64512+i))
		}},
		{"filter", func(c *Cluster, o string, i int) {
			_ = c.filters.Add(made(o, `{"exportV4": [{"action": "Accept", "cidr": "10.%d.0.0/16", "matchOperator": "In"}]}`, i))
		}},
		{"felix", func(c *Cluster, o string, i int) { _ = c.felix.Add(made(o, `{"vxlanVNI": %d}`, 1+i)) }},
		{"ipam", func(c *Cluster, _ string, i int) { _ = c.ipam.Add(made("default", `{"maxBlocksPerHost": %d}`, 1+i)) }},
		{"reservation", func(c *Cluster, o string, i int) {
			_ = c.reserved.Add(made(o, `{"reservedCIDRs": ["10.%d.2.0/24"]}`, i))
		}},
		{"block", func(c *Cluster, o string, i int) {
			_ = c.blocks.Add(made(o, `{"state": "confirmed", "node": "n1", "cidr": "10.%d.0.0/26"}`, i))
		}},
	}
}

// TestSnapshotIsOfTheTables: whatever came and went, and in whichever order, a Snapshot is
// what it would be if nothing was kept of the one before.
func TestSnapshotIsOfTheTables(t *testing.T) {
	c, err := From(Objects{}, Options{Node: "n1", Blocks: AllBlocks})
	if err != nil {
		t.Fatal(err)
	}
	r, all := rand.New(rand.NewPCG(3, 4)), changes()
	for step := range 2000 {
		object := fmt.Sprint("o", r.IntN(4))
		if r.IntN(4) == 0 {
			for _, t := range []cache.ReflectorStore{c.nodes, c.namespaces, c.pools, c.bgp, c.peers, c.filters, c.felix, c.ipam, c.reserved, c.blocks} {
				if r.IntN(10) == 0 {
					_ = t.Delete(made(object, "{}"))
				}
			}
		} else {
			all[r.IntN(len(all))].do(c, object, r.IntN(6))
		}
		got := c.Snapshot()
		c.mu.Lock()
		c.parts = parts{}
		for _, list := range []func(){
			func() { c.nodes.list = nil }, func() { c.bgp.list = nil }, func() { c.peers.list = nil }, func() { c.filters.list = nil },
			func() { c.felix.list = nil }, func() { c.pools.list = nil }, func() { c.reserved.list = nil }, func() { c.blocks.list = nil },
		} {
			list()
		}
		want := c.build()
		c.mu.Unlock()
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("step %d: got %+v\nwant %+v", step, got, want)
		}
	}
}

// TestSnapshotSharesWhatIsAsItWas: of a Snapshot after a change that is not of the table
// that changed, or made of it, nothing is made anew. So who compares two of them looks
// into what changed, and no further.
func TestSnapshotSharesWhatIsAsItWas(t *testing.T) {
	anew := map[string][]string{
		"label": {"Nodes"}, "node": {"Nodes", "Pools", "Reserved"}, "namespace": {"Namespaces"}, "pool": {"Pools", "Reserved"},
		"bgp": {"BGP", "Pools", "Reserved"}, "peer": {"Peers", "Pools", "Reserved"}, "filter": {"Filters"}, "felix": {"Felix"},
		"reservation": {"Pools", "Reserved"}, "block": {"Blocks"},
	}
	c, err := From(Objects{}, Options{Node: "n1", Blocks: AllBlocks})
	if err != nil {
		t.Fatal(err)
	}
	for _, ch := range changes() {
		ch.do(c, "o1", 1)
	}
	for _, ch := range changes() {
		before := reflect.ValueOf(c.Snapshot())
		ch.do(c, "o1", 2)
		after := reflect.ValueOf(c.Snapshot())
		for i := range before.NumField() {
			field := before.Type().Field(i)
			if k := field.Type.Kind(); k != reflect.Slice && k != reflect.Map {
				continue
			}
			shared, expected := before.Field(i).UnsafePointer() == after.Field(i).UnsafePointer(), true
			for _, name := range anew[ch.name] {
				expected = expected && name != field.Name
			}
			if before.Field(i).Len() > 0 && shared != expected {
				t.Errorf("a %s changed: %s is shared: %v", ch.name, field.Name, shared)
			}
		}
	}
}
