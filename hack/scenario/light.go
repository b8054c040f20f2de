package scenario

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/muslin-net/muslin/hack/lab"
	"github.com/muslin-net/muslin/hack/lab/topology"
)

// LightCluster is a cluster of light nodes: real agents and a real API server
// and routers, without kubelets, so that there can be dozens.
type LightCluster struct {
	*Cluster
	bin      string // where the programs are
	mu       sync.Mutex
	programs map[string]running // by program and node
}

// lightObjects are the objects of a cluster without a controller to make them.
const lightObjects = `apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: default-ipv4-ippool}
spec: {cidr: 10.244.0.0/16, natOutgoing: true}
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {asNumber: 64512, nodeToNodeMeshEnabled: true}
---
apiVersion: projectcalico.org/v3
kind: ClusterInformation
metadata: {name: default}
spec: {datastoreReady: true}
`

// NewLightCluster brings a lab of light nodes up, with CRDs and default objects
// and without agents.
func NewLightCluster(ctx context.Context, source, topologyFile string, options lab.Options, out io.Writer) (*LightCluster, error) {
	plan, err := topology.Read(topologyFile)
	if err != nil {
		return nil, err
	}
	muslin, err := build(ctx, source)
	if err != nil {
		return nil, err
	}
	c := &LightCluster{Cluster: &Cluster{Source: source, Out: out}, bin: muslin.dir, programs: map[string]running{}}
	options.Source, options.Progress = source, out
	options.Light.Setup = [][]string{{"install", "-D", "-m", "755", filepath.Join(c.bin, "muslin"), "/opt/cni/bin/muslin"}}
	if c.Lab, err = lab.New(plan, options); err != nil {
		return c, err
	}
	if c.Phases, err = c.Up(ctx); err != nil {
		return c, err
	}
	return c, c.phase("objects", func() error {
		if _, err := c.Kubectl(ctx, "", "apply", "-k", filepath.Join(source, "manifests/crds")); err != nil {
			return err
		}
		if _, err := c.Kubectl(ctx, "", "wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"); err != nil {
			return err
		}
		if _, err := c.Kubectl(ctx, "", "create", "namespace", Namespace); err != nil {
			return err
		}
		_, err := c.Kubectl(ctx, lightObjects+"---\n"+c.routerPeers(), "apply", "-f", "-")
		return err
	})
}

// Close ends the agents and takes the lab down.
func (c *LightCluster) Close(ctx context.Context) error {
	if c == nil || c.Lab == nil {
		return nil
	}
	var errs []error
	for _, n := range c.Topology().Nodes {
		errs = append(errs, c.KillAgent(n.Name))
	}
	return errors.Join(append(errs, c.Down(ctx))...)
}

// StartAgent runs the agent on a node, logging to the lab's log directory.
func (c *LightCluster) StartAgent(node string) error {
	return c.startProgram("muslin-agent", node, "MUSLIN_CNI_CONF=/etc/cni/net.d", "MUSLIN_CNI_BIN=/opt/cni/bin")
}

// KillAgent ends the agent of a node with SIGKILL and waits for its end; one
// that does not run is dead already.
func (c *LightCluster) KillAgent(node string) error {
	return c.endProgram("muslin-agent", node, os.Kill)
}

// running is a program of Muslin's on a node.
type running struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

// startProgram runs a program of Muslin's on a node. Its log outlives it: the next
// one adds to it.
func (c *LightCluster) startProgram(program, node string, env ...string) error {
	log, err := os.OpenFile(c.logOf(program, node), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := c.Machine(node).Command(context.Background(), filepath.Join(c.bin, program))
	cmd.Env = append(cmd.Env, env...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s on %s: %w", program, node, err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.programs[program+" "+node] = running{cmd, ended}
	return nil
}

// endProgram ends a program with a signal and waits for its end.
func (c *LightCluster) endProgram(program, node string, with os.Signal) error {
	c.mu.Lock()
	r, runs := c.programs[program+" "+node]
	delete(c.programs, program+" "+node)
	c.mu.Unlock()
	if !runs {
		return nil
	}
	if err := r.cmd.Process.Signal(with); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-r.ended
	return nil
}

// logOf is the file that a program of Muslin's logs to.
func (c *LightCluster) logOf(program, node string) string {
	return filepath.Join(c.Machine(node).LogDir(), strings.TrimPrefix(program, "muslin-")+".log")
}

// StartAgents starts all agents at once.
func (c *LightCluster) StartAgents() error {
	var errs []error
	for _, n := range c.Topology().Nodes {
		errs = append(errs, c.StartAgent(n.Name))
	}
	return errors.Join(errs...)
}

// AwaitFullTables waits until every node has a route to a block of every other
// node, and returns how long that took.
func (c *LightCluster) AwaitFullTables(ctx context.Context, bound time.Duration) (time.Duration, error) {
	began := time.Now()
	nodes := c.Topology().Nodes
	err := c.eventually(ctx, bound, func() error {
		for _, n := range nodes {
			blocks, err := c.remoteBlocks(n.Name)
			if err != nil {
				return err
			}
			if len(blocks) < len(nodes)-1 {
				return fmt.Errorf("%s has %d blocks of others, want %d", n.Name, len(blocks), len(nodes)-1)
			}
		}
		return nil
	})
	return time.Since(began), err
}

// remoteBlocks are the pod routes of a node that lead to other nodes.
func (c *LightCluster) remoteBlocks(node string) ([]netip.Prefix, error) {
	routes, err := c.Fabric.Routes(node)
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, r := range routes {
		if r.Protocol == 109 && r.Via.IsValid() && r.To.Addr().Is4() && r.To.Addr().As4()[1] == 244 {
			out = append(out, r.To)
		}
	}
	return out, nil
}

// AddLightPod makes a pod object bound to a node and plugs it there.
func (c *LightCluster) AddLightPod(ctx context.Context, node, name string) (netip.Addr, error) {
	object := fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: default}
spec:
  nodeName: %s
  containers: [{name: c, image: none}]
`, name, node)
	if err := c.eventually(ctx, 30*time.Second, func() error {
		_, err := c.Kubectl(ctx, object, "apply", "-f", "-")
		return err
	}); err != nil {
		return netip.Addr{}, err
	}
	return c.Pod(node, "default", name).Add(ctx)
}
