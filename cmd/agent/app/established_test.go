package app_test

import (
	"fmt"
	"testing"
	"time"
)

// TestEstablishedConnections: one between pods of two nodes that a policy does not allow any more goes on until a
// FelixConfiguration has it evaluated again, and then ends; it is allowed again, survives an agent that restarts, and ends
// with the policy that denies it.
func TestEstablishedConnections(t *testing.T) {
	t.Parallel()
	f := newFabric(t, dualStackMesh)
	client, server := f.join("b", 1, 2), f.join("a", 1, 1)
	echo(t, server.pod)
	allow := func(port int) {
		f.server.MustKubectl(t, fmt.Sprintf(`apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: default}
spec: {podSelector: {matchLabels: {isolated: "true"}}, ingress: [{ports: [{port: %d, protocol: UDP}]}]}
`, port), "apply", "-f", "-")
	}
	f.server.MustKubectl(t, "", "label", "pod", "p-a", "isolated=true")
	const another = echoPort + 1
	allow(echoPort)
	p := probe(t, client.pod, server.podIP, 1)
	defer p.close()
	p.since(t, time.Now(), true)

	allow(another)
	f.await("a new connection is refused", func() string {
		fresh := probe(t, client.pod, server.podIP, 1)
		defer fresh.close()
		time.Sleep(500 * time.Millisecond)
		fresh.mu.Lock()
		defer fresh.mu.Unlock()
		for _, answered := range fresh.answered {
			if answered {
				return "it is answered"
			}
		}
		return ""
	})
	p.since(t, time.Now(), true)

	f.server.MustKubectl(t, "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\n"+
		"metadata: {name: default, annotations: {muslin.io/established-connections: Reevaluate}}\nspec: {}\n", "apply", "-f", "-")
	p.since(t, time.Now(), false)
	allow(echoPort)
	p.since(t, time.Now(), true)
	stamp := func() string { return server.inside("nft", "list", "chain", "inet", "muslin-policy", "stamp") }
	before := stamp()
	server.kill()
	server.startAgent()
	p.since(t, time.Now(), true)
	if after := stamp(); after != before {
		t.Errorf("after a restart\n%s\nwant\n%s", after, before)
	}
	allow(another)
	p.since(t, time.Now(), false)
}
