package app

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/cmd/muslinctl/agentview"
	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/input"
	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
	"github.com/muslin-net/muslin/cmd/muslinctl/preview"
	"github.com/muslin-net/muslin/cmd/muslinctl/world"
	"github.com/muslin-net/muslin/felix/nodeview"
	"github.com/muslin-net/muslin/pkg/kube/netpol"
	"github.com/muslin-net/muslin/pkg/model"
)

func (t *Tool) preview() *cobra.Command {
	var f files
	var format string
	c := &cobra.Command{
		Use:   "preview -f CHANGE",
		Short: "Say what objects would do to BGP and to network policy before they are applied",
		Long: `Run the agents' own decision over the cluster as it is and as it would be after
apply, and show the difference: sessions that come, go or are reset, prefixes
that each peer gains and loses, nodes whose way to the pods of a block changes,
new problems. A Node is previewed like any other object.

What routers do among themselves is not known: they are taken to pass on to each
other and to the nodes whatever a node announces to one of them.

Of policies, of Kubernetes' and Calico's APIs, tiers and network sets it says which
pods become isolated, open again or get other rules, for each direction, and which of
the connections that the nodes' kernels track would be refused if they were opened
anew, or cut, where a FelixConfiguration has them evaluated again. Of what was denied not long ago it says what would be allowed.
A staged policy is previewed as what it stands for; nothing enforces it.`,
		Example: "  muslinctl preview -f policies.yaml\n  muslinctl preview -f peers.yaml\n  muslinctl get bgpconfig default -o yaml | sed s/64512/64600/ | muslinctl preview -f -",
		Args:    usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			docs, policies, err := t.readPreviewed(f)
			if err != nil {
				return err
			}
			if err := checkAll(docs); err != nil {
				return err
			}
			return t.runPreviews(c.Context(), docs, policies, format)
		},
	}
	f.bind(c)
	c.Flags().StringVarP(&format, "output", "o", "", "json")
	return c
}

// runPreviews previews what there is, BGP first.
func (t *Tool) runPreviews(ctx context.Context, docs []input.Document, policies []netpol.Object, format string) error {
	if len(docs) > 0 {
		if len(policies) > 0 && format == "json" {
			return api.Usagef("-o json: policies are previewed apart from other objects")
		}
		if err := t.runPreview(ctx, docs, format); err != nil {
			return err
		}
	}
	if len(policies) == 0 {
		return nil
	}
	return t.runPreviewPolicy(ctx, policies, format)
}

func (t *Tool) runPreview(ctx context.Context, docs []input.Document, format string) error {
	client, err := t.flags.Client()
	if err != nil {
		return err
	}
	changes, err := defaulted(ctx, client, docs)
	if err != nil {
		return err
	}
	before, err := world.Read(ctx, client.Config, nil)
	if err != nil {
		return err
	}
	after, err := world.Read(ctx, client.Config, changes)
	if err != nil {
		return err
	}
	live := t.live(ctx, client, before)
	was, problems := preview.Plans(before.Nodes, before.For, live.FIB)
	old := slices.Concat(problems, before.Problems)
	will, problems := preview.Plans(after.Nodes, after.For, live.FIB)
	out := preview.Compare(preview.Side{Plan: was, Of: before.For}, preview.Side{Plan: will, Of: after.For}, live)
	if silent := len(before.Nodes) - len(live.Hosts); silent > 0 {
		fmt.Fprintf(t.Err, "%d of %d agents do not answer; of their nodes next hops are told, not the kernels' ways\n", silent, len(before.Nodes))
	}
	for _, p := range append(problems, after.Problems...) {
		if !slices.ContainsFunc(old, func(q model.Problem) bool { return p == q }) && !slices.Contains(out.Problems, p.String()) {
			out.Problems = append(out.Problems, p.String())
		}
	}
	if format == "json" {
		return writeJSON(t.Out, out)
	}
	fmt.Fprint(t.Out, t.paint(out.Text()))
	return nil
}

// live asks the agents how their nodes are.
func (t *Tool) live(ctx context.Context, client *api.Client, w world.World) preview.Live {
	out := preview.Live{Hosts: map[model.NodeName]model.Host{}, FIB: map[model.NodeName]bgp.FIB{}, Up: map[model.NodeName]map[netip.Addr]bool{}}
	agents, err := agentview.Agents(ctx, client)
	if err != nil {
		return out
	}
	pods := map[model.NodeName][]netip.Addr{}
	for _, a := range atOnce(w.Nodes, func(n model.Node) *nodeview.View {
		agent, err := agentview.Of(agents, string(n.Name))
		v := new(nodeview.View)
		if err != nil || agent.Get(ctx, client, "/show", v) != nil || len(v.Host.Links) == 0 {
			return nil
		}
		return v
	}) {
		if a == nil {
			continue
		}
		out.Hosts[a.Node], out.FIB[a.Node], out.Up[a.Node] = a.Host, bgp.NewFIB(a.Host, a.Endpoints), map[netip.Addr]bool{}
		for _, p := range a.Peers {
			if p.Up() {
				out.Up[a.Node][p.Address] = true
			}
		}
		for _, e := range a.Endpoints {
			pods[a.Node] = append(pods[a.Node], e.Addresses...)
		}
	}
	out.Pods = func(n model.NodeName, p netip.Prefix) int {
		return len(slices.DeleteFunc(slices.Clone(pods[n]), func(a netip.Addr) bool { return !p.Contains(a) }))
	}
	return out
}

// defaulted has the server check the objects and put its defaults in; nothing
// is written.
func defaulted(ctx context.Context, client *api.Client, docs []input.Document) ([]api.Object, error) {
	w := writer{client: client, dry: "server"}
	var out []api.Object
	for _, d := range docs {
		if d.Kind.Core {
			out = append(out, api.Object{"kind": d.Kind.Name, "metadata": api.Object{"name": d.Name()}, "patch": kind.NodePatch(d.Object, true)})
			continue
		}
		o, _, err := w.apply(ctx, d)
		if apierrors.IsForbidden(err) {
			o, err = d.Object, nil // whoever may only look gets a preview without defaults
		}
		if err != nil {
			return nil, at(d, err)
		}
		if kind.Text(o, "kind", "") == "" {
			o["kind"] = d.Kind.Name
		}
		out = append(out, o)
	}
	return out, nil
}
