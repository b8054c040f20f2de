package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/muslin-net/muslin/cmd/muslinctl/agentview"
	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/ipamview"
	"github.com/muslin-net/muslin/cmd/muslinctl/print"
	"github.com/muslin-net/muslin/felix/nodeview"
)

// deniedOptions say which denied packets are shown, and how.
type deniedOptions struct {
	since  time.Duration
	format string
}

func (t *Tool) policyDenied() *cobra.Command {
	var o deniedOptions
	c := &cobra.Command{
		Use:   "denied [NODE | POD]",
		Short: "Show the packets that network policy denied",
		Long: `Show the packets that network policy denied: of all nodes, of one, or those that were
denied for one pod, [NAMESPACE/]NAME. The last ones come first; those that differ in
nothing but the source port are one line.

POLICY is tier, policy and rule; "default end" is the end of a tier, reached by what no
rule of it matched: muslinctl policy explain names the policies that select the pod. A
packet to a Service is shown as it goes to the pod behind it.

The kernel tells the agent of ten packets a second of each rule, after a burst of a
hundred; COUNT is of those. The agent keeps the last thousand lines until it restarts.
How many were denied in all is the metric muslin_policy_denied_total.`,
		Example: `  muslinctl policy denied
  muslinctl policy denied n1 --since 10m
  muslinctl policy denied shop/db-0 -o wide`,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if o.format != "" && o.format != "wide" && o.format != "json" {
				return api.Usagef("-o %s: want wide or json", o.format)
			}
			return t.runPolicyDenied(c.Context(), args, o)
		},
	}
	c.Flags().DurationVar(&o.since, "since", 0, "only what was denied so long ago at most, as in 10m")
	c.Flags().StringVarP(&o.format, "output", "o", "", "wide or json")
	return c
}

// denied is what a node's agent was told of.
type denied struct {
	Node string
	nodeview.Denied
	From, To string // the pods that have the addresses now; empty: no pod
}

func (t *Tool) runPolicyDenied(ctx context.Context, args []string, o deniedOptions) error {
	s, err := t.surveyor()
	if err != nil {
		return err
	}
	agents, err := agentview.Agents(ctx, s.client)
	if err != nil {
		return err
	}
	if len(agents) == 0 {
		return errNoAgents
	}
	v := &ipamview.Survey{Pods: map[netip.Addr]ipamview.Pod{}}
	if err := s.pods(ctx, v); err != nil {
		return err
	}
	nodes, pod, err := t.deniedOf(v, agents, args)
	if err != nil {
		return err
	}
	answers := askAll(nodes, func(n string) ([]nodeview.Denied, error) {
		a, err := agentview.Of(agents, n)
		if err != nil {
			return nil, err
		}
		var out []nodeview.Denied
		err = a.Get(ctx, s.client, "/show/denied", &out)
		return out, err
	})
	list, errs, now := []denied{}, []error(nil), time.Now()
	for _, a := range answers {
		errs = append(errs, a.err)
		for _, one := range a.views {
			d := named(v, a.node, one.At(now))
			if (pod == "" || d.Pod == pod || d.From == pod || d.To == pod) && (o.since == 0 || now.Sub(d.Last) <= o.since) {
				list = append(list, d)
			}
		}
	}
	slices.SortStableFunc(list, func(a, b denied) int { return b.Last.Compare(a.Last) })
	return errors.Join(append(errs, t.printDenied(list, o.format))...)
}

// deniedOf gives the nodes to ask, and the pod that is asked for.
func (t *Tool) deniedOf(v *ipamview.Survey, agents []agentview.Agent, args []string) (nodes []string, pod string, err error) {
	for _, a := range agents {
		if len(args) > 0 && a.Node == args[0] {
			return []string{a.Node}, "", nil
		}
		nodes = append(nodes, a.Node)
	}
	if len(args) == 0 {
		return nodes, "", nil
	}
	own := podAddrs(v, args[0], t.flags.Namespace)
	if len(own) == 0 {
		return nil, "", api.Usagef("%q is neither a node with an agent nor a running pod with an address of its own (-n NAMESPACE, or NAMESPACE/POD)", args[0])
	}
	return nodes, podName(v.Pods[own[0]]), nil
}

func podName(p ipamview.Pod) string {
	if p.Name == "" {
		return ""
	}
	return p.Namespace + "/" + p.Name
}

// named adds the names of pods. The end that was judged is what it was then, even if
// another one has its address by now.
func named(v *ipamview.Survey, node string, d nodeview.Denied) denied {
	out := denied{node, d, podName(v.Pods[d.Source]), podName(v.Pods[d.Destination])}
	if d.Pod != "" && d.Direction == "egress" {
		out.From = d.Pod
	} else if d.Pod != "" {
		out.To = d.Pod
	}
	return out
}

func (t *Tool) printDenied(list []denied, format string) error {
	if format == "json" {
		return writeJSON(t.Out, list)
	}
	if len(list) == 0 {
		_, err := fmt.Fprintln(t.Out, "nothing was denied")
		return err
	}
	rows := [][]string{{"LAST", "COUNT", "SOURCE", "DESTINATION", "PORT", "DIRECTION", "POLICY"}}
	if format == "wide" {
		rows[0] = append(rows[0], "NODE", "FIRST", "ADDRESSES")
	}
	for _, d := range list {
		row := []string{
			when(d.Last), strconv.Itoa(d.Count), cmp.Or(d.From, d.Source.String()), cmp.Or(d.To, d.Destination.String()),
			d.Service(), d.Direction, d.By,
		}
		if format == "wide" {
			row = append(row, d.Node, when(d.First), d.Source.String()+" to "+d.Destination.String())
		}
		rows = append(rows, row)
	}
	return print.Rows(t.Out, rows)
}

func when(t time.Time) string { return t.Local().Format(time.DateTime) }
