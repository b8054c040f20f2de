package ctl

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/muslin-net/muslin/pkg/ctl/api"
	"github.com/muslin-net/muslin/pkg/ctl/input"
	"github.com/muslin-net/muslin/pkg/ctl/kind"
	"github.com/muslin-net/muslin/pkg/ctl/preview"
	"github.com/muslin-net/muslin/pkg/ctl/world"
	"github.com/muslin-net/muslin/pkg/model"
)

func (t *Tool) preview() *cobra.Command {
	var f files
	var format string
	c := &cobra.Command{
		Use:   "preview -f CHANGE",
		Short: "Say what objects would do to BGP before they are applied",
		Long: `Run the agents' own decision over the cluster as it is and as it would be after
apply, and show the difference: sessions that come, go or are reset, prefixes
that each peer gains and loses, ways between nodes, new problems.`,
		Example: "  muslinctl preview -f peers.yaml\n  muslinctl get bgpconfig default -o yaml | sed s/64512/64600/ | muslinctl preview -f -",
		Args:    usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			docs, err := t.read(f)
			if err != nil {
				return err
			}
			if err := checkAll(docs); err != nil {
				return err
			}
			return t.runPreview(c.Context(), docs, format)
		},
	}
	f.bind(c)
	c.Flags().StringVarP(&format, "output", "o", "", "json")
	return c
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
	was, problems := preview.Plans(before.Nodes, before.For)
	old := slices.Concat(problems, before.Problems)
	will, problems := preview.Plans(after.Nodes, after.For)
	out := preview.Compare(was, will)
	for _, p := range append(problems, after.Problems...) {
		if !slices.ContainsFunc(old, func(q model.Problem) bool { return p == q }) && !slices.Contains(out.Problems, p.String()) {
			out.Problems = append(out.Problems, p.String())
		}
	}
	if format == "json" {
		return writeJSON(t.Out, out)
	}
	fmt.Fprint(t.Out, out.Text())
	return nil
}

// defaulted has the server check the objects and put its defaults in; nothing
// is written.
func defaulted(ctx context.Context, client *api.Client, docs []input.Document) ([]api.Object, error) {
	w := writer{client: client, dry: "server"}
	var out []api.Object
	for _, d := range docs {
		if d.Kind.Core {
			return nil, api.Usagef("%s: a change of a Node cannot be previewed yet", d.Ref())
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
