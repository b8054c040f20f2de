package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/muslin-net/muslin/cmd/muslinctl/agentview"
	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
	"github.com/muslin-net/muslin/cmd/muslinctl/print"
	"github.com/muslin-net/muslin/felix/nodeview"
	"github.com/muslin-net/muslin/pkg/model"
)

func (t *Tool) node() *cobra.Command {
	return group("node", "Look at what nodes do, and take them out of use", "Look at what nodes do and take them out of use, from anywhere: no shell on the node is needed.", t.nodeStatus(), t.nodeShow(), t.nodeDiags(), t.nodeCheckSystem(), t.nodeDrain(), t.nodeCleanup())
}

// liveStatus is the agent's answer to /status.
type liveStatus struct {
	Node     string             `json:"node"`
	Version  string             `json:"version"`
	Waiting  []string           `json:"waiting"`
	Peers    []model.PeerStatus `json:"peers"`
	Blocks   []model.Block      `json:"blocks"`
	Problems []string           `json:"problems"`
}

func (t *Tool) nodeStatus() *cobra.Command {
	var live, all bool
	c := &cobra.Command{
		Use:   "status [NODE...]",
		Short: "Show the BGP sessions of nodes",
		Long: `Show the BGP sessions of nodes: state, since when, prefixes, the last error.

What a CalicoNodeStatus object holds is shown when there is one for the node;
otherwise, and with --live, the agent itself is asked.`,
		Example: `  muslinctl node status
  muslinctl node status n1 --live`,
		ValidArgsFunction: t.completeNodes,
		RunE: func(c *cobra.Command, args []string) error {
			if all && len(args) > 0 {
				return api.Usagef("--all and names of nodes exclude each other")
			}
			return t.runNodeStatus(c.Context(), args, live)
		},
	}
	c.Flags().BoolVar(&live, "live", false, "ask the agents instead of the API server")
	c.Flags().BoolVar(&all, "all", false, "every node; the default without names")
	return c
}

func (t *Tool) runNodeStatus(ctx context.Context, nodes []string, live bool) error {
	client, err := t.flags.Client()
	if err != nil {
		return err
	}
	agents, err := agentview.Agents(ctx, client)
	if err != nil {
		return err
	}
	if len(nodes) == 0 {
		for _, a := range agents {
			nodes = append(nodes, a.Node)
		}
	}
	if len(nodes) == 0 {
		return errNoAgents
	}
	stored := map[string]api.Object{}
	if !live {
		if stored, err = storedStatus(ctx, client); err != nil {
			return err
		}
	}
	answers := askAll(nodes, func(n string) (string, error) {
		if o := stored[n]; o != nil {
			return storedText(n, o), nil
		}
		a, err := agentview.Of(agents, n)
		if err != nil {
			return "", err
		}
		var s liveStatus
		if err := a.Get(ctx, client, "/status", &s); err != nil {
			return "", err
		}
		return statusText(s), nil
	})
	return t.tell(answers)
}

// answer is what one node said.
type answer[T any] struct {
	node  string
	views T
	err   error
}

// askAll asks nodes at the same time, some at once, and keeps their order.
func askAll[T any](nodes []string, ask func(string) (T, error)) []answer[T] {
	return atOnce(nodes, func(n string) answer[T] {
		views, err := ask(n)
		return answer[T]{n, views, err}
	})
}

// atOnce asks eight questions at a time and keeps their order.
func atOnce[Q, A any](questions []Q, ask func(Q) A) []A {
	out := make([]A, len(questions))
	slots := make(chan struct{}, 8)
	var wg sync.WaitGroup
	for i, q := range questions {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			out[i] = ask(q)
		})
	}
	wg.Wait()
	return out
}

func (t *Tool) tell(answers []answer[string]) error {
	var errs []error
	for _, a := range answers {
		errs = append(errs, a.err)
		if a.err == nil {
			fmt.Fprintln(t.Out, t.paint(a.views))
		}
	}
	return errors.Join(errs...)
}

var peerTypes = map[string]string{"NodeMesh": "node-to-node mesh", "NodePeer": "node specific", "GlobalPeer": "global"}

