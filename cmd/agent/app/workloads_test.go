package app_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/nodeview"
)

const speakingObjects = `apiVersion: v1
kind: Pod
metadata: {name: speaks, namespace: default, labels: {color: red}}
spec: {nodeName: bench, containers: [{name: c, image: none}]}
---
apiVersion: v1
kind: Pod
metadata: {name: silent, namespace: default}
spec: {nodeName: bench, containers: [{name: c, image: none}]}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods6}
spec: {cidr: "fd77::/64"}
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {defaultEndpointToHostAction: Drop}
---
apiVersion: projectcalico.org/v3
kind: BGPFilter
metadata: {name: nested-to-the-world}
spec: {exportV4: [{action: Accept, matchOperator: In, cidr: 10.123.0.0/16, source: RemotePeers}]}
---
apiVersion: projectcalico.org/v3
kind: BGPFilter
metadata: {name: nested-only}
spec:
  importV6: [{action: Accept, matchOperator: In, cidr: "fd23::/32"}, {action: Reject}]
  importV4: [{action: Accept, matchOperator: In, cidr: 10.123.0.0/16}, {action: Accept, matchOperator: In, cidr: 10.77.0.0/16}]
  exportV4: [{action: Reject, matchOperator: In, cidr: 10.77.0.0/16}]
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: pods}
spec: {localWorkloadSelector: color == 'red', asNumber: 65401, filters: [nested-only]}
`

// nestedBird speaks in the pod: for a network of its own, and for what is not
// its to announce: somebody else's pod, a node, everything.
const nestedBird = `router id 10.123.0.1;
protocol device {}
protocol static { ipv4; route 10.123.0.0/26 blackhole; route 10.77.99.9/32 blackhole; route 10.1.0.77/32 blackhole; route 0.0.0.0/0 blackhole; }
protocol bgp node {
  local %s as 65401;
  neighbor 169.254.0.179 as 64512;
  multihop;
  connect delay time 1;
  connect retry time 1;
  ipv4 { import all; export where source = RTS_STATIC; next hop self; };
}
protocol static { ipv6; route fd23::/64 blackhole; route fd24::/64 blackhole; }
protocol bgp node6 {
  local %s as 65401;
  neighbor fd12::179 as 64512;
  multihop;
  connect delay time 1;
  connect retry time 1;
  ipv6 { import all; export where source = RTS_STATIC; next hop self; };
}
`

// inPod runs a command in a pod's network namespace.
func (n *crowdedNode) inPod(pod *os.File, name string, args ...string) *exec.Cmd {
	enter := fmt.Sprintf("--net=/proc/%d/fd/%d", os.Getpid(), pod.Fd())
	return exec.Command("nsenter", append([]string{enter, name}, args...)...)
}

