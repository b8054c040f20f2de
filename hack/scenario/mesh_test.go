package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"
)

// TestMeshAndReflectors: two dozen agents find each other, then change from the mesh to
// two route reflectors and back while a pod pings another across racks.
func TestMeshAndReflectors(t *testing.T) {
	t.Parallel() // mostly waits; beside other labs
	meshAndReflectors(t, lightTopology, "d6")
}

// lightTopology is of 24 nodes; make soak does the same with 60.
const lightTopology = "../lab/topologies/light.yaml"

func meshAndReflectors(t *testing.T, topology, last string) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	c := lightCluster(t, ctx, "mmesh", topology)
	c.converge(t, ctx, "in full mesh")

	ping := c.pingAcross(t, ctx, "a1", last)
	c.useReflectors(t, ctx, "a1", "b1")
	c.useMesh(t, ctx, "a1", "b1")
	result := ping()
	t.Logf("mesh to reflectors and back: %d sent, %d lost, longest %.1f ms", result.Sent, result.Lost, result.MaxMs)
	if result.Lost != 0 || result.Failed != 0 || result.Sent == 0 {
		t.Errorf("ping: %+v, want none lost", result)
	}
}

// TestReflectorsFromTheStart: agents that find two route reflectors and no mesh from
// their start on.
func TestReflectorsFromTheStart(t *testing.T) {
	t.Parallel() // mostly waits; beside other labs
	reflectorsFromTheStart(t, lightTopology)
}

func reflectorsFromTheStart(t *testing.T, topology string) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	c := lightCluster(t, ctx, "mreflect", topology)
	reflectors := []string{"a1", "b1"}
	c.makeReflectors(t, ctx, reflectors...)
	c.setMesh(t, ctx, false)
	c.converge(t, ctx, "with 2 reflectors")
	c.settleReflected(t, ctx, reflectors)
}

