package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
	"github.com/muslin-net/muslin/cmd/muslinctl/print"
)

type getOptions struct {
	format, labels   string
	files            files
	watch, all       bool
	skipEmpty, clean bool
	bare             bool
}

func (t *Tool) get() *cobra.Command {
	var o getOptions
	c := &cobra.Command{
		Use:   "get (KIND[,KIND...] [NAME...] | KIND/NAME... | -f FILE)",
		Short: "Show objects",
		Long:  "Show objects, as a table or whole.\n\nKinds: " + strings.Join(kind.Names(), ", ") + ".",
		Example: `  muslinctl get ippools
  muslinctl get ippools -o wide
  muslinctl get bgppeer tor1 -o yaml
  muslinctl get nodes -l rack=r1 -o wide
  muslinctl get ippools -o custom-columns=NAME,CIDR,NAT
  muslinctl get bgppeers -o go-template='{{range .items}}{{.spec.peerIP}}{{"\n"}}{{end}}'
  muslinctl get blockaffinities -w
  muslinctl get wep -A -o wide`,
		ValidArgsFunction: t.completeKinds,
		RunE:              func(c *cobra.Command, args []string) error { return t.runGet(c.Context(), o, args) },
	}
	o.files.bind(c)
	f := c.Flags()
	f.StringVarP(&o.format, "output", "o", "", "format: "+strings.Join(print.Formats, ", "))
	f.StringVarP(&o.labels, "selector", "l", "", "only objects with these labels, as in rack=r1,tier!=db")
	f.BoolVarP(&o.watch, "watch", "w", false, "show the objects, then every change, until interrupted")
	f.BoolVarP(&o.all, "all-namespaces", "A", false, "objects of all namespaces")
	f.BoolVarP(&o.all, "all-namespaces-short", "a", false, "as -A")
	_ = f.MarkHidden("all-namespaces-short")
	f.BoolVar(&o.skipEmpty, "skip-empty", false, "print nothing for a kind without objects")
	f.BoolVar(&o.clean, "export", false, "leave out what belongs to this cluster: uid, resourceVersion, times, status")
	f.BoolVar(&o.bare, "no-headers", false, "no headings above tables")
	_ = c.RegisterFlagCompletionFunc("output", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return print.Formats, cobra.ShellCompDirectiveNoSpace
	})
	return c
}

func (t *Tool) runGet(ctx context.Context, o getOptions, args []string) error {
	printer, err := print.New(o.format)
	if err != nil {
		return err
	}
	if o.bare {
		print.NoHeadings(printer)
	}
	want, err := t.wanted(o, args)
	if err != nil {
		return err
	}
	client, err := t.flags.Client()
	if err != nil {
		return err
	}
	if o.watch {
		if len(want) != 1 {
			return api.Usagef("-w follows one kind, or one object")
		}
		return t.follow(ctx, client, o, want[0], printer)
	}
	var errs []error
	for i, group := range byKind(want) {
		if i > 0 && (o.format == "" || o.format == "ps" || o.format == "wide") {
			_, _ = t.Out.Write([]byte("\n"))
		}
		errs = append(errs, t.show(ctx, client, o, group, printer))
	}
	return errors.Join(errs...)
}

func (t *Tool) wanted(o getOptions, args []string) ([]target, error) {
	if len(o.files.paths) > 0 {
		docs, err := t.read(o.files)
		if err != nil {
			return nil, err
		}
		var out []target
		for _, d := range docs {
			out = append(out, target{d.Kind, d.Name()})
		}
		return out, nil
	}
	if len(args) == 0 {
		return nil, api.Usagef("what? Name a kind: one of %s", strings.Join(kind.Names(), ", "))
	}
	return targets(args)
}

func byKind(in []target) [][]target {
	var out [][]target
	for _, w := range in {
		i := slices.IndexFunc(out, func(g []target) bool { return g[0].kind == w.kind })
		if i < 0 {
			out = append(out, []target{w})
		} else {
			out[i] = append(out[i], w)
		}
	}
	return out
}

