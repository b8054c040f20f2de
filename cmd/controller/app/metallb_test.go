package app_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

// TestComingFromMetalLB: as docs/coming-from-metallb.md has it. While MetalLB serves Services,
// Muslin gives addresses to those that ask it alone, and none of MetalLB's. Without MetalLB its
// addresses stay where they are, but for one that Services share without a key: that is the
// oldest one's.
func TestComingFromMetalLB(t *testing.T) {
	shared := server
	server = kubetest.StartWithCRDs(t)
	defer func() { server = shared }()
	server.Install(t)
	var objects strings.Builder
	objects.WriteString(v3("KubeControllersConfiguration", "default", `{controllers: {loadBalancer: {assignIPs: RequestedServicesOnly}}}`))
	objects.WriteString(v3("IPPool", "lb", `{cidr: 10.30.0.0/29, blockSize: 29, allowedUses: [LoadBalancer], nodeSelector: all()}`))
	objects.WriteString("apiVersion: v1\nkind: Namespace\nmetadata: {name: lb0}\n---\n")
	given := map[string]string{"a": "10.30.0.5", "b": "10.30.0.5", "c": "10.30.0.0", "e": "192.0.2.9"}
	for _, name := range []string{"a", "b", "c", "e"} {
		objects.WriteString(numbered(svc(name, "", p80), 0))
	}
	server.MustKubectl(t, objects.String(), "apply", "-f", "-")
	for name, addr := range given {
		server.MustKubectl(t, "", "-n", "lb0", "patch", "service", name, "--subresource=status", "--type=merge", "-p", fmt.Sprintf(`{"status":{"loadBalancer":{"ingress":[{"ip":%q}]}}}`, addr))
	}
	replica(t, "one")
	server.MustKubectl(t, numbered(svc("g", fromPool("lb"), p80), 0), "apply", "-f", "-")
	await(t, func(has map[string]string) bool {
		return strings.HasPrefix(has["g"], "10.30.0.") && !slices.Contains([]string{"10.30.0.0", "10.30.0.5"}, has["g"]) && same(has, given, "a", "b", "c", "e")
	})

	server.MustKubectl(t, "", "patch", "kubecontrollersconfiguration", "default", "--type=merge", "-p", `{"spec":{"controllers":{"loadBalancer":{"assignIPs":"AllServices"}}}}`)
	await(t, func(has map[string]string) bool {
		return strings.HasPrefix(has["b"], "10.30.0.") && has["b"] != has["a"] && has["b"] != has["g"] && same(has, given, "a", "c", "e")
	})
	shows(t, "lb0/e ServedElsewhere", "-n", "lb0", "get", "events", "-o", `jsonpath={range .items[*]}{.involvedObject.namespace}/{.involvedObject.name} {.reason}{"\n"}{end}`)
}

// same reports whether Services have what they were given.
func same(has, given map[string]string, names ...string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return has[name] != given[name] })
}

// await waits until the addresses of the Services of lb0 are as they are wanted.
func await(t *testing.T, ok func(has map[string]string) bool) {
	t.Helper()
	var list string
	for range 600 {
		list = server.MustKubectl(t, "", "-n", "lb0", "get", "services", "-o", `jsonpath={range .items[*]}{.metadata.name}={.status.loadBalancer.ingress[*].ip}{"\n"}{end}`)
		has := map[string]string{}
		for _, line := range strings.Fields(list) {
			name, addr, _ := strings.Cut(line, "=")
			has[name] = addr
		}
		if ok(has) {
			return
		}
	}
	t.Fatalf("the Services have\n%s", list)
}
