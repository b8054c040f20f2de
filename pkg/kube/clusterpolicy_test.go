package kube_test

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const clusterCRD = "clusternetworkpolicies.policy.networking.k8s.io"

func clusterPolicy(name, spec string) string {
	return fmt.Sprintf("apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: %s}\nspec: %s\n---\n", name, spec)
}

// installClusterCRD installs the CRD, with those versions served, until the test
// ends.
func installClusterCRD(t *testing.T, served ...string) {
	t.Helper()
	text, err := os.ReadFile("testdata/clusternetworkpolicies.yaml")
	if err != nil {
		t.Fatal(err)
	}
	crd := string(text)
	for _, v := range []string{"v1alpha2", "v1beta1"} {
		if !slices.Contains(served, v) {
			crd = strings.Replace(crd, "name: "+v+"\n    served: true", "name: "+v+"\n    served: false", 1)
		}
	}
	server.MustKubectl(t, crd, "apply", "-f", "-")
	server.MustKubectl(t, "", "wait", "--for=condition=Established", "crd/"+clusterCRD, "--timeout=60s")
	t.Cleanup(func() { server.MustKubectl(t, "", "delete", "crd", clusterCRD, "--ignore-not-found") })
}

// ClusterNetworkPolicies come and go with their CRD, of whichever version is
// served.
func TestClusterPolicyView(t *testing.T) {
	c := watch(t, kube.Options{Node: "n1", Policy: true})
	var v model.PolicyView
	names := func(want ...string) func() string {
		return func() string {
			v = c.PolicyView()
			var have []string
			for p := range v.Policies.All() {
				have = append(have, p.Object.String())
			}
			if !v.Synced || !slices.Equal(have, want) {
				return fmt.Sprintf("have %q, synced %v, waiting for %v; want %q", have, v.Synced, c.PolicyWaiting(), want)
			}
			return ""
		}
	}
	eventually(t, c, names())
	installClusterCRD(t, "v1alpha2")
	server.MustKubectl(t, clusterPolicy("base", `{tier: Baseline, priority: 7, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`), "apply", "-f", "-")
	eventually(t, c, names("ClusterNetworkPolicy base"))
	if p := slices.Collect(v.Policies.All())[0]; p.Tier != "kube-baseline" || p.Order != 7 || !p.Ingress || p.Egress || len(p.IngressRules) != 1 || p.IngressRules[0].Action != model.PolicyDeny {
		t.Errorf("policy: %+v", p)
	}
	if len(v.Nodes) > 0 {
		t.Errorf("nodes, which nobody asked for: %+v", v.Nodes)
	}
	installClusterCRD(t, "v1beta1", "v1alpha2")
	admin := strings.Replace(clusterPolicy("admin", `{tier: Admin, priority: 0, subject: {pods: {podSelector: {}}}, egress: [{action: Pass, to: [{later: {}}, {namespaces: {}}]}]}`), "v1alpha2", "v1beta1", 1)
	server.MustKubectl(t, admin, "apply", "-f", "-")
	eventually(t, c, names("ClusterNetworkPolicy admin", "ClusterNetworkPolicy base"))
	if r := slices.Collect(v.Policies.All())[0].EgressRules; len(r) != 1 || !r[0].Unreadable {
		t.Errorf("a peer that nobody knows: %+v", r)
	}
	if got := fmt.Sprint(c.Problems()); !strings.Contains(got, `ClusterNetworkPolicy admin: spec.egress[0]: cannot be read: json: unknown field "later"`) {
		t.Errorf("problems: %s", got)
	}
	installClusterCRD(t, "v1beta1")
	// A watch that is there may go on; who comes now asks for the version that is left.
	second := watch(t, kube.Options{Node: "n1", Policy: true})
	eventually(t, second, func() string {
		if v := second.PolicyView(); !v.Synced || v.Policies.Len() != 2 {
			return fmt.Sprintf("one who comes later has %+v, and waits for %v", v, second.PolicyWaiting())
		}
		return ""
	})
	server.MustKubectl(t, "", "delete", "crd", clusterCRD)
	eventually(t, c, names())
}

// Nodes are in the view while a policy names any.
func TestNodesOfClusterPolicies(t *testing.T) {
	installClusterCRD(t, "v1beta1", "v1alpha2")
	apply(t, node("n9", ""))
	server.MustKubectl(t, "", "patch", "node", "n9", "--subresource=status", "--type=merge", "-p",
		`{"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.9"}, {"type": "Hostname", "address": "n9"}, {"type": "ExternalIP", "address": "2001:db8::9"}]}}`)
	c := watch(t, kube.Options{Node: "n1", Policy: true})
	apply(t, clusterPolicy("nodes", `{tier: Admin, priority: 0, subject: {namespaces: {}}, egress: [{action: Accept, to: [{nodes: {matchLabels: {rack: a}}}]}]}`))
	rack := func(want string) func() string {
		return func() string {
			v := c.PolicyView()
			i := slices.IndexFunc(v.Nodes, func(n model.PolicyNode) bool { return n.Name == "n9" })
			if i < 0 || v.Nodes[i].Labels["rack"] != want ||
				!slices.Equal(v.Nodes[i].Addresses, []netip.Addr{netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("2001:db8::9")}) {
				return fmt.Sprintf("%+v, waiting for %v", v.Nodes, c.PolicyWaiting())
			}
			return ""
		}
	}
	eventually(t, c, rack("a"))
	before := c.PolicyView().Revision
	server.MustKubectl(t, "", "label", "node", "n9", "rack=b", "--overwrite")
	eventually(t, c, rack("b"))
	if c.PolicyView().Revision == before {
		t.Error("a node has other labels, and the revision is the same")
	}
}

// Their conditions are written in the version that is served.
func TestClusterPolicyConditions(t *testing.T) {
	installClusterCRD(t, "v1alpha2")
	apply(t, clusterPolicy("one", `{tier: Admin, priority: 0, subject: {namespaces: {}}}`))
	server.Install(t)
	c := watchAs(t, server.ConfigAs("system:serviceaccount:muslin-system:muslin-controller"), kube.Options{Policy: true})
	var found []kube.Reported
	eventually(t, c, func() string {
		found = slices.DeleteFunc(c.Reported(), func(r kube.Reported) bool { return r.Ref.Kind != model.KindClusterPolicy })
		if len(found) != 1 {
			return fmt.Sprintf("reported: %+v", found)
		}
		return ""
	})
	condition := []metav1.Condition{{Type: "Accepted", Status: metav1.ConditionFalse, Reason: "Test", LastTransitionTime: metav1.Now()}}
	if err := c.PatchConditions(t.Context(), found[0], condition); err != nil {
		t.Fatal(err)
	}
	out := server.MustKubectl(t, "", "get", "--raw", "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies/one")
	if !strings.Contains(out, `"type":"Accepted"`) {
		t.Errorf("no condition: %s", out)
	}
}
