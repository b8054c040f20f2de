package app

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/muslin-net/muslin/cmd/muslinctl/check"
	"github.com/muslin-net/muslin/cmd/muslinctl/explain"
	"github.com/muslin-net/muslin/cmd/muslinctl/ipamview"
	"github.com/muslin-net/muslin/cmd/muslinctl/print"
	"github.com/muslin-net/muslin/cmd/muslinctl/world"
	"github.com/muslin-net/muslin/felix/nodeview"
	"github.com/muslin-net/muslin/pkg/model"
)

func (t *Tool) check() *cobra.Command {
	var format string
	var most int
	c := &cobra.Command{
		Use:   "check",
		Short: "Compare the whole cluster with itself",
		Long: `Ask every agent and the API server, and compare: sessions up, each confirmed
block in the kernel of every node, no block with two owners, no route overridden,
MTUs alike, pools sane. Then a pod of each node is sent an echo, a small and a
large one, from other nodes, and where none comes back the first broken link is
named, as explain does. The exit code is 4 when there is an error.`,
		Example: "  muslinctl check\n  muslinctl check -o json\n  muslinctl check --ways 0   # no echoes",
		Args:    usage(cobra.NoArgs),
		RunE:    func(c *cobra.Command, _ []string) error { return t.runCheck(c.Context(), format, most) },
	}
	c.Flags().StringVarP(&format, "output", "o", "", "json")
	c.Flags().IntVar(&most, "ways", 8, "from how many other nodes a pod of each node is tried; 0: from none")
	return c
}

func (t *Tool) runCheck(ctx context.Context, format string, most int) error {
	client, err := t.flags.Client()
	if err != nil {
		return err
	}
	w, err := world.Read(ctx, client.Config, nil)
	if err != nil {
		return err
	}
	s, err := t.surveyor()
	if err != nil {
		return err
	}
	defer s.tell("")
	v := &ipamview.Survey{Pods: map[netip.Addr]ipamview.Pod{}, Nodes: map[model.NodeName]ipamview.Node{}}
	if err := errors.Join(s.pods(ctx, v), s.nodes(ctx, v)); err != nil {
		return err
	}
	e, err := s.explainer(ctx, v)
	if err != nil {
		return err
	}
	c := check.Cluster{
		Views: map[model.NodeName]*nodeview.View{}, Errors: map[model.NodeName]string{}, Answers: map[model.NodeName]map[netip.Addr]explain.Answer{},
		Blocks: w.Blocks, Pools: w.Aged,
	}
	var names []string
	for _, n := range w.Nodes {
		c.Nodes, names = append(c.Nodes, n.Name), append(names, string(n.Name))
	}
	s.tell(fmt.Sprintf("asking %d agents", len(names)))
	var mu sync.Mutex
	askAll(names, func(n string) (struct{}, error) {
		node := model.NodeName(n)
		view, why := e.view(ctx, node)
		answers := e.reach(ctx, view)
		mu.Lock()
		defer mu.Unlock()
		if c.Answers[node] = answers; view == nil {
			c.Errors[node] = why
		} else {
			c.Views[node] = view
		}
		return struct{}{}, nil
	})
	if c.Paths, err = e.paths(ctx, c, most); err != nil {
		return err
	}
	s.tell("")
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
		var b strings.Builder
		if err := print.Rows(&b, rows); err != nil {
			return err
		}
		fmt.Fprint(t.Out, t.paint(b.String()))
	}
	if format != "json" {
		fmt.Fprintf(t.Out, "%d nodes checked: %d errors, %d warnings\n", nodes, errors, len(findings)-errors)
	}
	if errors > 0 {
		return &FindingsError{fmt.Sprintf("check: %d errors", errors)}
	}
	return nil
}
