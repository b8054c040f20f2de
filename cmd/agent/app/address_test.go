package app_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/cmd/agent/app"
)

// neighbour is a node without an agent of its own here: what it says of itself is
// all that there is of it.
const neighbour = `---
apiVersion: v1
kind: Node
metadata: {name: beside, annotations: {projectcalico.org/IPv4VXLANTunnelAddr: 10.77.9.9}}
`

// node answers what the API server has of the node by a JSON path.
func (n *crowdedNode) node(path string) string {
	n.t.Helper()
	return n.server.MustKubectl(n.t, "", "get", "node", "bench", "-o", "jsonpath="+path)
}

const (
	addressPath = `{.metadata.annotations.projectcalico\.org/IPv4Address}`
	problemPath = `{.status.conditions[?(@.type=="MuslinProblem")].status} {.status.conditions[?(@.type=="MuslinProblem")].message}`
)

func (n *crowdedNode) internalIP(name, address string) {
	n.t.Helper()
	n.server.MustKubectl(n.t, "", "patch", "node", name, "--subresource=status", "--type=strategic", "-p",
		`{"status":{"addresses":[{"type":"InternalIP","address":"`+address+`"}]}}`)
}

// renumber moves the node's address on its uplink, and the router to it.
func (n *crowdedNode) renumber(from, to string) {
	n.t.Helper()
	n.inside("sh", "-c", "ip addr del "+from+"/24 dev eth0 && ip addr add "+to+"/24 dev eth0 && ip route replace default via 10.1.0.254")
	conf := filepath.Join(n.server.Dir, "bird.conf")
	text, err := os.ReadFile(conf)
	if err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(conf, []byte(strings.Replace(string(text), "neighbor "+from, "neighbor "+to, 1)), 0o600); err != nil {
		n.t.Fatal(err)
	}
	n.run(exec.Command("birdc", "-s", filepath.Join(n.server.Dir, "bird.ctl"), "configure"))
}

// problems is what the agent cannot do, in its own words.
func (n *crowdedNode) problems() string {
	n.t.Helper()
	return strings.Join(n.status().Problems, "\n")
}

func (n *crowdedNode) status() (s app.Status) {
	n.t.Helper()
	resp, err := n.http.Get("http://127.0.0.1:9109/status")
	if err != nil {
		return s
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		n.t.Fatal(err)
	}
	return s
}

// TestNodeIsRenumbered moves a node to another address while its agent runs, once
// to a free one and once to that of another node, which goes to its own: session,
// next hop, tunnel and rules follow without a restart. What a person annotates
// stays, and a word is said when the node has no such address.
func TestNodeIsRenumbered(t *testing.T) {
	t.Parallel()
	n := newRoutedNode(t, neighbour, 1)
	n.internalIP("beside", "10.1.0.77")
	n.startAgent()
	t.Cleanup(n.kill)
	n.await("is ready", func() bool { return len(n.waiting()) == 0 })
	n.await("has told its address", func() bool { return n.node(addressPath) == "10.1.0.1/24" })
	follows := func(address, other string) {
		t.Helper()
		n.await("has told "+address, func() bool { return n.node(addressPath) == address+"/24" })
		n.await("speaks from "+address, func() bool {
			return strings.Contains(n.received(), "via "+address) || strings.Contains(n.received(), "from "+address)
		})
		n.await("tunnels from "+address, func() bool {
			return strings.Contains(n.inside("ip", "-d", "link", "show", "vxlan.calico"), "local "+address+" ")
		})
		n.await("knows the nodes' addresses", func() bool {
			set := n.inside("nft", "list", "set", "inet", "muslin", "nodes4")
			return strings.Contains(set, address) && strings.Contains(set, other)
		})
		n.await("has no complaint", func() bool { return n.problems() == "" })
		n.await("has a condition without one", func() bool { return !strings.HasPrefix(n.node(problemPath), "True") })
	}
	follows("10.1.0.1", "10.1.0.77")

	n.internalIP("bench", "10.1.0.5")
	n.await("misses the new address", func() bool { return strings.Contains(n.node(problemPath), "10.1.0.5 is on no interface") })
	n.renumber("10.1.0.1", "10.1.0.5")
	follows("10.1.0.5", "10.1.0.77")

	n.renumber("10.1.0.5", "10.1.0.77") // two nodes swap
	n.internalIP("bench", "10.1.0.77")
	n.await("sees that another has its address", func() bool {
		return strings.Contains(n.problems(), "nodes bench and beside both have the address 10.1.0.77")
	})
	n.internalIP("beside", "10.1.0.5")
	follows("10.1.0.77", "10.1.0.5")

	annotate := func(value string) {
		t.Helper()
		n.server.MustKubectl(t, "", "annotate", "--overwrite", "node", "bench", "projectcalico.org/IPv4Address"+value)
	}
	annotate("=192.0.2.9/24")
	n.await("names annotation and address", func() bool {
		reported := n.node(problemPath)
		return strings.HasPrefix(reported, "True") && strings.Contains(reported, "192.0.2.9 is on no interface") && strings.Contains(n.problems(), "projectcalico.org/IPv4Address")
	})
	annotate("=10.1.0.77/24") // as detection would: a person's all the same
	n.await("has no complaint", func() bool { return n.problems() == "" })
	n.inside("ip", "addr", "add", "10.1.0.6/24", "dev", "eth0")
	n.internalIP("bench", "10.1.0.6")
	n.kill()
	n.startAgent()
	n.await("is ready again", func() bool { return len(n.waiting()) == 0 })
	if got := n.node(addressPath); got != "10.1.0.77/24" {
		t.Errorf("the address that somebody chose is %s now", got)
	}
	annotate("-")
	n.await("finds its address anew", func() bool { return n.node(addressPath) == "10.1.0.6/24" })
}

// TestNodeAddressOfAnInterface has the cluster choose the address by Calico's
// method, and a method that cannot be read change nothing.
func TestNodeAddressOfAnInterface(t *testing.T) {
	t.Parallel()
	n := newRoutedNode(t, "", 1)
	n.startAgent()
	t.Cleanup(n.kill)
	n.await("has told its address", func() bool { return n.node(addressPath) == "10.1.0.1/24" })
	annotate := func(kind, name, value string) {
		t.Helper()
		n.server.MustKubectl(t, "", "annotate", "--overwrite", kind, name, "muslin.io/ip-autodetection-method"+value)
	}
	n.inside("sh", "-c", "ip link add storage type veth peer name storage-peer && ip addr add 10.8.0.1/24 dev storage && ip link set storage up && ip link set storage-peer up")
	annotate("bgpconfigurations.projectcalico.org", "default", "=interface=stor.*")
	n.await("has the interface's", func() bool { return n.node(addressPath) == "10.8.0.1/24" })
	n.inside("sh", "-c", "ip addr del 10.8.0.1/24 dev storage && ip addr add 10.8.0.2/24 dev storage")
	n.await("follows the interface", func() bool { return n.node(addressPath) == "10.8.0.2/24" })
	annotate("bgpconfigurations.projectcalico.org", "default", "=ifname=eth0")
	n.await("names object and field", func() bool {
		return strings.Contains(n.problems(), "BGPConfiguration default: metadata.annotations[muslin.io/ip-autodetection-method]")
	})
	if got := n.node(addressPath); got != "10.8.0.2/24" {
		t.Errorf("a slip of the pen moved the node to %s", got)
	}
	annotate("node", "bench", "=kubernetes-internal-ip")
	n.await("has what its own annotation says", func() bool { return n.node(addressPath) == "10.1.0.1/24" })
}
