package app_test

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/muslin-net/muslin/cmd/controller/app"
	"github.com/muslin-net/muslin/ipam/kubestore"
	"github.com/muslin-net/muslin/pkg/kube"
)

// balancedServices is how many Services come and go.
const balancedServices = 20

const balancedPool = `---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: balanced}
spec: {cidr: 203.0.113.0/24, allowedUses: [LoadBalancer], nodeSelector: all()}
---
apiVersion: projectcalico.org/v3
kind: KubeControllersConfiguration
metadata: {name: default}
spec: {controllers: {loadBalancer: {assignIPs: AllServices}}}
`

// balancedNode is a node with an agent, its router, and a controller that gives
// addresses to Services; those from s0 on have an endpoint on the node.
type balancedNode struct {
	*crowdedNode
	services typed.ServiceInterface
}

func newBalancedNode(t testing.TB) balancedNode {
	t.Helper()
	n := newRoutedNode(t, balancedPool, 0)
	var endpoints strings.Builder
	for i := range balancedServices {
		endpoints.WriteString(served(i, "bench: {ready: true}"))
	}
	n.server.MustKubectl(t, endpoints.String(), "create", "-f", "-")
	n.server.MustKubectl(t, "", "patch", "bgpconfiguration", "default", "--type=merge", "-p", `{"spec":{"serviceLoadBalancerIPs":[{"cidr":"203.0.113.0/24"}]}}`)
	n.startAgent()
	t.Cleanup(n.kill)
	n.await("is ready", func() bool { return len(n.waiting()) == 0 })
	client, err := typed.NewForConfig(n.server.Config())
	if err != nil {
		t.Fatal(err)
	}
	b := balancedNode{n, client.Services("default")}
	b.startController()
	n.await("announces the range", func() bool { return slices.Contains(b.received(), "203.0.113.0/24") })
	return b
}

// served is the EndpointSlice of a Service, with the conditions of an endpoint on each of
// some nodes, as "node: {ready: true}".
func served(i int, on ...string) string {
	var list []string
	for at, o := range on {
		node, conditions, _ := strings.Cut(o, ": ")
		list = append(list, fmt.Sprintf("{addresses: [10.77.%d.%d], nodeName: %s, conditions: %s}", at, i+1, node, conditions))
	}
	return fmt.Sprintf(`---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s%d, namespace: default, labels: {kubernetes.io/service-name: s%d}}
addressType: IPv4
ports: [{port: 80}]
endpoints: [%s]
`, i, i, strings.Join(list, ", "))
}

// startController runs the controller until the test ends.
func (n balancedNode) startController() {
	n.t.Helper()
	cfg, log := n.server.Config(), slog.New(slog.DiscardHandler)
	cluster, err := kube.New(cfg, kube.Options{Component: "muslin-controller", Blocks: kube.AllBlocks, Policy: true, Balanced: true, Logger: log})
	if err != nil {
		n.t.Fatal(err)
	}
	store, err := kubestore.New(cfg, kubestore.Options{})
	if err != nil {
		n.t.Fatal(err)
	}
	objects, err := app.NewObjects(cfg, log)
	if err != nil {
		n.t.Fatal(err)
	}
	c := &app.Controller{Cluster: cluster, Store: store, Objects: objects, Logger: log}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- cluster.Run(ctx) }()
	go func() { done <- c.Run(ctx) }()
	n.t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				n.t.Error(err)
			}
		}
	})
}

// received are the prefixes that the router has of the node.
func (n balancedNode) received() (list []string) {
	n.t.Helper()
	out := n.run(exec.Command("birdc", "-s", filepath.Join(n.server.Dir, "bird.ctl"), "show", "route", "protocol", "node"))
	for _, l := range strings.Split(out, "\n") {
		if f := strings.Fields(l); len(f) > 0 && strings.Contains(f[0], "/") {
			list = append(list, f[0])
		}
	}
	return list
}

// hosts counts the addresses of Services that the router has.
func (n balancedNode) hosts() (count int) {
	n.t.Helper()
	for _, p := range n.received() {
		if strings.HasPrefix(p, "203.0.113.") && strings.HasSuffix(p, "/32") {
			count++
		}
	}
	return count
}