// TestPeeringWithPods has BIRD in a pod speak with the node: its network is in the
// kernel and at the router, may be used as source, and is gone with the label; what
// it must not announce is nowhere, and the pod beside it reaches no port of the
// node.
func TestPeeringWithPods(t *testing.T) {
	t.Parallel()
	n := newRoutedNode(t, "---\n"+speakingObjects, 1, "fd01::1")
	patch := func(kind, name, spec string) {
		t.Helper()
		n.server.MustKubectl(t, "", "patch", kind, name, "--type=merge", "-p", spec)
	}
	patch("bgppeers.projectcalico.org", "tor", `{"spec":{"filters":["nested-to-the-world"]}}`)
	n.startAgent()
	t.Cleanup(n.kill)
	n.buildPlugin()
	n.await("is ready", func() bool { return len(n.waiting()) == 0 })
	pods := makeNamespaces(t, 2)
	n.cni("ADD", "speaks", pods[0])
	n.cni("ADD", "silent", pods[1])
	problems := func() string {
		return n.server.MustKubectl(t, "", "get", "bgppeers.projectcalico.org", "pods", "-o", "yaml") + tail(filepath.Join(n.server.Dir, "agent.log"))
	}
	n.await("says that the address is missing", func() bool { return strings.Contains(problems(), "localWorkloadPeeringIPV4") })
	patch("bgpconfigurations.projectcalico.org", "default", `{"spec":{"localWorkloadPeeringIPV4":"169.254.0.179","localWorkloadPeeringIPV6":"fd12::179"}}`)

	addressOf := func(family string) string {
		t.Helper()
		a := strings.Fields(n.run(n.inPod(pods[0], "ip", "-o", family, "addr", "show", "dev", "eth0", "scope", "global")))[3]
		a, _, _ = strings.Cut(a, "/")
		return a
	}
	address, address6 := addressOf("-4"), addressOf("-6")
	conf, ctl := filepath.Join(n.server.Dir, "nested.conf"), filepath.Join(n.server.Dir, "nested.ctl")
	if err := os.WriteFile(conf, fmt.Appendf(nil, nestedBird, address, address6), 0o600); err != nil {
		t.Fatal(err)
	}
	n.start(n.inPod(pods[0], "bird", "-f", "-c", conf, "-s", ctl, "-P", filepath.Join(n.server.Dir, "nested.pid")))
	link := n.hostInterface(address)
	ours6 := func() string { return n.inside("ip", "-6", "route", "show", "proto", "109") }
	up := func() bool {
		return strings.Contains(n.ours(), "10.123.0.0/26 via "+address+" dev "+link) && strings.Contains(n.received(), "10.123.0.0/26") &&
			strings.Contains(ours6(), "fd23::/64 via "+address6+" dev "+link)
	}
	n.await("has the pod's network and tells of it", up)
	n.await("shows the state that the kernel was given", func() bool {
		v := n.show() // fib to pods, and the rule that lets them speak, come from the BGP loop
		return v.State.Rules.SourceCheck.BGPPort == 179 && slices.ContainsFunc(v.State.Routes, func(r felix.Route) bool { return r.Prefix.String() == "10.123.0.0/26" })
	})
	n.await("lets the pod send from its network", func() bool {
		return strings.Contains(n.inside("nft", "list", "set", "inet", "muslin", "pod-source-net4"), "10.123.0.0/26")
	})
	n.run(n.inPod(pods[0], "ip", "addr", "add", "10.123.0.5/32", "dev", "lo"))
	n.run(exec.Command("ip", "-n", n.server.Netns+"-rack", "route", "add", "10.123.0.0/26", "via", "10.1.0.1"))
	n.run(n.inPod(pods[0], "ping", "-c", "1", "-W", "5", "-I", "10.123.0.5", "10.1.0.254"))
	for _, forbidden := range []string{"10.77.99.9", "10.1.0.77", "default via " + address, "fd24::"} {
		if routes := n.ours() + n.received() + ours6(); strings.Contains(routes, forbidden) {
			t.Errorf("%s is the pod's to announce:\n%s", forbidden, routes)
		}
	}
	// Only who speaks BGP reaches the node, and only for that.
	if out, err := n.inPod(pods[1], "ping", "-c", "1", "-W", "1", "10.1.0.1").CombinedOutput(); err == nil {
		t.Errorf("the silent pod reaches the node: %s", out)
	}
	if got := n.inside("ip", "-o", "-4", "addr", "show"); strings.Count(got, "169.254.0.179/32") != 1 {
		t.Errorf("links with the peering address:\n%s", got)
	}

	n.kill()
	n.startAgent()
	n.await("is ready again", func() bool { return len(n.waiting()) == 0 })
	n.await("speaks with the pod again", func() bool {
		out, _ := exec.Command("birdc", "-s", ctl, "show", "protocols").CombinedOutput()
		return strings.Count(string(out), "Established") == 2
	})
	n.await("has the pod's network again", up)

	n.server.MustKubectl(t, "", "label", "pod", "speaks", "color-")
	n.await("has forgotten the pod's network", func() bool {
		return !strings.Contains(n.ours()+ours6(), "via "+address) && !strings.Contains(ours6(), "fd23::") && !strings.Contains(n.received(), "10.123.0.0/26") &&
			!strings.Contains(n.inside("ip", "-o", "-4", "addr", "show"), "169.254.0.179") &&
			!strings.Contains(n.inside("nft", "list", "set", "inet", "muslin", "pod-source-net4"), "10.123.0.0/26")
	})
}

// hostInterface is the node's end of the link of a pod.
func (n *crowdedNode) hostInterface(address string) string {
	n.t.Helper()
	fields := strings.Fields(n.inside("ip", "route", "show", address))
	if len(fields) < 3 {
		n.t.Fatalf("no route to %s", address)
	}
	return fields[2]
}

// show is the node as muslinctl's node show and explain see it.
func (n *crowdedNode) show() (v nodeview.View) {
	n.t.Helper()
	resp, err := n.http.Get("http://127.0.0.1:9109/show")
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		n.t.Fatal(err)
	}
	return v
}
