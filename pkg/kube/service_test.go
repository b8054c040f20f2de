package kube_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/kube/kubetest"
	"github.com/muslin-net/muslin/pkg/model"
)

const someServices = `apiVersion: v1
kind: Service
metadata: {name: web, namespace: default, labels: {tier: gold}, annotations: {other.example/x: foreign}}
spec: {type: LoadBalancer, externalTrafficPolicy: Local, ports: [{port: 80}], externalIPs: [203.0.113.7], clusterIP: 10.96.0.77}
---
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: default}
spec: {clusterIP: None, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere, namespace: default}
spec: {type: ExternalName, externalName: example.com}
`

func slice(name, endpoints string) string { return sliceOf("IPv4", name, endpoints) }

func sliceOf(family, name, endpoints string) string {
	return fmt.Sprintf(`apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %s, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: %s
ports: [{port: 80}]
endpoints: %s
---
`, name, family, endpoints)
}

// web gives the service of that name, and what is wrong with asking for it.
func web(c *kube.Cluster) (model.Service, string) {
	list := c.Snapshot().Services
	i := slices.IndexFunc(list, func(s model.Service) bool { return s.Name == "web" })
	if i < 0 {
		return model.Service{}, fmt.Sprintf("no service web among %+v", list)
	}
	return list[i], ""
}

func TestServicesAreWatchedWhenAskedFor(t *testing.T) {
	apply(t, someServices)
	server.MustKubectl(t, "", "patch", "service", "web", "--subresource=status", "--type=merge", "-p",
		`{"status":{"loadBalancer":{"ingress":[{"ip":"198.51.100.9"},{"hostname":"lb.example.com"}]}}}`)
	c := watch(t, kube.Options{Node: "n1"})
	if got := c.Snapshot().Services; got != nil {
		t.Fatalf("nobody asks for services: %+v", got)
	}
	apply(t, v3("BGPConfiguration", "default", `{serviceClusterIPs: [{cidr: 10.96.0.0/16}]}`))
	var got model.Service
	eventually(t, c, func() (wrong string) { got, wrong = web(c); return wrong })
	want := model.Service{
		Namespace: "default", Name: "web", Type: "LoadBalancer", LocalTraffic: true,
		ClusterIPs:      addrs("10.96.0.77"),
		ExternalIPs:     addrs("203.0.113.7"),
		LoadBalancerIPs: addrs("198.51.100.9"),
		Labels:          map[string]string{"tier": "gold", model.LabelOwnName: "web", model.LabelNamespace: "default"},
	}
	if d := cmp.Diff(want, got, comparers); d != "" {
		t.Errorf("service (-want +got):\n%s", d)
	}
	for _, s := range c.Snapshot().Services {
		if s.Name == "headless" || s.Name == "elsewhere" {
			t.Errorf("a service without addresses: %+v", s)
		}
	}

	for _, step := range []struct {
		name, slice string
		four, six   model.Endpoints
	}{
		{"not ready here", slice("web-1", `[{addresses: [10.244.0.1], nodeName: n1, conditions: {ready: false}}]`), model.Endpoints{}, model.Endpoints{}},
		{"ready elsewhere", slice("web-2", `[{addresses: [10.244.0.2], nodeName: n2, conditions: {ready: true}}]`), model.Endpoints{Anywhere: true}, model.Endpoints{}},
		{"ready here, by default", slice("web-1", `[{addresses: [10.244.0.1], nodeName: n1}]`), model.Endpoints{Here: true, Anywhere: true}, model.Endpoints{}},
		{"ending here", slice("web-1", `[{addresses: [10.244.0.1], nodeName: n1, conditions: {ready: false, serving: true, terminating: true}}]`),
			model.Endpoints{Anywhere: true, LastHere: true, LastAnywhere: true}, model.Endpoints{}},
		{"ending here, not serving", slice("web-1", `[{addresses: [10.244.0.1], nodeName: n1, conditions: {ready: false, serving: false, terminating: true}}]`),
			model.Endpoints{Anywhere: true}, model.Endpoints{}},
		{"IPv6 here", sliceOf("IPv6", "web-3", `[{addresses: ["fd44::1"], nodeName: n1, conditions: {ready: true}}]`),
			model.Endpoints{Anywhere: true}, model.Endpoints{Here: true, Anywhere: true}},
		{"IPv4 here again", slice("web-1", `[{addresses: [10.244.0.1], nodeName: n1}]`), model.Endpoints{Here: true, Anywhere: true}, model.Endpoints{Here: true, Anywhere: true}},
	} {
		apply(t, step.slice)
		eventually(t, c, func() string {
			if s, _ := web(c); s.IPv4 != step.four || s.IPv6 != step.six {
				return fmt.Sprintf("%s: %+v %+v", step.name, s.IPv4, s.IPv6)
			}
			return ""
		})
	}
	server.MustKubectl(t, "", "delete", "endpointslice", "web-1")
	eventually(t, c, func() string {
		if s, _ := web(c); s.IPv4.Here || !s.IPv4.Anywhere {
			return fmt.Sprintf("after the local endpoint has gone: %+v", s)
		}
		return ""
	})

	server.MustKubectl(t, "", "patch", "bgpconfiguration", "default", "--type=merge", "-p", `{"spec":{"serviceClusterIPs":null}}`)
	eventually(t, c, func() string {
		if got := c.Snapshot().Services; got != nil {
			return fmt.Sprintf("nobody asks for services any more: %+v", got)
		}
		return ""
	})
	server.MustKubectl(t, "", "patch", "bgpconfiguration", "default", "--type=merge", "-p", `{"spec":{"serviceLoadBalancerIPs":[{"cidr":"198.51.100.0/24"}]}}`)
	eventually(t, c, func() (wrong string) { _, wrong = web(c); return wrong })
}