func (n balancedNode) create(i int) {
	n.t.Helper()
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("s%d", i)}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeLoadBalancer, ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal, Ports: []corev1.ServicePort{{Port: 80}},
	}}
	if _, err := n.services.Create(context.Background(), s, metav1.CreateOptions{}); err != nil {
		n.t.Fatal(err)
	}
}

func (n balancedNode) delete(i int) {
	n.t.Helper()
	if err := n.services.Delete(context.Background(), fmt.Sprintf("s%d", i), metav1.DeleteOptions{}); err != nil {
		n.t.Fatal(err)
	}
}

// TestServicesAtTheRouter: each address that the controller gives a Service comes to the
// router of the node that serves it, and goes with the Service.
func TestServicesAtTheRouter(t *testing.T) {
	t.Parallel()
	n := newBalancedNode(t)
	for i := range balancedServices {
		n.create(i)
	}
	n.await("announces all", func() bool { return n.hosts() == balancedServices })
	for i := range balancedServices {
		if i%2 == 0 {
			n.delete(i)
		}
	}
	n.await("announces those that are left", func() bool { return n.hosts() == balancedServices/2 })
	for _, s := range strings.Fields(n.server.MustKubectl(t, "", "get", "services", "-o", "jsonpath={.items[*].status.loadBalancer.ingress[0].ip}")) {
		if !slices.Contains(n.received(), s+"/32") {
			t.Errorf("%s of a Service is not announced: %v", s, n.received())
		}
	}
}

// TestReplicaThatEndsAtTheRouter: a replica that ends and still serves has its node's route
// withdrawn while another node is ready, and keeps it as the last one.
func TestReplicaThatEndsAtTheRouter(t *testing.T) {
	t.Parallel()
	n := newBalancedNode(t)
	const ready, ends, ended = "{ready: true}", "{ready: false, serving: true, terminating: true}", "{ready: false, serving: false, terminating: true}"
	n.create(0)
	for _, step := range []struct {
		on   []string
		want int
	}{
		{[]string{"bench: " + ready, "other: " + ready}, 1},
		{[]string{"bench: " + ends, "other: " + ready}, 0},
		{[]string{"bench: " + ready, "other: " + ready}, 1},
		{[]string{"bench: " + ended, "other: " + ready}, 0},
		{[]string{"bench: " + ends, "other: " + ends}, 1},
		{[]string{"bench: " + ended, "other: " + ends}, 0},
	} {
		n.server.MustKubectl(t, served(0, step.on...), "apply", "-f", "-")
		n.await(fmt.Sprintf("announces %d for %v", step.want, step.on), func() bool { return n.hosts() == step.want })
	}
}

// BenchmarkServicesAtTheRouter is the time from the write of a Service until the router has
// the route, and from its deletion until it has not: one after the other, then all at once,
// which counts until the last.
func BenchmarkServicesAtTheRouter(b *testing.B) {
	n := newBalancedNode(b)
	after := func(what string, do func(), ok func() bool) float64 {
		began := time.Now()
		do()
		n.await(what, ok)
		return float64(time.Since(began).Microseconds()) / 1000
	}
	n.create(0) // the first block is made, and the controller has started
	n.await("announces one", func() bool { return n.hosts() == 1 })
	n.delete(0)
	n.await("withdraws it", func() bool { return n.hosts() == 0 })
	for range b.N {
		var come, gone []float64
		for i := range balancedServices {
			come = append(come, after("announces it", func() { n.create(i) }, func() bool { return n.hosts() == 1 }))
			gone = append(gone, after("withdraws it", func() { n.delete(i) }, func() bool { return n.hosts() == 0 }))
		}
		slices.Sort(come)
		slices.Sort(gone)
		b.ReportMetric(come[len(come)/2], "ms/come-p50")
		b.ReportMetric(come[len(come)-1], "ms/come-max")
		b.ReportMetric(gone[len(gone)/2], "ms/gone-p50")
		b.ReportMetric(gone[len(gone)-1], "ms/gone-max")
		each := func(do func(int)) func() {
			return func() {
				for i := range balancedServices {
					do(i)
				}
			}
		}
		b.ReportMetric(after("announces all", each(n.create), func() bool { return n.hosts() == balancedServices }), "ms/all-come")
		b.ReportMetric(after("withdraws all", each(n.delete), func() bool { return n.hosts() == 0 }), "ms/all-gone")
	}
}
