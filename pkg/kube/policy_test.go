package kube_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
)

// Pods of other nodes are watched only while there is a policy, and the view is
// synced whenever it has what its policies ask for.
func TestPolicyView(t *testing.T) {
	apply(t, `apiVersion: v1
kind: Pod
metadata: {name: there, namespace: default, labels: {app: a}, annotations: {other: x}}
spec: {nodeName: n2, containers: [{name: c, image: i, ports: [{name: web, containerPort: 80}]}]}
---
`)
	server.MustKubectl(t, "", "patch", "pod", "there", "--subresource=status", "--type=merge", "-p", `{"status": {"podIPs": [{"ip": "10.244.2.1"}], "podIP": "10.244.2.1"}}`)
	c := watch(t, kube.Options{Node: "n1", Policy: true})
	eventually(t, c, func() string {
		if v := c.PolicyView(); !v.Synced || len(v.Policies)+len(v.Pods) > 0 {
			return fmt.Sprintf("without a policy: %+v, waiting for %v", v, c.PolicyWaiting())
		}
		return ""
	})
	policy := `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: default}
spec: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{namespaceSelector: {}}], ports: [{port: web}]}]}
`
	apply(t, policy)
	var v model.PolicyView
	eventually(t, c, func() string {
		if v = c.PolicyView(); !v.Synced || len(v.Policies) != 1 {
			return fmt.Sprintf("with a policy: %+v, waiting for %v", v, c.PolicyWaiting())
		}
		return ""
	})
	if len(v.Pods) != 1 {
		t.Fatalf("synced with pods %+v", v.Pods)
	}
	want := model.PolicyPod{
		Namespace: "default", Name: "there", Node: "n2", ServiceAccount: v.Pods[0].ServiceAccount, Labels: map[string]string{"app": "a"},
		Addresses: []netip.Addr{netip.MustParseAddr("10.244.2.1")}, Ports: []model.NamedPort{{Name: "web", Protocol: 6, Port: 80}}, Created: v.Pods[0].Created,
	}
	if d := cmp.Diff(want, v.Pods[0], comparers); d != "" || want.Created.IsZero() {
		t.Errorf("pod (-want +got):\n%s", d)
	}
	if got := v.Namespaces["default"]["kubernetes.io/metadata.name"]; got != "default" {
		t.Errorf("labels of the namespace: %v", v.Namespaces["default"])
	}
	server.MustKubectl(t, "", "label", "pod", "there", "app=b", "--overwrite")
	eventually(t, c, func() string { return strings.TrimPrefix(c.PolicyView().Pods[0].Labels["app"], "b") })
	server.MustKubectl(t, policy, "delete", "-f", "-")
	eventually(t, c, func() string {
		if v := c.PolicyView(); !v.Synced || len(v.Policies)+len(v.Pods) > 0 {
			return fmt.Sprintf("the policy is gone: %+v", v)
		}
		return ""
	})
}
