package app

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muslin-net/muslin/cmd/muslinctl/agentview"
	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/print"
)

func (t *Tool) top() *cobra.Command {
	var every time.Duration
	var once bool
	c := &cobra.Command{
		Use:   "top",
		Short: "Follow sessions, prefixes and blocks of all nodes, and what changes",
		Long: `Follow the sessions, prefixes and blocks of all nodes. Below the table stand the
last changes. It ends with an interrupt.`,
		Example: "  muslinctl top\n  muslinctl top --once",
		Args:    usage(cobra.NoArgs),
		RunE:    func(c *cobra.Command, _ []string) error { return t.runTop(c.Context(), every, once) },
	}
	c.Flags().DurationVar(&every, "every", 2*time.Second, "time between two looks")
	c.Flags().BoolVar(&once, "once", false, "look once and end")
	return c
}

// glance is one row of top.
type glance struct {
	ready                           string
	up, down, received, sent, flaps int
	blocks, problems                int
}

func (t *Tool) runTop(ctx context.Context, every time.Duration, once bool) error {
	client, err := t.flags.Client()
	if err != nil {
		return err
	}
	var last map[string]glance
	var changes []string
	for {
		now, err := t.glances(ctx, client)
		if err != nil {
			return err
		}
		changes = append(changes, differences(last, now)...)
		changes = changes[max(0, len(changes)-10):]
		var b strings.Builder
		if !once {
			fmt.Fprintf(&b, "\x1b[H\x1b[2Jmuslinctl top  %s\n\n", time.Now().Format(time.TimeOnly))
		}
		rows := [][]string{{"NODE", "AGENT", "UP", "DOWN", "RECEIVED", "SENT", "FLAPS", "BLOCKS", "PROBLEMS"}}
		for _, n := range sortedKeys(now) {
			g := now[n]
			rows = append(rows, []string{n, g.ready, fmt.Sprint(g.up), fmt.Sprint(g.down), fmt.Sprint(g.received), fmt.Sprint(g.sent), fmt.Sprint(g.flaps), fmt.Sprint(g.blocks), fmt.Sprint(g.problems)})
		}
		if err := print.Rows(&b, rows); err != nil {
			return err
		}
		if len(changes) > 0 {
			fmt.Fprintf(&b, "\n%s\n", strings.Join(changes, "\n"))
		}
		fmt.Fprint(t.Out, t.paint(b.String()))
		if once {
			return nil
		}
		last = now
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(every):
		}
	}
}

func (t *Tool) glances(ctx context.Context, client *api.Client) (map[string]glance, error) {
	agents, err := agentview.Agents(ctx, client)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, a := range agents {
		names = append(names, a.Node)
	}
	out := map[string]glance{}
	for _, a := range askAll(names, func(n string) (liveStatus, error) {
		agent, err := agentview.Of(agents, n)
		if err != nil {
			return liveStatus{}, err
		}
		var s liveStatus
		return s, agent.Get(ctx, client, "/status", &s)
	}) {
		g := glance{ready: "ready", blocks: len(a.views.Blocks), problems: len(a.views.Problems)}
		if len(a.views.Waiting) > 0 {
			g.ready = "waiting"
		}
		if a.err != nil {
			g.ready = "silent"
		}
		for _, p := range a.views.Peers {
			if p.Up() {
				g.up++
			} else {
				g.down++
			}
			g.flaps += p.Flaps
			for _, n := range p.Received {
				g.received += n
			}
			for _, n := range p.Sent {
				g.sent += n
			}
		}
		out[a.node] = g
	}
	return out, nil
}

// differences tells what changed from one look to the next.
func differences(old, now map[string]glance) []string {
	if old == nil {
		return nil
	}
	var out []string
	at := time.Now().Format(time.TimeOnly)
	for n, g := range now {
		o, known := old[n]
		if !known {
			out = append(out, fmt.Sprintf("%s  %s  agent appeared", at, n))
			continue
		}
		for _, f := range []struct {
			name     string
			was, now any
		}{
			{"agent", o.ready, g.ready}, {"sessions up", o.up, g.up}, {"prefixes received", o.received, g.received},
			{"prefixes sent", o.sent, g.sent}, {"blocks", o.blocks, g.blocks}, {"problems", o.problems, g.problems},
		} {
			if f.was != f.now {
				out = append(out, fmt.Sprintf("%s  %s  %s: %v, was %v", at, n, f.name, f.now, f.was))
			}
		}
	}
	for n := range old {
		if _, still := now[n]; !still {
			out = append(out, fmt.Sprintf("%s  %s  agent is gone", at, n))
		}
	}
	slices.SortFunc(out, cmp.Compare[string])
	return out
}
