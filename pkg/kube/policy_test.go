package kube_test

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
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
`+podOn("n1", "here", "default"))
	server.MustKubectl(t, "", "patch", "pod", "there", "--subresource=status", "--type=merge", "-p", `{"status": {"podIPs": [{"ip": "10.244.2.1"}], "podIP": "10.244.2.1"}}`)
	c := watch(t, kube.Options{Node: "n1", Policy: true})
	eventually(t, c, func() string {
		if v := c.PolicyView(); !v.Synced || v.Policies.Len()+v.Pods.Len() > 0 {
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
		if v = c.PolicyView(); !v.Synced || v.Policies.Len() != 1 {
			return fmt.Sprintf("with a policy: %+v, waiting for %v", v, c.PolicyWaiting())
		}
		return ""
	})
	pods := slices.Collect(v.Pods.All())
	if len(pods) != 2 {
		t.Fatalf("synced with pods %+v", pods)
	}
	pods = pods[1:] // after the one of this node
	want := model.PolicyPod{
		Namespace: "default", Name: "there", Node: "n2", ServiceAccount: pods[0].ServiceAccount, Labels: map[string]string{"app": "a"},
		Addresses: []netip.Addr{netip.MustParseAddr("10.244.2.1")}, Ports: []model.NamedPort{{Name: "web", Protocol: 6, Port: 80}}, Created: pods[0].Created,
	}
	if d := cmp.Diff(want, *pods[0], comparers); d != "" || want.Created.IsZero() {
		t.Errorf("pod (-want +got):\n%s", d)
	}
	if got := v.Namespaces["default"]["kubernetes.io/metadata.name"]; got != "default" {
		t.Errorf("labels of the namespace: %v", v.Namespaces["default"])
	}
	server.MustKubectl(t, "", "label", "pod", "there", "app=b", "--overwrite")
	eventually(t, c, func() string {
		p, _ := c.PolicyView().Pods.Get(&model.PolicyPod{Namespace: "default", Name: "there"})
		return strings.TrimPrefix(p.Labels["app"], "b")
	})
	if r := c.PolicyView().Revision; r == 0 || r != v.Revision {
		t.Errorf("revision %d, was %d, and a pod alone has changed", r, v.Revision)
	}
	apply(t, v3("FelixConfiguration", "default", `{}`))
	server.MustKubectl(t, "", "annotate", "felixconfiguration", "default", kube.AnnotationEstablished+"=Reevaluate")
	eventually(t, c, func() string {
		if v := c.PolicyView(); len(v.Felix) != 1 || v.Felix[0].Established != model.ActionReevaluate {
			return fmt.Sprintf("FelixConfigurations: %+v", v.Felix)
		}
		return ""
	})
	server.MustKubectl(t, policy, "delete", "-f", "-")
	eventually(t, c, func() string {
		if v := c.PolicyView(); !v.Synced || v.Policies.Len()+v.Pods.Len() > 0 {
			return fmt.Sprintf("the policy is gone: %+v", v)
		}
		return ""
	})
}

// Calico's policies, and the labels of service accounts only while one asks for
// them.
func TestCalicoPolicyView(t *testing.T) {
	apply(t, `apiVersion: v1
kind: ServiceAccount
metadata: {name: robot, namespace: default, labels: {trust: high}}
---
`+podOn("n1", "here", "default"))
	c := watch(t, kube.Options{Node: "n1", Policy: true})
	apply(t, strings.ReplaceAll(v3("NetworkPolicy", "web", `
  order: 5.5
  selector: app == "web"
  ingress:
  - {action: Allow, source: {selector: app == "web"}, protocol: TCP, destination: {ports: [22, "80:90", http]}}
  - {action: Allow, protocol: icmp, icmp: {type: 8, code: 0}}
  - {action: Allow, protocol: 47}`)+v3("NetworkSet", "s", `{nets: [10.0.0.0/8, 192.0.2.1]}`), "metadata: {", "metadata: {namespace: default, "))
	apply(t, v3("GlobalNetworkPolicy", "g", `{tier: t, types: [Ingress, Egress], ingress: [{action: Pass, source: {selector: "a =="}}]}`)+
		v3("Tier", "t", `{order: 5, defaultAction: Pass}`)+v3("Tier", "default", `{order: 1000000}`)+v3("GlobalNetworkSet", "s", `{nets: [0.0.0.0/0]}`))
	var v model.PolicyView
	eventually(t, c, func() string {
		if v = c.PolicyView(); !v.Synced || v.Policies.Len() != 2 || len(v.Tiers) != 2 || len(v.NetworkSets) != 2 {
			return fmt.Sprintf("%+v, waiting for %v", v, c.PolicyWaiting())
		}
		return ""
	})
	if p := slices.Collect(v.Policies.All())[1]; p.Order != 5.5 || p.Tier != "default" || !p.Ingress || p.Egress || len(p.IngressRules) != 3 || len(p.IngressRules[0].Destination.Ports) != 3 {
		t.Errorf("policy: %+v", p)
	}
	if len(v.ServiceAccounts) > 0 {
		t.Errorf("service accounts, which nobody asked for: %v", v.ServiceAccounts)
	}
	if got := fmt.Sprint(c.Problems()); !strings.Contains(got, "GlobalNetworkPolicy g: spec.ingress[0].source.selector: ") {
		t.Errorf("problems: %s", got)
	}
	slice := `apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %s, namespace: default, labels: {kubernetes.io/service-name: %s}}
