package app_test

import "testing"

// With autoCreate each node has a HostEndpoint that follows it, an own one of anybody stays,
// a value that cannot be read changes nothing, and without it they are gone.
func TestHostEndpointsOfNodes(t *testing.T) {
	server.Install(t)
	stop := replica(t, "one")
	defer stop()
	const nodes = `
{apiVersion: v1, kind: Node, metadata: {name: hep1, labels: {zone: a}, annotations: {projectcalico.org/IPv4Address: 192.0.2.41/24}}}
---
{apiVersion: v1, kind: Node, metadata: {name: hep2}}
---
{apiVersion: v1, kind: Node, metadata: {name: hep3}}
`
	server.MustKubectl(t, nodes, "apply", "-f", "-")
	own := v3("HostEndpoint", "hep3-auto-hep", `{node: hep3, interfaceName: eth0}`) + v3("HostEndpoint", "hep1-eth0", `{node: hep1, interfaceName: eth0}`)
	server.MustKubectl(t, own, "apply", "-f", "-")
	shows(t, "15m", "get", "kubecontrollersconfiguration", "default", "-o", "jsonpath={.spec}")
	set := func(value string) {
		server.MustKubectl(t, "", "patch", "kubecontrollersconfiguration", "default", "--type=merge", "-p", `{"spec":{"controllers":{"node":{"hostEndpoint":{"autoCreate":`+value+`}}}}}`)
	}
	t.Cleanup(func() {
		server.MustKubectl(t, "", "delete", "kubecontrollersconfiguration", "default")
		server.MustKubectl(t, own, "delete", "--ignore-not-found", "-f", "-")
		server.MustKubectl(t, nodes, "delete", "--ignore-not-found", "-f", "-")
	})
	set(`"Enabled"`)
	get := func(name, path string) []string {
		return []string{"get", "hostendpoint", name, "--ignore-not-found", "-o", "jsonpath=" + path}
	}
	shows(t, `{"expectedIPs":["192.0.2.41"],"interfaceName":"*","node":"hep1","profiles":["projectcalico-default-allow"]}`, get("hep1-auto-hep", "{.spec}")...)
	shows(t, `{"projectcalico.org/created-by":"calico-kube-controllers","zone":"a"}`, get("hep1-auto-hep", "{.metadata.labels}")...)
	shows(t, `"node":"hep2"`, get("hep2-auto-hep", "{.spec}")...)
	shows(t, "Accepted=True Accepted in force", conditionsOf("hostendpoint", "hep1-auto-hep")...)
	shows(t, "spec.controllers.node.hostEndpoint.autoCreate: HostEndpoint hep3-auto-hep has no label projectcalico.org/created-by", eventsOf("KubeControllersConfiguration")...)

	server.MustKubectl(t, "", "label", "node", "hep1", "zone=b", "--overwrite")
	server.MustKubectl(t, "", "annotate", "node", "hep1", "projectcalico.org/IPv4IPIPTunnelAddr=10.244.9.1")
	shows(t, `["192.0.2.41","10.244.9.1"]`, get("hep1-auto-hep", "{.spec.expectedIPs}")...)
	shows(t, "b", get("hep1-auto-hep", "{.metadata.labels.zone}")...)
	server.MustKubectl(t, "", "patch", "hostendpoint", "hep1-auto-hep", "--type=merge", "-p", `{"spec":{"profiles":null}}`)
	shows(t, "projectcalico-default-allow", get("hep1-auto-hep", "{.spec.profiles}")...)

	set(`"Perhaps"`)
	shows(t, `spec.controllers.node.hostEndpoint.autoCreate: "Perhaps" is not one of`, eventsOf("KubeControllersConfiguration")...)
	server.MustKubectl(t, "", "delete", "node", "hep2")
	lacks(t, "hep2-auto-hep") // the value before is in force
	shows(t, "hep1", get("hep1-auto-hep", "{.spec.node}")...)

	set(`"Disabled"`)
	lacks(t, "hep1-auto-hep")
	for _, name := range []string{"hep3-auto-hep", "hep1-eth0"} {
		if spec := server.MustKubectl(t, "", get(name, "{.spec.interfaceName}")...); spec != "eth0" {
			t.Errorf("HostEndpoint %s, which somebody wrote, has interface %q", name, spec)
		}
	}
}

// lacks waits until there is no such HostEndpoint.
func lacks(t *testing.T, name string) {
	t.Helper()
	shows(t, "gone", "get", "hostendpoints", "-o", `go-template={{$gone := "gone"}}{{range .items}}{{if eq .metadata.name "`+name+`"}}{{$gone = "there"}}{{end}}{{end}}{{$gone}}`)
}
