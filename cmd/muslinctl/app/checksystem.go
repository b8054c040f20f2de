package app

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muslin-net/muslin/cmd/muslinctl/agentview"
	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
	"github.com/muslin-net/muslin/cmd/muslinctl/print"
	"github.com/muslin-net/muslin/felix/nodeview"
)

func (t *Tool) nodeCheckSystem() *cobra.Command {
	return &cobra.Command{
		Use:   "checksystem [NODE...]",
		Short: "See whether nodes give what Muslin needs, and what may interfere",
		Long: `See whether nodes give what Muslin needs: routes and nftables that can be read and
written, the tunnel devices that the pools ask for, forwarding, one MTU, files and
ports of the agent, no links of another pod network, an agent that SELinux does not
confine. The exit code is 4 when something is MISSING. LOOK is what may interfere:
NetworkManager, systemd-networkd, a firewall that drops what is forwarded, a strict
reverse path filter on several links.`,
		Example:           "  muslinctl node checksystem\n  muslinctl node checksystem n1",
		ValidArgsFunction: t.completeNodes,
		RunE:              func(c *cobra.Command, args []string) error { return t.runCheckSystem(c.Context(), args) },
	}
}

func (t *Tool) runCheckSystem(ctx context.Context, nodes []string) error {
	client, err := t.flags.Client()
	if err != nil {
		return err
	}
	kernels, err := kernelVersions(ctx, client)
	if err != nil {
		return err
	}
	agents, err := agentview.Agents(ctx, client)
	if err != nil {
		return err
	}
	if len(nodes) == 0 {
		nodes = sortedKeys(kernels)
	}
	rows, bad := [][]string{{"NODE", "CHECK", "RESULT", "WHAT"}}, 0
	for _, a := range askAll(nodes, func(n string) ([]aspect, error) {
		agent, err := agentview.Of(agents, n)
		if err != nil {
			return nil, err
		}
		var v nodeview.View
		if err := agent.Get(ctx, client, "/show", &v); err != nil {
			return nil, err
		}
		return aspects(v), nil
	}) {
		list := append([]aspect{{name: "kernel", good: kernels[a.node]}}, a.views...)
		if a.err != nil {
			list = append(list, aspect{name: "agent", wrong: a.err.Error()})
		}
		for _, s := range list {
			result, what := "ok", s.good
			switch {
			case s.wrong != "":
				result, what = "MISSING", s.wrong
				bad++
			case s.look != "":
				result, what = "LOOK", s.look
			}
			rows = append(rows, []string{a.node, s.name, result, what})
		}
	}
	var b strings.Builder
	if err := print.Rows(&b, rows); err != nil {
		return err
	}
	fmt.Fprint(t.Out, t.paint(b.String()))
	if bad > 0 {
		return &FindingsError{fmt.Sprintf("node checksystem: %d missing", bad)}
	}
	return nil
}

// kernelVersions by node, as kubelet reports them.
func kernelVersions(ctx context.Context, client *api.Client) (map[string]string, error) {
	out := map[string]string{}
	_, err := client.EachPage(ctx, "/api/v1/nodes", api.Select{}, func(nodes []api.Object) {
		for _, n := range nodes {
			out[kind.Text(n, "metadata.name", "")] = strings.TrimSpace(kind.Text(n, "status.nodeInfo.kernelVersion", "") + " " + kind.Text(n, "status.nodeInfo.osImage", ""))
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	return out, nil
}

// aspect is one thing that a node has to give; wrong is empty when it does, look
// when there is nothing to look at.
type aspect struct{ name, wrong, good, look string }

func aspects(v nodeview.View) []aspect {
	out := []aspect{
		reads(v, "routes", fmt.Sprintf("%d in the main table", len(v.Kernel.Routes))),
		reads(v, "nftables", fmt.Sprintf("%d base chains", len(v.Kernel.Chains))),
		{name: "mtu", good: fmt.Sprintf("pods may send %d bytes", v.State.MTU.Pod)},
		ready(v),
	}
	for _, t := range v.State.Tunnels {
		a := aspect{name: "tunnel " + t.Name, good: "up"}
		if !slices.ContainsFunc(v.Kernel.Links, func(l nodeview.Link) bool { return l.Name == t.Name && l.Up }) {
			a.wrong = "a pool asks for the device and the kernel does not have it up; is its module there?"
		}
		out = append(out, a)
	}
	for _, f := range v.Findings() {
		a := aspect{name: f.Check, look: f.Says}
		if f.Breaks {
			a = aspect{name: f.Check, wrong: f.Says}
		}
		out = append(out, a)
	}
	return out
}

func reads(v nodeview.View, what, good string) aspect {
	for _, e := range v.Kernel.Errors {
		if strings.HasPrefix(e, what+":") {
			return aspect{name: what, wrong: e}
		}
	}
	return aspect{name: what, good: good}
}

func ready(v nodeview.View) aspect {
	if len(v.Waiting) > 0 {
		return aspect{name: "agent", wrong: "waits for " + strings.Join(v.Waiting, ", ")}
	}
	return aspect{name: "agent", good: "ready, version " + v.Version}
}
