package scenario

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// policyOf is a NetworkPolicy of the echo pods; spec is what follows podSelector.
func policyOf(name, spec string) string {
	return fmt.Sprintf("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: %s, namespace: default}\nspec: {podSelector: {matchLabels: {app: echo}}%s}\n", name, spec)
}

const (
	denyIngress  = ", policyTypes: [Ingress]"
	allowPods    = ", ingress: [{from: [{podSelector: {matchLabels: {app: echo}}}], ports: [{port: 8080}]}]"
	allowOthers  = ", ingress: [{from: [{podSelector: {matchLabels: {app: other}}}], ports: [{port: 8080}]}]"
	allowPort    = ", ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: default}}}], ports: [{port: 9}]}]"
	denyEgress   = ", policyTypes: [Egress]"
	allowNetwork = ", policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [192.0.2.0/24]}}]}]"
	calicoAllow  = `apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: echo}
spec: {order: 10, selector: app == 'echo', types: [Ingress], ingress: [{action: Allow, protocol: TCP, destination: {ports: [8080]}}]}
`
)

// networkPolicy: what policies close is closed for new connections, across nodes and
// on one, while the agent is away, too; what they open is open.
func (s story) networkPolicy(t *testing.T, ctx context.Context) {
	from, to := acrossRacks(s.Cluster, s.report.Pods)
	near := from
	for _, p := range s.report.Pods {
		if p.Node == to.Node && p.Name != to.Name {
			near = p
		}
	}
	apply := func(object string) { s.kubectlOK(t, ctx, object, "apply", "-f", "-") }
	remove := func(object string) { s.kubectlOK(t, ctx, object, "delete", "-f", "-") }
	expect := func(when string, open bool) {
		t.Helper()
		for _, p := range []Pod{from, near} {
			if err := s.eventually(ctx, 30*time.Second, func() error {
				if _, err := s.dialFromPod(ctx, p, to.IP); (err == nil) != open {
					return fmt.Errorf("%s on %s to %s on %s: %w, want open: %v", p.Name, p.Node, to.Name, to.Node, err, open)
				}
				return nil
			}); err != nil {
				table, _ := s.Machine(to.Node).Exec(ctx, "nft", "list", "table", "inet", "muslin-policy")
				t.Fatalf("%s: %v\n%s", when, err, table)
			}
		}
	}
	expect("without a policy", true)
	apply(policyOf("deny", denyIngress))
	expect("default deny", false)
	if out, err := s.Machine(to.Node).Exec(ctx, "ping", "-c", "1", "-W", "2", to.IP.String()); err != nil {
		t.Errorf("a node does not reach its own pod, which kubelet has to: %v: %s", err, out)
	}
	s.closedWithoutAgent(t, ctx, from, to)
	apply(policyOf("allow", allowOthers))
	expect("others are allowed", false)
	apply(policyOf("allow", allowPort))
	expect("another port is allowed", false)
	apply(policyOf("allow", allowPods))
	expect("allowed by label and port", true)
	remove(policyOf("allow", allowPods))
	expect("no longer allowed", false)
	apply(calicoAllow)
	expect("allowed by a GlobalNetworkPolicy of a lower order", true)
	remove(calicoAllow)
	remove(policyOf("deny", denyIngress))
	expect("no policy any more", true)
	apply(policyOf("deny", denyEgress))
	expect("nothing may be sent", false)
	apply(policyOf("allow", allowNetwork))
	expect("everything but a network may be sent to", true)
	remove(policyOf("allow", allowNetwork))
	remove(policyOf("deny", denyEgress))
	expect("no policy in the end", true)
	for _, n := range s.FullNodes() {
		if out, err := s.Machine(n).Exec(ctx, "nft", "list", "table", "inet", "muslin-policy"); err == nil {
			t.Errorf("%s has a table of policy without any: %s", n, out)
		}
	}
}

// closedWithoutAgent kills the agent of a pod's node, and nothing gets through until
// it is back, nor after.
func (s story) closedWithoutAgent(t *testing.T, ctx context.Context, from, to Pod) {
	t.Helper()
	pid := s.agentPID(t, ctx, to.Node)
	if _, err := s.Machine(to.Node).Exec(ctx, "kill", "-9", pid); err != nil {
		t.Fatal(err)
	}
	for back := 0; back < 3; {
		if _, err := s.dialFromPod(ctx, from, to.IP); err == nil {
			t.Fatal("a pod that is closed was reached while its node's agent was away")
		}
		if now, err := s.findAgent(ctx, to.Node); err == nil && strings.TrimSpace(now) != strings.TrimSpace(pid) {
			back++
		}
	}
}