// show prints the objects of one kind.
func (t *Tool) show(ctx context.Context, client *api.Client, o getOptions, group []target, printer print.Printer) error {
	k := group[0].kind
	var objects []api.Object
	var errs []error
	list := group[0].name == ""
	for _, w := range group {
		found, err := o.find(ctx, client, w)
		objects, errs = append(objects, found...), append(errs, err)
	}
	failed := errors.Join(errs...)
	if len(objects) == 0 && (failed != nil || o.skipEmpty) {
		return failed
	}
	if o.clean {
		for _, x := range objects {
			clean(x)
		}
	}
	if o.all {
		k = k.WithNamespaces()
	}
	if k.Name == "Tier" {
		slices.SortStableFunc(objects, byOrder)
	}
	return errors.Join(printer.Print(t.Out, k, objects, list || len(group) > 1), failed)
}

// find reads the object of a name, or all that are selected. A list finds what has
// no URL of its own: an object made from another, a name in any namespace.
func (o getOptions) find(ctx context.Context, client *api.Client, w target) ([]api.Object, error) {
	s := o.selected(client, w)
	if w.name == "" || w.kind.Of != "" || w.kind.Namespaced && s.Namespace == "" {
		all, _, err := client.List(ctx, w.kind, s)
		if err == nil && w.name != "" && len(all) == 0 {
			err = fmt.Errorf("there is no %s %s in namespace %s", w.kind.Name, w.name, cmp.Or(s.Namespace, "any"))
		}
		return all, err
	}
	one, err := client.Get(ctx, w.kind, w.name)
	if err != nil {
		return nil, err
	}
	return []api.Object{one}, nil
}

// selected says which objects of a target are listed.
func (o getOptions) selected(client *api.Client, w target) api.Select {
	s := api.Select{Labels: o.labels, Namespace: cmp.Or(client.Namespace, "default")}
	if o.all {
		s.Namespace = ""
	}
	if w.name == "" {
		return s
	}
	name := w.name
	if ns, n, ok := strings.Cut(name, "/"); ok && w.kind.Namespaced {
		s.Namespace, name = ns, n
	}
	s.Fields = w.kind.Fields(name)
	return s
}

// byOrder sorts tiers as they are looked at: those without an order last.
func byOrder(a, b api.Object) int {
	order := func(o api.Object) float64 {
		switch n := kind.At(o, "spec.order").(type) {
		case int64:
			return float64(n)
		case float64:
			return n
		}
		return math.Inf(1)
	}
	return cmp.Compare(order(a), order(b))
}

// clean removes what means nothing in another cluster.
func clean(o api.Object) {
	delete(o, "status")
	if m, ok := o["metadata"].(api.Object); ok {
		for _, f := range []string{"uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "finalizers"} {
			delete(m, f)
		}
		if a, ok := m["annotations"].(api.Object); ok {
			delete(a, "kubectl.kubernetes.io/last-applied-configuration")
			if len(a) == 0 {
				delete(m, "annotations")
			}
		}
	}
}

// follow prints the objects and then each that changes.
func (t *Tool) follow(ctx context.Context, client *api.Client, o getOptions, w target, printer print.Printer) error {
	s := o.selected(client, w)
	if o.all {
		w.kind = w.kind.WithNamespaces()
	}
	objects, rv, err := client.List(ctx, w.kind, s)
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		if first {
			err = printer.Print(t.Out, w.kind, objects, false)
			print.NoHeadings(printer)
		}
		if err != nil {
			return err
		}
		err = client.Watch(ctx, w.kind, s, rv, func(e api.Event) error {
			rv = kind.Text(e.Object, "metadata.resourceVersion", rv)
			return printer.Print(t.Out, w.kind, []api.Object{e.Object}, false)
		})
		if ctx.Err() != nil {
			return nil //nolint:nilerr // interrupted: that is how a watch ends
		}
	}
}
