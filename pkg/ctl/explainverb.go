package ctl

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muslin-net/muslin/pkg/ctl/agentview"
	"github.com/muslin-net/muslin/pkg/ctl/api"
	"github.com/muslin-net/muslin/pkg/ctl/explain"
	"github.com/muslin-net/muslin/pkg/ctl/ipamview"
	"github.com/muslin-net/muslin/pkg/ctl/kind"
	"github.com/muslin-net/muslin/pkg/ctl/nodeview"
	"github.com/muslin-net/muslin/pkg/model"
)

func (t *Tool) explain() *cobra.Command {
	var from, format string
	c := &cobra.Command{
		Use:   "explain (IP | [NAMESPACE/]POD)",
		Short: "Say whether and how an address is reached, or what is broken on the way",
		Long: `Walk the way to an address: who has it, which block and pool it is of, whether
its node announces it and to whom, whether the asking node has learned it and
has it in its kernel, whether the next hop answers, and whether packets small
and large come back. The first broken link is named, with the object to change.

Without --from every other node asks. The exit code is 4 when a link is broken.`,
		Example: `  muslinctl explain 10.244.1.17
  muslinctl explain default/web-0 --from n3
  muslinctl explain web-0 -n shop --from shop/client-0`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error { return t.runExplain(c.Context(), args[0], from, format) },
	}
	c.Flags().StringVar(&from, "from", "", "node or [namespace/]pod that asks; default: every node")
	c.Flags().StringVarP(&format, "output", "o", "", "json")
	_ = c.RegisterFlagCompletionFunc("from", t.completeNodes)
	return c
}

func (t *Tool) runExplain(ctx context.Context, target, from, format string) error {
	s, err := t.surveyor()
	if err != nil {
		return err
	}
	v := &ipamview.Survey{Pods: map[netip.Addr]ipamview.Pod{}, Nodes: map[model.NodeName]ipamview.Node{}}
	if err := errors.Join(s.pods(ctx, v), s.nodes(ctx, v)); err != nil {
		return err
	}
	ip, err := t.addressOf(v, target)
	if err != nil {
		return err
	}
	e := &explainer{surveyor: s, survey: v}
	if err := e.common(ctx, ip); err != nil {
		return err
	}
	askers, err := t.askers(v, e.facts, from)
	if err != nil {
		return err
	}
	answers := askAll(askers, func(n string) (explain.Story, error) { return explain.Tell(e.from(ctx, model.NodeName(n))), nil })
	return t.tellStories(answers, format)
}

func (t *Tool) tellStories(answers []answer[explain.Story], format string) error {
	broken := 0
	var stories []explain.Story
	for _, a := range answers {
		stories = append(stories, a.said)
		if a.said.Broken != "" {
			broken++
		}
	}
	if format == "json" {
		if err := writeJSON(t.Out, stories); err != nil {
			return err
		}
	} else {
		for _, s := range stories {
			fmt.Fprint(t.Out, s.Text())
		}
	}
	if broken > 0 {
		return &FindingsError{fmt.Sprintf("%s is not reached from %d of %d node(s)", stories[0].To, broken, len(stories))}
	}
	return nil
}

// addressOf is the address itself, or that of a pod.
func (t *Tool) addressOf(v *ipamview.Survey, target string) (netip.Addr, error) {
	if ip, err := netip.ParseAddr(target); err == nil {
		return ip.Unmap(), nil
	}
	found, ok := findPod(v, target, t.flags.Namespace)
	if !ok {
		return netip.Addr{}, api.Usagef("%q is neither an address nor a running pod with one (-n NAMESPACE, or NAMESPACE/POD)", target)
	}
	return found, nil
}

// findPod gives a pod's lowest address; IPv4 comes first.
func findPod(v *ipamview.Survey, target, namespace string) (netip.Addr, bool) {
	ns, name, ok := strings.Cut(target, "/")
	if !ok {
		ns, name = orDefault(namespace), target
	}
	for _, a := range slices.SortedFunc(maps.Keys(v.Pods), netip.Addr.Compare) {
		if p := v.Pods[a]; p.Namespace == ns && p.Name == name {
			return a, true
		}
	}
	return netip.Addr{}, false
}

func orDefault(namespace string) string {
	if namespace == "" {
		return "default"
	}
	return namespace
}

