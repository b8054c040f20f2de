package app_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const givenPods = `apiVersion: v1
kind: Pod
metadata: {name: inside, namespace: default, annotations: {cni.projectcalico.org/ipAddrsNoIpam: '["10.77.250.9"]'}}
spec: {nodeName: bench, containers: [{name: c, image: none}]}
---
apiVersion: v1
kind: Pod
metadata: {name: outside, namespace: default, annotations: {cni.projectcalico.org/ipAddrsNoIpam: '["198.51.100.9"]'}}
spec: {nodeName: bench, containers: [{name: c, image: none}]}
`

// cni has the plugin do a verb for a pod of the default namespace.
func (n *crowdedNode) cni(verb, pod string, sandbox *os.File) {
	n.t.Helper()
	cmd := n.server.Exec(filepath.Join(n.server.Dir, "muslin"))
	cmd.Env = []string{
		"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + pod, "CNI_IFNAME=eth0", "CNI_PATH=/",
		fmt.Sprintf("CNI_NETNS=/proc/%d/fd/%d", os.Getpid(), sandbox.Fd()),
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + pod,
	}
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"cniVersion":"1.0.0","name":"k8s-pod-network","type":"muslin","socket":%q,"spool":%q,
	 "feature_control":{"ip_addrs_no_ipam":true}}`, filepath.Join(n.server.Dir, "agent.sock"), filepath.Join(n.server.Dir, "spool")))
	n.run(cmd)
}

// received is what the router has learned of the node.
func (n *crowdedNode) received() string {
	n.t.Helper()
	out, _ := exec.Command("birdc", "-s", filepath.Join(n.server.Dir, "bird.ctl"), "show", "route", "protocol", "node").CombinedOutput()
	return string(out)
}

// TestGivenAddresses follows two addresses that IPAM does not know through a
// whole agent: both have a route and may be used as source, the one inside a
// pool is announced, and so it is after the agent was killed. IPAM has no trace.
func TestGivenAddresses(t *testing.T) {
	t.Parallel()
	n := newRoutedNode(t, "", 1)
	n.startAgent()
	t.Cleanup(n.kill)
	n.buildPlugin()
	n.server.MustKubectl(t, givenPods, "create", "-f", "-")
	n.await("is ready", func() bool { return len(n.waiting()) == 0 })
	pods := makeNamespaces(t, 2)
	n.cni("ADD", "inside", pods[0])
	n.cni("ADD", "outside", pods[1])

	serves := func(when string) {
		t.Helper()
		n.await("is ready "+when, func() bool { return len(n.waiting()) == 0 })
		n.await("announces the address inside the pool "+when, func() bool { return strings.Contains(n.received(), "10.77.250.9/32") })
		if got := n.received(); strings.Contains(got, "198.51.100.9") {
			t.Errorf("%s: the address outside all pools is announced:\n%s", when, got)
		}
		sources := n.inside("nft", "list", "set", "inet", "muslin", "pod-source4")
		for _, addr := range []string{"10.77.250.9", "198.51.100.9"} {
			if routes := n.ours(); !strings.Contains(routes, addr+" dev cali") {
				t.Errorf("%s: no route to %s:\n%s", when, addr, routes)
			}
			if !strings.Contains(sources, addr) {
				t.Errorf("%s: %s may not be used as source:\n%s", when, addr, sources)
			}
		}
		// The node's own tunnel address has a block and a handle; the pods have none.
		for kind, trace := range map[string]string{"ipamhandles.projectcalico.org": "k8s-pod-network", "ipamblocks.projectcalico.org": "10-77-250"} {
			if got := n.server.MustKubectl(t, "", "get", kind, "-o", "name"); strings.Contains(got, trace) {
				t.Errorf("%s: IPAM has %s", when, got)
			}
		}
	}
	serves("at first")
	n.kill()
	n.startAgent()
	serves("after the restart")
	n.cni("DEL", "inside", pods[0])
	n.cni("DEL", "outside", pods[1])
	n.await("has forgotten the pods", func() bool {
		return !strings.Contains(n.ours(), "dev cali") && !strings.Contains(n.received(), "10.77.250.9")
	})
}
