package app_test

import (
	"testing"

	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

// Policies and network sets get conditions, Kubernetes' policies events, and the
// tiers that always exist have objects.
func TestPolicyConditions(t *testing.T) {
	server.Install(t)
	crd := kubetest.Root() + "/pkg/kube/testdata/clusternetworkpolicies.yaml"
	server.MustKubectl(t, "", "apply", "-f", crd)
	server.MustKubectl(t, "", "wait", "--for=condition=Established", "-f", crd, "--timeout=60s")
	t.Cleanup(func() { server.MustKubectl(t, "", "delete", "-f", crd) })
	stop := replica(t, "one")
	defer stop()
	shows(t, `{"defaultAction":"Pass","order":1000}`, "get", "tier", "kube-admin", "-o", "jsonpath={.spec}")
	shows(t, `{"defaultAction":"Deny","order":1000000}`, "get", "tier", "default", "-o", "jsonpath={.spec}")
	shows(t, "Accepted=True Accepted in force", conditionsOf("tier", "kube-baseline")...)

	objects := v3("GlobalNetworkPolicy", "lost", `{tier: nowhere, ingress: [{action: Allow}]}`) +
		v3("GlobalNetworkPolicy", "good", `{ingress: [{action: Allow}]}`) +
		v3("GlobalNetworkSet", "typo", `{nets: [10.0.0.0/8, 10.0.0]}`) + `apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: typo, namespace: muslin-system}
spec: {selector: "app = 'x'"}
---
apiVersion: policy.networking.k8s.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: names}
spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Accept, to: [{domainNames: [example.org]}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: in-vain, namespace: muslin-system}
spec: {podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: http}]}]}
`
	server.MustKubectl(t, objects, "apply", "-f", "-")
	t.Cleanup(func() { server.MustKubectl(t, objects, "delete", "--ignore-not-found", "-f", "-") })
	shows(t, `Accepted=False TierNotFound spec.tier: tier "nowhere" does not exist`, conditionsOf("globalnetworkpolicy", "lost")...)
	shows(t, "Accepted=True Accepted in force", conditionsOf("globalnetworkpolicy", "good")...)
	shows(t, `Accepted=False InvalidValue spec.nets[1]: "10.0.0" is not a CIDR`, conditionsOf("globalnetworkset", "typo")...)
	shows(t, "Accepted=False InvalidValue spec.selector: ", append(conditionsOf("networkpolicies.projectcalico.org", "typo"), "-n", "muslin-system")...)
	shows(t, "Accepted=False Unsupported spec.egress[0].to[0].domainNames: ", conditionsOf("clusternetworkpolicy", "names")...)
	shows(t, "InvalidValue spec.egress[0].ports: the name of a port means nothing", append(eventsOf("NetworkPolicy"), "-n", "muslin-system")...)
	staged := v3("StagedGlobalNetworkPolicy", "good", `{ingress: [{action: Allow}]}`) + v3("StagedGlobalNetworkPolicy", "typo", `{selector: "app = 'x'"}`)
	server.MustKubectl(t, staged, "apply", "-f", "-")
	t.Cleanup(func() { server.MustKubectl(t, staged, "delete", "-f", "-") })
	shows(t, "Accepted=True Accepted staged: nothing enforces it", conditionsOf("stagedglobalnetworkpolicy", "good")...)
	shows(t, "Accepted=False InvalidValue spec.selector: ", conditionsOf("stagedglobalnetworkpolicy", "typo")...)
	hosts := "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n---\n" + v3("HostEndpoint", "good", `{node: n1, interfaceName: "*"}`) + v3("HostEndpoint", "typo", `{node: n1, interfaceName: eth0, expectedIPs: [192.0.2]}`)
	server.MustKubectl(t, hosts, "apply", "-f", "-")
	t.Cleanup(func() { server.MustKubectl(t, hosts, "delete", "-f", "-") })
	shows(t, "Accepted=True Accepted in force", conditionsOf("hostendpoint", "good")...)
	shows(t, "Accepted=False InvalidValue spec.expectedIPs[0]: ", conditionsOf("hostendpoint", "typo")...)
	server.MustKubectl(t, v3("Tier", "nowhere", `{order: 5}`), "apply", "-f", "-")
	shows(t, "Accepted=True Accepted in force", conditionsOf("globalnetworkpolicy", "lost")...)
	server.MustKubectl(t, "", "delete", "tier", "nowhere")
}
