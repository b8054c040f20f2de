package ctl

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/muslin-net/muslin/pkg/ctl/agentview"
	"github.com/muslin-net/muslin/pkg/ctl/check"
	"github.com/muslin-net/muslin/pkg/ctl/nodeview"
	"github.com/muslin-net/muslin/pkg/ctl/print"
	"github.com/muslin-net/muslin/pkg/ctl/world"
	"github.com/muslin-net/muslin/pkg/model"
)

func (t *Tool) check() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "check",
		Short: "Compare the whole cluster with itself",
		Long: `Ask every agent and the API server, and compare: sessions up, each confirmed
block in the kernel of every node, no block with two owners, no route overridden,
MTUs alike, pools sane. The exit code is 4 when there is an error.`,
		Example: "  muslinctl check\n  muslinctl check -o json",
		Args:    usage(cobra.NoArgs),
		RunE:    func(c *cobra.Command, _ []string) error { return t.runCheck(c.Context(), format) },
	}
	c.Flags().StringVarP(&format, "output", "o", "", "json")
	return c
}

func (t *Tool) runCheck(ctx context.Context, format string) error {
	client, err := t.flags.Client()
	if err != nil {
		return err
	}
	w, err := world.Read(ctx, client.Config, nil)
	if err != nil {
		return err
	}
	agents, err := agentview.Agents(ctx, client)
	if err != nil {
		return err
	}
	c := check.Cluster{Views: map[model.NodeName]*nodeview.View{}, Errors: map[model.NodeName]string{}, Blocks: w.Blocks, Pools: w.Aged}
	var names []string
	for _, n := range w.Nodes {
		c.Nodes, names = append(c.Nodes, n.Name), append(names, string(n.Name))
	}
	for _, a := range askAll(names, func(n string) (*nodeview.View, error) {
		agent, err := agentview.Of(agents, n)
		if err != nil {
			return nil, err
		}
		v := new(nodeview.View)
		return v, agent.Get(ctx, client, "/show", v)
	}) {
		if a.err != nil {
			c.Errors[model.NodeName(a.node)] = a.err.Error()
		} else {
			c.Views[model.NodeName(a.node)] = a.said
		}
	}
	return t.tellFindings(check.Run(c), len(c.Nodes), format)
}

func (t *Tool) tellFindings(findings []check.Finding, nodes int, format string) error {
	errors := 0
	rows := [][]string{{"SEVERITY", "CLASS", "NODE", "OBJECT", "WHAT"}}
	for _, f := range findings {
		if f.Severity == check.Error {
			errors++
		}
		node := f.Node
		if node == "" {
			node = "-"
		}
		rows = append(rows, []string{string(f.Severity), f.Class, node, f.Object, f.Text})
	}
	switch {
	case format == "json":
		if findings == nil {
			findings = []check.Finding{}
		}
		if err := writeJSON(t.Out, findings); err != nil {
			return err
		}
	case len(findings) > 0:
		if err := print.Rows(t.Out, rows); err != nil {
			return err
		}
	}
	if format != "json" {
		fmt.Fprintf(t.Out, "%d nodes checked: %d errors, %d warnings\n", nodes, errors, len(findings)-errors)
	}
	if errors > 0 {
		return &FindingsError{fmt.Sprintf("check: %d errors", errors)}
	}
	return nil
}
