package kube_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
)

// A pod has the address that its block gives to it, from before its status says so, and
// no longer than the block says: to an agent that watches all pods, and to a relay.
func TestLeases(t *testing.T) {
	pod := `apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: default}
spec: {nodeName: %s, hostNetwork: %t, containers: [{name: c, image: i}]}
---
`
	apply(t, fmt.Sprintf(pod, "old", "n2", false)+fmt.Sprintf(pod, "new", "n2", false)+fmt.Sprintf(pod, "host", "n2", true)+fmt.Sprintf(pod, "away", "n3", false)+
		`apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: default}
spec: {podSelector: {}}
---
`)
	server.MustKubectl(t, "", "patch", "pod", "old", "--subresource=status", "--type=merge", "-p", `{"status": {"podIPs": [{"ip": "10.244.2.1"}], "podIP": "10.244.2.1"}}`)
	agent, relay := watch(t, kube.Options{Node: "n1", Policy: true}), watch(t, kube.Options{Policy: true, PolicyRelay: true})
	now := time.Now().UTC()
	block := func(text, old, released string) string {
		return v3("IPAMBlock", "10-244-2-0-30", fmt.Sprintf(`{cidr: 10.244.2.0/30, affinity: "host:n2", strictAffinity: false, unallocated: [], deleted: false, allocations: %s, attributes: [
  {handle_id: a, secondary: {node: n2, namespace: default, pod: new, timestamp: "%s m=+0.01"}%s},
  {handle_id: b, secondary: {node: n2, namespace: default, pod: host, timestamp: "%s"}},
  {handle_id: c, secondary: {node: n2, namespace: default, pod: away, timestamp: "%s"}},
  {handle_id: d, secondary: {node: n2, namespace: default, pod: old, timestamp: "%s"}}]}`, text, now, released, now, now, old))
	}
	hour := now.Add(-time.Hour).String()
	for _, step := range []struct{ name, block, want string }{
		{"pods of the block's node alone, and none of the node's network", block("[3, 0, 1, 2]", now.String(), ""), "new [10.244.2.1] [10.244.2.1], old [10.244.2.1 10.244.2.0] [10.244.2.0]"},
		{"of a pod of that name of before", block("[3, 0, 1, 2]", hour, ""), "new [10.244.2.1] [10.244.2.1], old [10.244.2.1] []"},
		{"given back, and not to be given again at once", block("[null, 0, null, null]", hour, `, releasedAt: "`+now.Format(time.RFC3339)+`"`), "new [] [], old [10.244.2.1] []"},
		{"given again", block("[null, null, null, 0]", hour, ""), "new [10.244.2.3] [10.244.2.3], old [10.244.2.1] []"},
		{"that cannot be read", v3("IPAMBlock", "10-244-2-0-30", `{cidr: 10.244.2.0/30, affinity: "host:n2", strictAffinity: false, unallocated: [], deleted: false, allocations: [0], attributes: []}`), "new [] [], old [10.244.2.1] []"},
	} {
		apply(t, step.block)
		for who, c := range map[string]*kube.Cluster{"agent": agent, "relay": relay, "an agent that lists it": watch(t, kube.Options{Node: "n1", Policy: true})} {
			eventually(t, c, func() string {
				if got := leased(c.PolicyView(), "new", "old"); got != step.want {
					return fmt.Sprintf("%s, %s: %s; want %s", who, step.name, got, step.want)
				}
				return ""
			})
			if got := leased(c.PolicyView(), "host", "away"); got != "away [] [], host [] []" {
				t.Errorf("%s, %s: %s", who, step.name, got)
			}
		}
	}
}

// leased are the addresses of pods, and those of them that blocks give to them.
func leased(v model.PolicyView, names ...string) string {
	var out string
	for p := range v.Pods.All() {
		if slices.Contains(names, p.Name) {
			if out != "" {
				out += ", "
			}
			out += fmt.Sprint(p.Name, " ", append([]netip.Addr{}, p.Addresses...), " ", append([]netip.Addr{}, p.Leased...))
		}
	}
	return out
}
