package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/explain"
	"github.com/muslin-net/muslin/cmd/muslinctl/ipamview"
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

Without --from every other node asks. With a pod there, network policy between
the two is asked too: the link is broken if it lets nothing pass. The exit code is
4 when a link is broken.`,
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
	e, err := s.explainer(ctx, v)
	if err != nil {
		return err
	}
	facts, err := e.common(ctx, ip)
	if err != nil {
		return err
	}
	askers, err := t.askers(v, facts, from)
	if err != nil {
		return err
	}
	e.asking = t.asking(v, from, ip)
	answers := askAll(askers, func(n string) (explain.Story, error) { return explain.Tell(e.from(ctx, facts, model.NodeName(n))), nil })
	return t.tellStories(answers, format)
}

func (t *Tool) tellStories(answers []answer[explain.Story], format string) error {
	broken := 0
	var stories []explain.Story
	for _, a := range answers {
		stories = append(stories, a.views)
		if a.views.Broken != "" {
			broken++
		}
	}
	if err := t.writeStories(stories, format); err != nil {
		return err
	}
	if broken > 0 {
		return &FindingsError{fmt.Sprintf("%s is not reached from %d of %d node(s)", stories[0].To, broken, len(stories))}
	}
	return nil
}

func (t *Tool) writeStories(stories []explain.Story, format string) error {
	if format == "json" {
		return writeJSON(t.Out, stories)
	}
	for _, s := range stories {
		fmt.Fprint(t.Out, t.paint(s.Text()))
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

// asking is the pod of --from, by its address of the family of to; nil: a node asks.
func (t *Tool) asking(v *ipamview.Survey, from string, to netip.Addr) *explain.End {
	if _, node := v.Nodes[model.NodeName(from)]; node || from == "" {
		return nil
	}
	for _, a := range podAddrs(v, from, t.flags.Namespace) {
		if a.Is4() == to.Is4() {
			return &explain.End{Addr: a, Pod: podOf(v.Pods[a])}
		}
	}
	return nil
}

// findPod gives a pod's lowest address; IPv4 comes first.
func findPod(v *ipamview.Survey, target, namespace string) (netip.Addr, bool) {
	if addrs := podAddrs(v, target, namespace); len(addrs) > 0 {
		return addrs[0], true
	}
	return netip.Addr{}, false
}

// podAddrs gives a pod's addresses, sorted.
func podAddrs(v *ipamview.Survey, target, namespace string) []netip.Addr {
	ns, name, ok := strings.Cut(target, "/")
	if !ok {
		ns, name = orDefault(namespace), target
	}
	var out []netip.Addr
	for a, p := range v.Pods {
		if p.Namespace == ns && p.Name == name {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
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
