package app

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
)

func closed(news []<-chan struct{}) bool {
	return slices.ContainsFunc(news, func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	})
}

// TestGatherMissesNothing: whatever input is another, who gathered and is decided by it
// hears of it, and nobody else does.
func TestGatherMissesNothing(t *testing.T) {
	in := &inputs{
		node: "n1", read: func() {}, pods: &task.Cell[podSet]{}, podCIDRs: &task.Cell[[]netip.Prefix]{},
		saved: &task.Cell[*savedState]{}, origin: &task.Cell[originView]{},
	}
	addr, prefix := netip.MustParseAddr("10.0.0.1"), netip.MustParsePrefix("10.0.0.0/26")
	set := map[string]struct {
		bgp, dataplane bool
		set            func() bool
	}{
		"assign":   {false, false, func() bool { return in.assign.Set(assigned{reserved: []netip.Prefix{prefix}}) }},
		"common":   {false, true, func() bool { return in.common.Set(cluster{Snapshot: model.Snapshot{Synced: true}}) }},
		"cluster":  {true, false, func() bool { return in.cluster.Set(cluster{Snapshot: model.Snapshot{Synced: true}}) }},
		"held":     {true, true, func() bool { return in.held.Set(holdings{blocks: []model.Block{{CIDR: prefix}}}) }},
		"host":     {true, true, func() bool { return in.host.Set(host{version: 1}) }},
		"floating": {true, true, func() bool { return in.floating.Set([]netip.Prefix{prefix}) }},
		"pods":     {true, true, func() bool { return in.pods.Set(podSet{rev: 1}) }},
		"podCIDRs": {true, true, func() bool { return in.podCIDRs.Set([]netip.Prefix{prefix}) }},
		"saved":    {true, true, func() bool { return in.saved.Set(&savedState{}) }},
		"rib":      {false, true, func() bool { return in.rib.Set(rib{version: 1}) }},
		"config":   {false, true, func() bool { return in.config.Set(&bgp.Config{}) }},
		"tunnels":  {false, true, func() bool { return in.tunnels.Set(felix.TunnelAddresses{IPIP: addr}) }},
		"origin":   {false, true, func() bool { return in.origin.Set(originView{listed: true}) }},
	}
	for f := range reflect.TypeFor[inputs]().Fields() {
		if !strings.Contains(f.Type.String(), "task.Cell[") {
			continue
		}
		s, known := set[f.Name]
		if !known {
			t.Errorf("%s is no input that this test knows", f.Name)
			continue
		}
		before := in.gather()
		if closed(before.ofDataplane) || closed(before.ofBGP) {
			t.Fatalf("%s: news before there is any", f.Name)
		}
		if !s.set() || closed(before.ofDataplane) != s.dataplane || closed(before.ofBGP) != s.bgp {
			t.Errorf("%s: the data plane hears of it: %v, BGP does: %v", f.Name, closed(before.ofDataplane), closed(before.ofBGP))
		}
	}
}

// TestGatherChooses: the state on disk is what is known while it is in force.
func TestGatherChooses(t *testing.T) {
	in := &inputs{
		node: "n1", read: func() {}, pods: &task.Cell[podSet]{}, podCIDRs: &task.Cell[[]netip.Prefix]{},
		saved: &task.Cell[*savedState]{}, origin: &task.Cell[originView]{},
	}
	block := func(text string) model.Block { return model.Block{CIDR: netip.MustParsePrefix(text), Node: "n1"} }
	in.pods.Set(podSet{1, []model.Endpoint{endpoint("a", "cali1", "10.0.9.1")}})
	in.held.Set(holdings{blocks: []model.Block{block("10.0.0.0/26")}, borrowed: []netip.Prefix{netip.MustParsePrefix("10.0.5.5/32")}})
	in.floating.Set([]netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")})
	in.podCIDRs.Set([]netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")})
	if s := in.gather().snapshot; len(s.Blocks) != 2 || len(s.Borrowed) != 2 || s.Blocks[1].Node != "n1" {
		t.Errorf("got %+v", s)
	}
	in.saved.Set(&savedState{Snapshot: model.Snapshot{Blocks: []model.Block{block("10.0.9.0/26"), block("10.0.8.0/26")}}})
	if s := in.gather().snapshot; len(s.Blocks) != 1 || s.Blocks[0] != block("10.0.9.0/26") || len(s.Borrowed) != 0 {
		t.Errorf("with the state on disk in force: %+v", s)
	}
	in.saved.Set(nil)
	if s := in.gather().snapshot; len(s.Blocks) != 2 {
		t.Errorf("once it is over: %+v", s)
	}
}

// TestWhoIsWoken: what BGP alone is decided by wakes neither the data plane nor the
// allocator, and nothing that is as it was wakes anybody. A kube.Cluster stands in for
// the API server's tables.
func TestWhoIsWoken(t *testing.T) {
	in := &inputs{
		node: "n1", read: func() {}, pods: &task.Cell[podSet]{}, podCIDRs: &task.Cell[[]netip.Prefix]{},
		saved: &task.Cell[*savedState]{}, origin: &task.Cell[originView]{},
	}
	const base = `
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.244.0.0/16}
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {serviceClusterIPs: [{cidr: 10.96.0.0/12}]}
---
`
	const service = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: d}\nspec: {clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9]}\n---\n"
	const slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-1, namespace: d, labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\nendpoints: [{addresses: [10.244.0.9], nodeName: n1, conditions: {ready: %s}}]\n---\n"
	learn := func(objects string) (woken []string) {
		t.Helper()
		list, err := kube.ReadObjects([]byte(base + objects))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices"} {
			if list[path] == nil {
				list[path] = []map[string]any{}
			}
		}
		s, problems, err := kube.Snapshot(list, kube.Options{Node: "n1"})
		if err != nil || len(problems) > 0 {
			t.Fatal(err, problems)
		}
		before := in.gather()
		var ofAllocator []<-chan struct{}
		get(&in.assign, &ofAllocator)
		in.assign.Set(assignedOf(s, in.node))
		in.learn(cluster{Snapshot: s})
		for _, who := range []struct {
			name string
			news []<-chan struct{}
		}{{"bgp", before.ofBGP}, {"data plane", before.ofDataplane}, {"allocator", ofAllocator}} {
			if closed(who.news) {
				woken = append(woken, who.name)
			}
		}
		return woken
	}
	filter := "apiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {name: f}\nspec: {exportV4: [{action: Reject}]}\n---\n"
	pool := "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: more}\nspec: {cidr: 10.245.0.0/16}\n---\n"
	for _, step := range []struct{ name, objects, woken string }{
		{"the first", "", "bgp, data plane, allocator"},
		{"the same again", "", ""},
		{"a BGPFilter", filter, "bgp"},
		{"a Service", filter + service, "bgp, data plane"},
		{"an endpoint of it", filter + service + strings.Replace(slice, "%s", "true", 1), "bgp"},
		{"which is not ready", filter + service + strings.Replace(slice, "%s", "false", 1), "bgp"},
		{"an IPPool", filter + service + pool, "bgp, data plane, allocator"},
	} {
		if got := strings.Join(learn(step.objects), ", "); got != step.woken {
			t.Errorf("%s wakes %q, want %q", step.name, got, step.woken)
		}
	}
}
