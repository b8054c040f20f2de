package app

import (
	"context"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/input"
	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
)

type deleteOptions struct {
	files files
	dry   dryRun
	skip  bool
}

func (t *Tool) delete() *cobra.Command {
	var o deleteOptions
	c := &cobra.Command{
		Use:   "delete (KIND NAME... | KIND/NAME... | -f FILE)",
		Short: "Delete objects",
		Long: `Delete objects. A pool that is deleted gives out no address from then on; it
goes when its last address is released. muslinctl ippool migrate moves the pods
of a pool to another one first.`,
		Example: `  muslinctl delete bgppeer tor1
  muslinctl delete -f peers.yaml --skip-not-exists
  muslinctl delete ippool/old bgpfilter/old --dry-run=server`,
		ValidArgsFunction: t.completeKinds,
		RunE:              func(c *cobra.Command, args []string) error { return t.runDelete(c, o, args) },
	}
	o.files.bind(c)
	o.dry.bind(c)
	c.Flags().BoolVar(&o.skip, "skip-not-exists", false, "objects that are gone already are no error")
	return c
}

func (t *Tool) runDelete(c *cobra.Command, o deleteOptions, args []string) error {
	docs, err := t.doomed(o, args)
	if err != nil {
		return err
	}
	for _, d := range docs {
		switch {
		case d.Kind.Core && !d.Kind.ReadOnly:
			return errNodes
		case d.Kind.ReadOnly:
			return api.Usagef("%s %s", d.Ref(), d.Kind.Refusal())
		}
	}
	w := writer{tool: t, past: "deleted", dry: o.dry}
	if o.dry != "client" {
		if w.client, err = t.flags.Client(); err != nil {
			return err
		}
	}
	return w.all(c.Context(), docs, func(ctx context.Context, d input.Document) (api.Object, bool, error) {
		if o.dry == "client" {
			return nil, true, nil
		}
		err := w.client.Delete(ctx, d.Kind, d.Name(), "", o.dry == "server")
		if o.skip && apierrors.IsNotFound(err) {
			return nil, false, nil
		}
		return nil, true, err
	})
}

func (t *Tool) doomed(o deleteOptions, args []string) ([]input.Document, error) {
	if len(o.files.paths) > 0 {
		return t.read(o.files)
	}
	if len(args) == 0 {
		return nil, api.Usagef("what? Give KIND NAME, KIND/NAME or -f FILE")
	}
	want, err := targets(args)
	if err != nil {
		return nil, err
	}
	var docs []input.Document
	for _, w := range want {
		if w.name == "" {
			return nil, api.Usagef("delete %s: which? Give at least one name; there is no way to delete all at once", w.kind.Plural)
		}
		docs = append(docs, input.Document{Kind: w.kind, Object: api.Object{"kind": w.kind.Name, "apiVersion": kind.GroupVersion, "metadata": api.Object{"name": w.name}}})
	}
	return docs, nil
}
