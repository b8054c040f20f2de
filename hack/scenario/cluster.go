package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/muslin-net/muslin/hack/lab"
	"github.com/muslin-net/muslin/hack/lab/topology"
)

// Namespace is where Muslin is installed.
const Namespace = "muslin-system"

// Cluster is a lab with Muslin on it.
type Cluster struct {
	*lab.Lab
	Source string // the checkout
	Out    io.Writer
	Phases lab.Phases
}

// phase runs one step, shows it and keeps its time.
func (c *Cluster) phase(name string, do func() error) error {
	began := time.Now()
	err := do()
	took := time.Since(began)
	c.Phases = append(c.Phases, lab.Phase{Name: name, Duration: took})
	mark := "ok"
	if err != nil {
		mark = "FAILED"
		err = fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(c.Out, "%-22s %7.1fs  %s\n", name, took.Seconds(), mark)
	return err
}

// Install applies the manifests as a user would, and a BGPPeer for each rack's
// router.
func (c *Cluster) Install(ctx context.Context) error {
	if _, err := c.Kubectl(ctx, "", "apply", "-k", filepath.Join(c.Source, "manifests", c.overlay())); err != nil {
		return err
	}
	_, err := c.Kubectl(ctx, c.routerPeers(), "apply", "-f", "-")
	return err
}

// overlay is that of the families that nodes have.
func (c *Cluster) overlay() string {
	switch core := c.Topology().Core; {
	case !core.V6.IsValid():
		return ""
	case !core.V4.IsValid():
		return "overlays/ipv6"
	}
	return "overlays/dual-stack"
}

// families tells how many address families the lab has.
func (c *Cluster) families() int { return len(c.Topology().Outside.Address.All()) }

// routerPeers has a BGPPeer a rack and family: its nodes peer with its router.
func (c *Cluster) routerPeers() string {
	as := map[string]uint32{}
	for _, r := range c.Topology().Routers {
		as[r.Name] = r.AS
	}
	var docs []string
	for _, r := range c.Topology().Racks {
		for i, gateway := range r.Gateway.All() {
			name := "rack-" + r.Name + []string{"", "-v6"}[i]
			docs = append(docs, fmt.Sprintf(`apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: %s}
spec: {peerIP: %q, asNumber: %d, nodeSelector: "rack == '%s'"}
`, name, gateway, as[r.Router], r.Name))
		}
	}
	return strings.Join(docs, "---\n")
}

// WaitReady waits until the DaemonSet is rolled out and every node is Ready.
func (c *Cluster) WaitReady(ctx context.Context) error {
	if _, err := c.Kubectl(ctx, "", "-n", Namespace, "rollout", "status", "daemonset/muslin-agent", "--timeout=180s"); err != nil {
		return errors.Join(err, c.explainAgents(ctx))
	}
	if _, err := c.Kubectl(ctx, "", "wait", "--for=condition=Ready", "node", "--all", "--timeout=120s"); err != nil {
		return errors.Join(err, c.explainAgents(ctx))
	}
	return nil
}

// explainAgents collects what helps when agents do not come up.
func (c *Cluster) explainAgents(ctx context.Context) error {
	pods, _ := c.Kubectl(ctx, "", "-n", Namespace, "get", "pods", "-o", "wide")
	logs, _ := c.Kubectl(ctx, "", "-n", Namespace, "logs", "-l", "app.kubernetes.io/component=agent", "--all-containers", "--tail=15", "--prefix")
	events, _ := c.Kubectl(ctx, "", "-n", Namespace, "get", "events", "--sort-by=.lastTimestamp")
	return fmt.Errorf("pods:\n%s\nlogs:\n%s\nevents:\n%s", pods, logs, events)
}

// AgentStatus is what an agent says of itself; only what scenarios look at.
type AgentStatus struct {
	Node    string   `json:"node"`
	Waiting []string `json:"waiting"`
	Peers   []struct {
		Address netip.Addr
		Kind    string
		State   string
	} `json:"peers"`
	Blocks []struct {
		CIDR  netip.Prefix
		State string
	} `json:"blocks"`
	Problems []string `json:"problems"`
}

// Agent asks the agent of a node for its status, on the node's loopback.
func (c *Cluster) Agent(ctx context.Context, node string) (AgentStatus, error) {
	var s AgentStatus
	body, err := c.getFromAgent(ctx, node, "/status")
	if err != nil {
		return s, err
	}
	defer body.Close()
	return s, json.NewDecoder(body).Decode(&s)
}

// getFromAgent gets what the agent of a node serves at a path. The caller closes the body.
func (c *Cluster) getFromAgent(ctx context.Context, node, path string) (io.ReadCloser, error) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return c.Fabric.Dial(ctx, node, network, address)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:9109"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("the agent of %s answers GET %s with %s", node, path, resp.Status)
	}
	return resp.Body, nil
}

// WaitSessions waits until every session of every node is established.
func (c *Cluster) WaitSessions(ctx context.Context) error {
	return c.eventually(ctx, 90*time.Second, func() error {
		for _, n := range c.FullNodes() {
			s, err := c.Agent(ctx, n)
			if err != nil {
				return err
			}
			if want := c.families() * len(c.FullNodes()); len(s.Peers) != want { // the others and the router
				return fmt.Errorf("node %s has %d peers, want %d", n, len(s.Peers), want)
			}
			for _, p := range s.Peers {
				if p.State != "Established" {
					return fmt.Errorf("node %s: session with %s is %s", n, p.Address, p.State)
				}
			}
		}
		return nil
	})
}

// FullNodes names the nodes that run kubelet.
func (c *Cluster) FullNodes() []string { return c.Topology().NodesOf(topology.Full) }

func (c *Cluster) allNodes() []string {
	var names []string
	for _, n := range c.Topology().Nodes {
		names = append(names, n.Name)
	}
	return names
}

// eventually polls until check passes, and gives its last error when it never
// does. The bound is generous: it is for ending, not for judging speed.
func (c *Cluster) eventually(ctx context.Context, bound time.Duration, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	for {
		began := time.Now()
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %w", bound, err)
		case <-time.After(min(max(200*time.Millisecond, 4*time.Since(began)), 3*time.Second)): // most of the time is left to what is waited for
		}
	}
}