// converge starts all agents and waits until every node has every block.
func (c *LightCluster) converge(t *testing.T, ctx context.Context, how string) {
	t.Helper()
	began := time.Now()
	if err := c.StartAgents(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AwaitFullTables(ctx, 3*time.Minute); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d agents %s converged %.1f s after their start", len(c.Topology().Nodes), how, time.Since(began).Seconds())
}

const reflectorPeer = `apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: reflectors}
spec: {nodeSelector: all(), peerSelector: reflector == 'yes'}
`

// useReflectors makes nodes route reflectors, peers everybody with them and
// ends the mesh, in the order that keeps routes.
func (c *LightCluster) useReflectors(t *testing.T, ctx context.Context, nodes ...string) {
	t.Helper()
	began := time.Now()
	c.makeReflectors(t, ctx, nodes...)
	c.settle(t, ctx, func(n string, reflector bool, peers []string) error {
		if want := len(nodes); !reflector && len(peers) < want {
			return fmt.Errorf("%s has %d sessions, want %d with reflectors", n, len(peers), want)
		}
		return nil
	}, nodes)
	c.setMesh(t, ctx, false)
	c.settleReflected(t, ctx, nodes)
	if _, err := c.AwaitFullTables(ctx, 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	t.Logf("mesh to %d reflectors: %.1f s", len(nodes), time.Since(began).Seconds())
}

// settleReflected waits until everybody else has a session with each reflector
// and with nobody but them.
func (c *LightCluster) settleReflected(t *testing.T, ctx context.Context, reflectors []string) {
	t.Helper()
	c.settle(t, ctx, func(n string, reflector bool, peers []string) error {
		if want := len(reflectors); !reflector && len(peers) != want {
			return fmt.Errorf("%s has %d sessions, want %d", n, len(peers), want)
		}
		return nil
	}, reflectors)
}

// makeReflectors has nodes reflect, and everybody peer with them.
func (c *LightCluster) makeReflectors(t *testing.T, ctx context.Context, nodes ...string) {
	t.Helper()
	for _, n := range nodes {
		c.kubectl(t, ctx, "", "label", "node", n, "reflector=yes")
		c.kubectl(t, ctx, "", "annotate", "node", n, "projectcalico.org/RouteReflectorClusterID=244.0.0.1")
	}
	c.kubectl(t, ctx, reflectorPeer, "apply", "-f", "-")
}

func (c *LightCluster) setMesh(t *testing.T, ctx context.Context, on bool) {
	t.Helper()
	c.kubectl(t, ctx, "", "patch", "bgpconfiguration.projectcalico.org", "default", "--type=merge", "-p", fmt.Sprintf(`{"spec":{"nodeToNodeMeshEnabled":%t}}`, on))
}

// useMesh takes the way back.
func (c *LightCluster) useMesh(t *testing.T, ctx context.Context, nodes ...string) {
	t.Helper()
	began := time.Now()
	c.setMesh(t, ctx, true)
	all := len(c.Topology().Nodes)
	c.settle(t, ctx, func(n string, reflector bool, peers []string) error {
		if want := all - len(nodes); !reflector && len(peers) < want {
			return fmt.Errorf("%s has %d sessions, want %d of the mesh", n, len(peers), want)
		}
		return nil
	}, nodes)
	for _, n := range nodes {
		c.kubectl(t, ctx, "", "annotate", "node", n, "projectcalico.org/RouteReflectorClusterID-")
	}
	c.kubectl(t, ctx, "", "delete", "bgppeer.projectcalico.org", "reflectors")
	c.settle(t, ctx, func(n string, _ bool, peers []string) error {
		if len(peers) != all-1 {
			return fmt.Errorf("%s has %d sessions, want %d", n, len(peers), all-1)
		}
		return nil
	}, nil)
	if _, err := c.AwaitFullTables(ctx, 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	t.Logf("reflectors to mesh: %.1f s", time.Since(began).Seconds())
}

func (c *LightCluster) kubectl(t *testing.T, ctx context.Context, stdin string, args ...string) {
	t.Helper()
	if _, err := c.Kubectl(ctx, stdin, args...); err != nil {
		t.Fatal(err)
	}
}

// settle waits until check passes for the established sessions of every node.
func (c *LightCluster) settle(t *testing.T, ctx context.Context, check func(node string, reflector bool, peers []string) error, reflectors []string) {
	t.Helper()
	isReflector := map[string]bool{}
	for _, r := range reflectors {
		isReflector[r] = true
	}
	if err := c.eventually(ctx, 2*time.Minute, func() error {
		for _, n := range c.Topology().Nodes {
			peers, err := c.established(ctx, n.Name)
			if err == nil {
				err = check(n.Name, isReflector[n.Name], peers)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// established asks a node's agent which sessions with other nodes are up.
func (c *LightCluster) established(ctx context.Context, node string) ([]string, error) {
	out, err := c.Machine(node).Exec(ctx, filepath.Join(c.bin, "muslin-agent"), "status")
	if err != nil {
		return nil, err
	}
	var s AgentStatus
	if err := json.Unmarshal(out, &s); err != nil {
		return nil, err
	}
	n, _ := c.Topology().Node(node)
	router := c.rackGateway(n.Rack)
	var up []string
	for _, p := range s.Peers {
		if p.State == "Established" && p.Address != router {
			up = append(up, p.Address.String())
		}
	}
	return up, nil
}

func (c *LightCluster) rackGateway(name string) netip.Addr {
	for _, r := range c.Topology().Racks {
		if r.Name == name {
			return r.Gateway.V4
		}
	}
	return netip.Addr{}
}

// pingAcross plugs a pod on each of two nodes and pings one from the other at
// 100 packets a second, until the returned function is called.
func (c *LightCluster) pingAcross(t *testing.T, ctx context.Context, from, to string) func() pingResult {
	t.Helper()
	if _, err := c.AddLightPod(ctx, from, "from"); err != nil {
		t.Fatal(err)
	}
	target, err := c.AddLightPod(ctx, to, "to")
	if err != nil {
		t.Fatal(err)
	}
	return c.pingFrom(t, ctx, from, "default-from", target.String())
}