addressType: IPv4
endpoints: [{addresses: [%s], conditions: {ready: false}}]
ports: [{port: 80}, {name: any}]
---
`
	apply(t, fmt.Sprintf(slice, "db-1", "db", "10.244.2.1")+fmt.Sprintf(slice, "other-1", "other", "10.244.2.2"))
	apply(t, v3("GlobalNetworkPolicy", "services", `{egress: [{action: Allow, destination: {services: {namespace: default, name: db}}}]}`))
	db := func(addr string) func() string {
		return func() string {
			a := netip.MustParseAddr(addr)
			want := map[string][]model.ServiceEndpoint{"default/db": {{Addr: a}, {Addr: a, Protocol: 6, Port: 80}}}
			if v = c.PolicyView(); !v.Synced || !reflect.DeepEqual(v.Services, want) {
				return fmt.Sprintf("%v, waiting for %v", v.Services, c.PolicyWaiting())
			}
			return ""
		}
	}
	eventually(t, c, db("10.244.2.1"))
	before := v.Revision
	apply(t, fmt.Sprintf(slice, "db-1", "db", "10.244.2.3"))
	eventually(t, c, db("10.244.2.3"))
	if v.Revision == before {
		t.Error("a service is served by others, and the revision is the same")
	}
	apply(t, v3("GlobalNetworkPolicy", "accounts", `{serviceAccountSelector: trust == "high"}`))
	eventually(t, c, func() string {
		if v = c.PolicyView(); !v.Synced || v.ServiceAccounts["default/robot"]["trust"] != "high" {
			return fmt.Sprintf("%+v, waiting for %v", v, c.PolicyWaiting())
		}
		return ""
	})
}

// What cannot be meant is refused when it is written.
func TestPolicyCRDsRefuse(t *testing.T) {
	server.Install(t)
	rule := func(text string) string {
		return v3("GlobalNetworkPolicy", "bad", "{ingress: ["+text+"]}")
	}
	for object, want := range map[string]string{
		rule(`{action: Permit}`):                                                     "Unsupported value",
		rule(`{protocol: TCP}`):                                                      "Required value",
		rule(`{action: Allow, protocol: TPC}`):                                       "protocol in body should match",
		rule(`{action: Allow, protocol: 256}`):                                       "less than or equal to 255",
		rule(`{action: Allow, ipVersion: 5}`):                                        "Unsupported value",
		rule(`{action: Allow, icmp: {type: 255}}`):                                   "less than or equal to 254",
		rule(`{action: Allow, protocol: TCP, destination: {ports: [65536]}}`):        "less than or equal to 65535",
		rule(`{action: Allow, protocol: TCP, destination: {ports: ["1-2", "a b"]}}`): "should match",
		v3("GlobalNetworkPolicy", "bad", `{types: [Both]}`):                          "Unsupported value",
		v3("GlobalNetworkPolicy", "bad", `{doNotTrack: true}`):                       "need applyOnForward",
		v3("Tier", "default", `{defaultAction: Pass}`):                               "tier default has",
		v3("Tier", "kube-admin", `{order: 5, defaultAction: Pass}`):                  "tier kube-admin has",
		v3("Tier", "a.b", `{}`):                                                      "DNS label",
		v3("GlobalNetworkSet", "bad", `{nets: ["`+strings.Repeat("1", 44)+`"]}`):     "may not be more than 43",
		v3("HostEndpoint", "bad", `{interfaceName: eth0}`):                           "node is required",
		v3("HostEndpoint", "bad", `{node: n1}`):                                      "interfaceName or expectedIPs is required",
		v3("HostEndpoint", "bad", `{node: n1, interfaceName: "eth*"}`):               "should match",
	} {
		if out, err := server.Kubectl(object, "create", "--dry-run=server", "-f", "-"); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s\nwant %q, got %s", object, want, out)
		}
	}
	for _, object := range []string{v3("Tier", "kube-admin", `{order: 1000, defaultAction: Pass}`), v3("Tier", "kube-baseline", `{defaultAction: Pass}`), v3("GlobalNetworkPolicy", "ok", `{}`),
		v3("HostEndpoint", "ok", `{node: n1, expectedIPs: [192.0.2.1], ports: [{name: web, protocol: TCP, port: 80}, {name: x, protocol: 89, port: 1}]}`)} {
		if out, err := server.Kubectl(object, "create", "--dry-run=server", "-f", "-"); err != nil {
			t.Errorf("%s\n%s", object, out)
		}
	}
}