// A node that restarts must not be taken for synced before it knows the
// services: it would withdraw their addresses from its peers.
func TestSyncedIncludesServices(t *testing.T) {
	apply(t, someServices+"---\n"+v3("BGPConfiguration", "default", `{serviceClusterIPs: [{cidr: 10.96.0.0/16}]}`))
	c := watch(t, kube.Options{Node: "n1"})
	if _, wrong := web(c); wrong != "" {
		t.Error(wrong)
	}
}

func TestAllBlocksWhileAskedFor(t *testing.T) {
	apply(t, v3("BlockAffinity", "n1-10-244-1-0-26", `{state: confirmed, node: n1, cidr: 10.244.1.0/26, type: host}`)+
		v3("BlockAffinity", "n2-10-244-2-0-26", `{state: confirmed, node: n2, cidr: 10.244.2.0/26, type: host}`))
	const free = `cidr: 10.244.%d.0/30, allocations: [null, null, null, null], unallocated: [0, 1, 2, 3], attributes: [], strictAffinity: false`
	apply(t, v3("IPAMBlock", "10-244-1-0-30", "{"+fmt.Sprintf(free, 1)+", affinity: 'host:n1'}")+v3("IPAMBlock", "10-244-3-0-30", "{"+fmt.Sprintf(free, 3)+"}"))
	requested := func(s model.Snapshot) bool {
		return slices.ContainsFunc(s.BGP, func(b model.BGPConfiguration) bool { return b.Annotations["muslin.io/check"] == "On" })
	}
	c := watch(t, kube.Options{Node: "n1", AllBlocksWhile: requested})
	if got := c.AllBlocks(); got.Listed {
		t.Fatalf("nobody asks: %+v", got)
	}
	apply(t, v3("BGPConfiguration", "default", `{}`))
	server.MustKubectl(t, "", "annotate", "bgpconfiguration", "default", "muslin.io/check=On")
	eventually(t, c, func() string {
		if got := c.AllBlocks(); !got.Listed || got.Stale || len(got.List) != 3 || got.List[2].Node != "" || got.List[2].CIDR.String() != "10.244.3.0/30" {
			return fmt.Sprintf("asked for: %+v", got)
		}
		return ""
	})
	if got := c.AllBlocks().Lent; len(got) != 0 {
		t.Errorf("nothing is lent: %+v", got)
	}
	const used = `{cidr: 10.244.1.0/30, affinity: 'host:n1', allocations: [0, 1, null, 1], unallocated: [2], strictAffinity: false,
  attributes: [{handle_id: a, secondary: {node: n1}}, {handle_id: b, secondary: {node: n2}}]}`
	apply(t, v3("IPAMBlock", "10-244-1-0-30", used))
	want := []model.Lease{{Addr: netip.MustParseAddr("10.244.1.1"), Node: "n2"}, {Addr: netip.MustParseAddr("10.244.1.3"), Node: "n2"}}
	eventually(t, c, func() string { return cmp.Diff(want, c.AllBlocks().Lent, comparers) })
	if got := c.Snapshot().Blocks; len(got) != 0 {
		t.Errorf("the blocks of others are in the snapshot: %+v", got)
	}
	server.MustKubectl(t, "", "annotate", "bgpconfiguration", "default", "muslin.io/check-")
	eventually(t, c, func() string {
		if got := c.AllBlocks(); got.Listed {
			return fmt.Sprintf("nobody asks any more: %+v", got)
		}
		return ""
	})
}

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out
}

// Whoever uses the blocks has to know when there may be newer ones.
func TestAllBlocksAreStaleWithoutTheServer(t *testing.T) {
	t.Parallel()
	own := kubetest.StartWithCRDs(t)
	own.MustKubectl(t, v3("BlockAffinity", "n2-10-244-2-0-26", `{state: confirmed, node: n2, cidr: 10.244.2.0/26, type: host}`), "apply", "-f", "-")
	c := watchAs(t, own.Config(), kube.Options{Node: "n1", AllBlocksWhile: func(model.Snapshot) bool { return true }})
	if got := c.AllBlocks(); !got.Listed || got.Stale {
		t.Fatalf("%+v", got)
	}
	own.Kill()
	eventually(t, c, func() string {
		if got := c.AllBlocks(); !got.Stale || !got.Listed || len(got.List) != 1 {
			return fmt.Sprintf("without a server: %+v", got)
		}
		return ""
	})
	own.Restart(t)
	eventually(t, c, func() string {
		if got := c.AllBlocks(); got.Stale || len(got.List) != 1 {
			return fmt.Sprintf("with a server again: %+v", got)
		}
		return ""
	})
}