func statusText(s liveStatus) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Node %s: the agent is running, version %s", s.Node, s.Version)
	for _, w := range s.Waiting {
		fmt.Fprintf(&b, "\n  not ready: %s", w)
	}
	b.WriteString("\n")
	for _, family := range model.Families {
		rows := [][]string{{"PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "BFD", "RECEIVED", "ACCEPTED", "SENT", "INFO"}}
		for _, p := range s.Peers {
			if !family.Has(p.Address) {
				continue
			}
			rows = append(rows, []string{
				p.Address.String(), cmp.Or(peerTypes[string(p.Kind)], string(p.Kind)), upDown(p.State), since(p.Since), cmp.Or(p.BFDState, "-"),
				counters(p.Received), counters(p.Accepted), counters(p.Sent), info(p),
			})
		}
		if len(rows) == 1 {
			fmt.Fprintf(&b, "%s: no peers\n", family)
			continue
		}
		fmt.Fprintf(&b, "%s BGP status\n", family)
		_ = print.Rows(&b, rows)
	}
	for _, p := range s.Problems {
		fmt.Fprintf(&b, "problem: %s\n", p)
	}
	return b.String()
}

func upDown(state model.SessionState) string {
	if state == model.Established {
		return "up"
	}
	return "down"
}

// info is calicoctl's: the state of the session, and why it is not better.
func info(p model.PeerStatus) string {
	if p.Up() || p.LastError == "" {
		return string(p.State)
	}
	return string(p.State) + ": " + p.LastError
}

func since(at time.Time) string {
	if at.IsZero() {
		return "-"
	}
	if time.Since(at) < 12*time.Hour {
		return at.Local().Format("15:04:05")
	}
	return at.Local().Format("2006-01-02")
}

func counters(m map[string]int) string {
	n := 0
	for _, v := range m {
		n += v
	}
	return fmt.Sprint(n)
}

// storedStatus finds, by node, a CalicoNodeStatus that has been filled in.
func storedStatus(ctx context.Context, c *api.Client) (map[string]api.Object, error) {
	list, _, err := c.List(ctx, kind.MustFind("caliconodestatuses"), api.Select{})
	out := map[string]api.Object{}
	for _, o := range list {
		if kind.At(o, "status.bgp") != nil && kind.Text(o, "status.lastUpdated", "") != "" {
			out[kind.Text(o, "spec.node", "")] = o
		}
	}
	return out, err
}

func storedText(node string, o api.Object) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Node %s: as of %s (CalicoNodeStatus %s; --live asks the agent)\n", node, kind.Text(o, "status.lastUpdated", ""), kind.Text(o, "metadata.name", ""))
	for _, family := range []string{"V4", "V6"} {
		list, _ := kind.At(o, "status.bgp.peers"+family).([]any)
		rows := [][]string{{"PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO"}}
		for _, x := range list {
			p, _ := x.(api.Object)
			state := kind.Text(p, "state", "")
			rows = append(rows, []string{kind.Text(p, "peerIP", ""), cmp.Or(peerTypes[kind.Text(p, "type", "")], "-"), upDown(model.SessionState(state)), kind.Text(p, "since", "-"), info(model.PeerStatus{State: model.SessionState(state), LastError: kind.Text(p, "lastError", "")})})
		}
		if len(rows) == 1 {
			fmt.Fprintf(&b, "IP%s: no peers\n", strings.ToLower(family))
			continue
		}
		fmt.Fprintf(&b, "IP%s BGP status\n", strings.ToLower(family))
		_ = print.Rows(&b, rows)
	}
	return b.String()
}

var showParts = map[string]func(nodeview.View) string{
	"bgp": nodeview.View.BGPText, "routes": nodeview.View.RoutesText, "nft": nodeview.View.NFTText,
	"policy": func(v nodeview.View) string { return v.Policy },
	"ipam":   nodeview.View.IPAMText, "problems": nodeview.View.ProblemsText,
}

func (t *Tool) nodeShow() *cobra.Command {
	var format string
	parts := []string{"bgp", "routes", "nft", "policy", "ipam", "problems"}
	c := &cobra.Command{
		Use:   "show NODE [" + strings.Join(parts, "|") + "]...",
		Short: "Show what a node should have and what it has",
		Long: `Show what the agent of a node wants BGP and the kernel to say, and what they say.
Lines begin with + when the kernel lacks what is wanted, with - when it has what
is not wanted, with ! when something else overrides it.`,
		Example: `  muslinctl node show n1 routes
  muslinctl node show n1 bgp problems
  muslinctl node show n1 -o json`,
		Args: usage(cobra.MinimumNArgs(1)),
		ValidArgsFunction: func(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return t.completeNodes(c, args, word)
			}
			return matching(parts, word), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			for _, p := range args[1:] {
				if showParts[p] == nil {
					return api.Usagef("%q: want %s", p, strings.Join(parts, ", "))
				}
			}
			if len(args) == 1 {
				args = append(args, parts...)
			}
			return t.runNodeShow(c.Context(), args[0], args[1:], format)
		},
	}
	c.Flags().StringVarP(&format, "output", "o", "", "json: the whole view as the agent gives it")
	return c
}

func (t *Tool) runNodeShow(ctx context.Context, node string, parts []string, format string) error {
	client, err := t.flags.Client()
	if err != nil {
		return err
	}
	agents, err := agentview.Agents(ctx, client)
	if err != nil {
		return err
	}
	a, err := agentview.Of(agents, node)
	if err != nil {
		return err
	}
	if format == "json" {
		var raw any
		if err := a.Get(ctx, client, "/show", &raw); err != nil {
			return err
		}
		return writeJSON(t.Out, raw)
	}
	var v nodeview.View
	if err := a.Get(ctx, client, "/show", &v); err != nil {
		return err
	}
	for i, p := range parts {
		if len(parts) > 1 {
			if i > 0 {
				fmt.Fprintln(t.Out)
			}
			fmt.Fprintf(t.Out, "## %s of %s\n", p, node)
		}
		fmt.Fprint(t.Out, t.paint(showParts[p](v)))
	}
	return nil
}

var errNoAgents = errors.New("no agent runs in namespace " + agentview.Namespace + "; is Muslin installed? (kubectl apply -k manifests/)")
