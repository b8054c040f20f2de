package kube_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
)

func podOn(node, name, namespace string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: %s}\nspec: {nodeName: %s, containers: [{name: c, image: i}]}\n---\n", name, namespace, node)
}

// A node has the policies of the namespaces of its own pods, and knows a pod not before
// it has these. It knows that there are others.
func TestPoliciesOfOwnNamespaces(t *testing.T) {
	const policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: %s, namespace: %s}\nspec: {podSelector: {}}\n---\n" +
		"apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: %[1]s, namespace: %[2]s}\nspec: {selector: all()}\n---\n"
	for _, ns := range []string{"near", "far", "bare"} {
		server.MustKubectl(t, "", "create", "namespace", ns) // which nobody here could end
	}
	apply(t, podOn("n1", "own", "near")+podOn("n2", "other", "far")+fmt.Sprintf(policy, "p", "near")+fmt.Sprintf(policy, "p", "far"))
	c := watch(t, kube.Options{Node: "n1", Policy: true})
	shows := func(what string, more bool, want ...string) {
		t.Helper()
		eventually(t, c, func() string {
			v := c.PolicyView()
			if got := summary(v); v.Synced && v.More == more && slices.Equal(got, want) {
				return ""
			}
			return fmt.Sprintf("%s: synced %t, more %t, %v; want %t, %v", what, v.Synced, v.More, summary(v), more, want)
		})
	}
	shows("at first", true, "near: 2 policies", "pod far/other", "pod near/own")
	early := make(chan string, 1)
	done := time.After(3 * time.Second)
	go func() { // a namespace that comes is never seen without its policies
		defer close(early)
		for {
			select {
			case <-done:
				return
			default:
			}
			if v := c.PolicyView(); v.Of["far"] && !slices.Contains(summary(v), "far: 2 policies") {
				early <- fmt.Sprint(summary(v))
				return
			}
		}
	}()
	apply(t, podOn("n1", "second", "far")+podOn("n1", "third", "bare"))
	shows("pods of two more namespaces", false, "far: 2 policies", "near: 2 policies", "pod bare/third", "pod far/other", "pod far/second", "pod near/own")
	for got := range early {
		t.Errorf("a pod without its policies: %s", got)
	}
	server.MustKubectl(t, "", "-n", "far", "delete", "networkpolicies.networking.k8s.io", "p")
	apply(t, fmt.Sprintf(policy, "q", "bare"))
	shows("changes there", false, "bare: 2 policies", "far: 1 policies", "near: 2 policies", "pod bare/third", "pod far/other", "pod far/second", "pod near/own")
	server.MustKubectl(t, "", "-n", "far", "delete", "pod", "second", "--force", "--grace-period=0")
	shows("no pod there any more", true, "bare: 2 policies", "near: 2 policies", "pod bare/third", "pod far/other", "pod near/own")
	server.MustKubectl(t, "", "-n", "near", "delete", "networkpolicies", "p")
	server.MustKubectl(t, "", "-n", "near", "delete", "networkpolicies.projectcalico.org", "p")
	server.MustKubectl(t, "", "-n", "bare", "delete", "pod", "third", "--force", "--grace-period=0")
	shows("none of them selects anybody here", true, "pod far/other", "pod near/own")
	c.WantPolicies(map[string]bool{"bare": true})
	shows("a pod of there is attached that the server does not have", true, "bare: 2 policies", "pod far/other", "pod near/own")
	c.WantPolicies(nil)
	shows("nor is it attached", true, "pod far/other", "pod near/own")
	server.MustKubectl(t, "", "-n", "bare", "delete", "networkpolicies", "--all")
	for _, ns := range []string{"far", "bare"} {
		server.MustKubectl(t, "", "-n", ns, "delete", "networkpolicies.projectcalico.org", "--all")
	}
	shows("no policy", false)
}

// summary counts policies by namespace, and names pods.
func summary(v model.PolicyView) (out []string) {
	count := map[string]int{}
	for p := range v.Policies.All() {
		count[p.Object.Namespace]++
	}
	for ns, n := range count {
		out = append(out, fmt.Sprintf("%s: %d policies", ns, n))
	}
	for p := range v.Pods.All() {
		out = append(out, "pod "+p.Namespace+"/"+p.Name)
	}
	slices.Sort(out)
	return out
}
