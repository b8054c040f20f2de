package agentview

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
)

// Namespace is the one Muslin is installed in.
const Namespace = "muslin-system"

// agentLabels pick the pods of the DaemonSet.
const agentLabels = "app.kubernetes.io/name=muslin,app.kubernetes.io/component=agent"

// Agent is a running agent.
type Agent struct {
	Node, Pod string
	Ready     bool
}

// Agents lists the agents, sorted by node.
func Agents(ctx context.Context, c *api.Client) ([]Agent, error) {
	var out []Agent
	_, err := c.EachPage(ctx, "/api/v1/namespaces/"+Namespace+"/pods", api.Select{Labels: agentLabels}, func(pods []api.Object) {
		for _, p := range pods {
			if kind.Text(p, "status.phase", "") != "Running" || kind.At(p, "metadata.deletionTimestamp") != nil {
				continue
			}
			out = append(out, Agent{Node: kind.Text(p, "spec.nodeName", ""), Pod: kind.Text(p, "metadata.name", ""), Ready: ready(p)})
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list the agents' pods: %w", err)
	}
	slices.SortFunc(out, func(a, b Agent) int { return strings.Compare(a.Node, b.Node) })
	return out, nil
}

func ready(pod api.Object) bool {
	list, _ := kind.At(pod, "status.conditions").([]any)
	for _, x := range list {
		if m, _ := x.(api.Object); m["type"] == "Ready" {
			return m["status"] == "True"
		}
	}
	return false
}

// ErrNoAgent means that a node has no running agent.
var ErrNoAgent = errors.New("no agent runs there")

// Of finds the agent of a node.
func Of(agents []Agent, node string) (Agent, error) {
	for _, a := range agents {
		if a.Node == node {
			return a, nil
		}
	}
	return Agent{}, fmt.Errorf("node %s: %w; see kubectl -n %s get pods -o wide", node, ErrNoAgent, Namespace)
}
