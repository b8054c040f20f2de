package app

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/input"
	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
)

type writeOptions struct {
	files  files
	dry    dryRun
	format string
	skip   bool
}

func (o *writeOptions) bind(c *cobra.Command) {
	o.files.bind(c)
	o.dry.bind(c)
	c.Flags().StringVarP(&o.format, "output", "o", "", "also print what was written: yaml, json, name, ...")
}

func (t *Tool) create() *cobra.Command {
	var o writeOptions
	c := &cobra.Command{
		Use:   "create -f FILE",
		Short: "Make objects that do not exist yet",
		Example: `  muslinctl create -f pool.yaml
  muslinctl create -f objects/ --skip-exists
  muslinctl create ippool racks --cidr 10.244.0.0/16 --block-size 26
  cat peers.yaml | muslinctl create -f - --dry-run=server`,
		Args: noSuchCommand,
		RunE: func(c *cobra.Command, _ []string) error {
			return t.write(c.Context(), o, "created", func(w writer) do { return w.create(o.skip) })
		},
	}
	o.bind(c)
	c.Flags().BoolVar(&o.skip, "skip-exists", false, "leave objects alone that exist already")
	c.AddCommand(t.createPool())
	return c
}

func (t *Tool) apply() *cobra.Command {
	return t.writeVerb("applied", func(w writer) do { return w.apply }, &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Make objects, or change them when they exist",
		Long: `Make objects, or change them when they exist. The spec becomes that of the file;
labels and annotations of the file are added to what the object has.`,
		Example: `  muslinctl apply -f pool.yaml
  muslinctl apply -f objects/ -R --dry-run=server
  muslinctl preview -f peer.yaml && muslinctl apply -f peer.yaml`,
	})
}

func (t *Tool) replace() *cobra.Command {
	return t.writeVerb("replaced", func(w writer) do { return w.replace }, &cobra.Command{
		Use:   "replace -f FILE",
		Short: "Overwrite objects that exist",
		Long:  "Overwrite objects that exist: spec, labels and annotations become those of the file.",
		Example: `  muslinctl get bgpconfig default -o yaml > bgp.yaml
  muslinctl replace -f bgp.yaml`,
	})
}

// writeVerb gives a command the flags and the run of one that writes objects of files.
func (t *Tool) writeVerb(past string, how func(writer) do, c *cobra.Command) *cobra.Command {
	var o writeOptions
	c.Args = usage(cobra.NoArgs)
	c.RunE = func(c *cobra.Command, _ []string) error { return t.write(c.Context(), o, past, how) }
	o.bind(c)
	return c
}

// write reads, checks and writes.
func (t *Tool) write(ctx context.Context, o writeOptions, past string, how func(writer) do) error {
	docs, err := t.read(o.files)
	if err != nil {
		return err
	}
	if err := checkAll(docs); err != nil {
		return err
	}
	w := writer{tool: t, past: past, dry: o.dry, format: o.format}
	if o.dry == "client" {
		return w.all(ctx, docs, func(_ context.Context, d input.Document) (api.Object, bool, error) { return d.Object, true, nil })
	}
	if w.client, err = t.flags.Client(); err != nil {
		return err
	}
	return w.all(ctx, docs, how(w))
}

// checkAll looks at every document before the first is written.
func checkAll(docs []input.Document) error {
	var errs []error
	for _, d := range docs {
		var err error
		switch {
		case d.Name() == "":
			err = api.Usagef("%s: metadata.name is missing", d.Kind.Name)
		case d.Kind.ReadOnly:
			err = api.Usagef("%s %s", d.Ref(), d.Kind.Refusal())
		default:
			err = d.Kind.Check(d.Object)
		}
		if err != nil {
			errs = append(errs, at(d, err))
		}
	}
	return errors.Join(errs...)
}

// fresh is the object without what the server gave another one.
func fresh(o api.Object) api.Object {
	out := api.Object{}
	for k, v := range o {
		out[k] = v
	}
	meta := api.Object{}
	if m, ok := o["metadata"].(api.Object); ok {
		for k, v := range m {
			meta[k] = v
		}
	}
	for _, f := range []string{"uid", "creationTimestamp", "generation", "managedFields", "selfLink", "resourceVersion"} {
		delete(meta, f)
	}
	delete(out, "status")
	out["metadata"], out["apiVersion"] = meta, kind.GroupVersion
	return out
}

var errNodes = api.Usagef("nodes come and go with Kubernetes: kubelet makes them, kubectl delete node removes them")

func (w writer) create(skip bool) do {
	return func(ctx context.Context, d input.Document) (api.Object, bool, error) {
		if d.Kind.Core {
			return nil, false, errNodes
		}
		o, err := w.client.Create(ctx, d.Kind, fresh(d.Object), w.dry == "server")
		if skip && apierrors.IsAlreadyExists(err) {
			return nil, false, nil
		}
		return o, true, err
	}
}

func (w writer) replace(ctx context.Context, d input.Document) (api.Object, bool, error) {
	return w.overwrite(ctx, d, false)
}

// apply creates, and overwrites what is there. Another writer in between is
// waited for unless the document says which version it builds upon.
func (w writer) apply(ctx context.Context, d input.Document) (api.Object, bool, error) {
	for try := 0; ; try++ {
		o, done, err := w.overwrite(ctx, d, true)
		if apierrors.IsNotFound(err) && !d.Kind.Core {
			o, done, err = w.create(false)(ctx, d)
		}
		race := apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err)
		if !race || try == 4 || kind.Text(d.Object, "metadata.resourceVersion", "") != "" {
			return o, done, err
		}
	}
}

// overwrite puts the document over the object that exists.
func (w writer) overwrite(ctx context.Context, d input.Document, merge bool) (api.Object, bool, error) {
	if d.Kind.Core {
		o, err := w.client.Patch(ctx, d.Kind, d.Name(), types.MergePatchType, kind.NodePatch(d.Object, true), w.dry == "server")
		return o, true, err
	}
	have, err := w.client.Get(ctx, d.Kind, d.Name())
	if err != nil {
		return nil, false, err
	}
	next := fresh(d.Object)
	meta, old := next["metadata"].(api.Object), have["metadata"].(api.Object)
	for _, f := range []string{"finalizers", "ownerReferences", "uid"} {
		if v, ok := old[f]; ok {
			meta[f] = v
		}
	}
	if merge {
		for _, f := range []string{"labels", "annotations"} {
			meta[f] = merged(old[f], meta[f])
		}
	}
	meta["resourceVersion"] = old["resourceVersion"]
	if rv := kind.Text(d.Object, "metadata.resourceVersion", ""); rv != "" {
		meta["resourceVersion"] = rv
	}
	o, err := w.client.Update(ctx, d.Kind, next, w.dry == "server")
	return o, true, err
}

func merged(under, over any) api.Object {
	out := api.Object{}
	for _, m := range []any{under, over} {
		m, _ := m.(api.Object)
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}
