package app

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
)

// drainState is the annotation with which the agent says which step it has told
// its peers.
const drainState = "muslin.io/drain-state"

type drainOptions struct {
	undo, only       bool
	settle, patience time.Duration
}

func (t *Tool) nodeDrain() *cobra.Command {
	var o drainOptions
	c := &cobra.Command{
		Use:   "drain-bgp NODE",
		Short: "Lead traffic away from a node, then close its sessions",
		Long: `Lead traffic away from a node, then close its sessions: the node first asks its
peers to prefer other ways (RFC 8326), and once they were told and had time to
follow, it withdraws all it announces and closes its sessions. Pods keep running
and can be reached from their own node only; kubectl drain moves them.

Both steps are asked for by the annotation muslin.io/drain of the Node and are
confirmed by its agent, which is waited for. --undo takes the node into use again.`,
		Example:           "  muslinctl node drain-bgp n4\n  muslinctl node drain-bgp n4 --shutdown-only\n  muslinctl node drain-bgp n4 --undo",
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: t.completeNodes,
		RunE: func(c *cobra.Command, args []string) error {
			if o.undo && o.only {
				return api.Usagef("--undo and --shutdown-only exclude each other")
			}
			return t.runDrain(c.Context(), args[0], o)
		},
	}
	f := c.Flags()
	f.BoolVar(&o.undo, "undo", false, "announce as usual again")
	f.BoolVar(&o.only, "shutdown-only", false, "stop after the first step: other ways are preferred, nothing is withdrawn")
	f.DurationVar(&o.settle, "settle", 10*time.Second, "time for routers to follow, between the steps")
	f.DurationVar(&o.patience, "timeout", 2*time.Minute, "how long the agent is waited for, each step")
	return c
}

func (t *Tool) runDrain(ctx context.Context, node string, o drainOptions) error {
	client, err := t.flags.Client()
	if err != nil {
		return err
	}
	if _, err := client.Get(ctx, kind.MustFind("nodes"), node); err != nil {
		return err
	}
	d := draining{t, client, node, o.patience}
	if o.undo {
		return d.step(ctx, nil, "the node announces as usual")
	}
	if err := d.step(ctx, bgp.DrainShutdown, "the peers prefer other ways"); err != nil || o.only {
		return err
	}
	fmt.Fprintf(t.Out, "waiting %s for routers to follow\n", o.settle)
	select {
	case <-time.After(o.settle):
	case <-ctx.Done():
		return ctx.Err()
	}
	return d.step(ctx, bgp.DrainWithdrawn, "everything is withdrawn and the sessions are closed")
}

type draining struct {
	tool     *Tool
	client   *api.Client
	node     string
	patience time.Duration
}

// step asks for a step, nil for none, and waits until the agent confirms it.
func (d draining) step(ctx context.Context, want any, reported string) error {
	path := "/api/v1/nodes/" + d.node
	if err := d.client.MergePath(ctx, path, api.Object{"metadata": api.Object{"annotations": api.Object{bgp.AnnotationDrain: want}}}); err != nil {
		return fmt.Errorf("annotate node %s with %s: %w", d.node, bgp.AnnotationDrain, err)
	}
	word := "undo"
	if want != nil {
		word = fmt.Sprint(want)
	}
	fmt.Fprintf(d.tool.Out, "%s: asked the agent of node %s\n", word, d.node)
	ctx, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	for {
		var o api.Object
		if err := d.client.GetPath(ctx, path, nil, &o); err != nil {
			return fmt.Errorf("get node %s: %w", d.node, err)
		}
		annotations, _ := kind.At(o, "metadata.annotations").(api.Object)
		if annotations[drainState] == want {
			fmt.Fprintf(d.tool.Out, "%s: %s\n", word, reported)
			return nil
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("node %s: its agent has not confirmed %s within %s; see muslinctl node status %s, and run this again to go on", d.node, word, d.patience, d.node)
		}
	}
}