// askers are the nodes to ask: that of --from, or all but the owner.
func (t *Tool) askers(v *ipamview.Survey, f explain.Facts, from string) ([]string, error) {
	if from != "" {
		if _, ok := v.Nodes[model.NodeName(from)]; ok {
			return []string{from}, nil
		}
		if a, ok := findPod(v, from, t.flags.Namespace); ok {
			return []string{v.Pods[a].Node}, nil
		}
		return nil, api.Usagef("--from %s: neither a node nor a running pod with an address", from)
	}
	var out []string
	for _, n := range slices.Sorted(maps.Keys(v.Nodes)) {
		if f.Pod == nil || n != f.Pod.Node || len(v.Nodes) == 1 {
			out = append(out, string(n))
		}
	}
	if f.Pod == nil && len(out) > 1 {
		out = out[:1] // nobody has it: every node would say the same
	}
	if len(out) == 0 {
		return nil, errors.New("the cluster has no node")
	}
	return out, nil
}

// explainer collects facts.
type explainer struct {
	*surveyor
	survey *ipamview.Survey
	agents []agentview.Agent
	facts  explain.Facts
}

// common collects what does not depend on the asker.
func (e *explainer) common(ctx context.Context, ip netip.Addr) (err error) {
	e.facts = explain.Facts{To: ip, Nodes: map[model.NodeName]bool{}, Reach: map[netip.Addr]bool{}}
	for n := range e.survey.Nodes {
		e.facts.Nodes[n] = true
	}
	if e.agents, err = agentview.Agents(ctx, e.client); err != nil {
		return err
	}
	if p, ok := e.survey.Pods[ip]; ok {
		e.facts.Pod = &explain.Pod{Namespace: p.Namespace, Name: p.Name, Node: model.NodeName(p.Node), Phase: "Running"}
	}
	if err := e.block(ctx, ip); err != nil {
		return err
	}
	pools, _, err := e.client.List(ctx, kind.MustFind("ippools"), api.Select{})
	for _, o := range pools {
		if cidr, err := netip.ParsePrefix(kind.Text(o, "spec.cidr", "")); err == nil {
			e.facts.Pools = append(e.facts.Pools, model.Pool{Name: kind.Text(o, "metadata.name", ""), CIDR: cidr, DisableBGPExport: kind.Text(o, "spec.disableBGPExport", "") == "true"})
		}
	}
	if err != nil || e.facts.Pod == nil {
		return err
	}
	e.facts.Owner, e.facts.OwnerError = e.view(ctx, e.facts.Pod.Node)
	e.reach(ctx)
	return nil
}

func (e *explainer) block(ctx context.Context, ip netip.Addr) error {
	b, _, err := e.blockOf(ctx, ip)
	if err != nil || b == nil {
		return err
	}
	owner, assigned := b.Owner(ip)
	e.facts.Block = &explain.Block{CIDR: b.CIDR(), Node: b.Node(), Handle: owner.Handle, Assigned: assigned, Affinities: map[model.NodeName]model.BlockState{}}
	if err := e.affinities(ctx, e.survey); err != nil {
		return err
	}
	for _, a := range e.survey.Affinities {
		if a.CIDR == b.CIDR() && a.Type == "host" {
			e.facts.Block.Affinities[a.Node] = a.State
		}
	}
	return nil
}

// reach has the owner send echoes to its peers that are down.
func (e *explainer) reach(ctx context.Context) {
	if e.facts.Owner == nil {
		return
	}
	for _, p := range e.facts.Owner.Peers {
		if p.State != "Established" {
			if path, err := e.path(ctx, e.facts.Pod.Node, p.Address, 0); err == nil {
				e.facts.Reach[p.Address] = path.Small.OK
			}
		}
	}
}

func (e *explainer) view(ctx context.Context, node model.NodeName) (*nodeview.View, string) {
	a, err := agentview.Of(e.agents, string(node))
	if err != nil {
		return nil, err.Error()
	}
	var v nodeview.View
	if err := a.Get(ctx, e.client, "/show", &v); err != nil {
		return nil, err.Error()
	}
	return &v, ""
}

// path has a node probe an address; size 0 leaves the large probe's to the node.
func (e *explainer) path(ctx context.Context, node model.NodeName, to netip.Addr, size int) (*nodeview.Path, error) {
	a, err := agentview.Of(e.agents, string(node))
	if err != nil {
		return nil, err
	}
	var p nodeview.Path
	return &p, a.Get(ctx, e.client, "/show/path?to="+url.QueryEscape(to.String())+"&size="+strconv.Itoa(size), &p)
}

// from adds what one asker sees.
func (e *explainer) from(ctx context.Context, node model.NodeName) explain.Facts {
	f := e.facts
	f.FromNode = node
	if f.From, f.FromError = e.view(ctx, node); f.From == nil {
		return f
	}
	size := f.From.State.MTU.Pod
	if f.Owner != nil {
		size = max(size, f.Owner.State.MTU.Pod)
	}
	if p, err := e.path(ctx, node, f.To, size); err == nil {
		f.Path = p
	}
	return f
}
