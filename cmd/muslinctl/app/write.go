package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/input"
	"github.com/muslin-net/muslin/cmd/muslinctl/print"
)

// dryRun is the flag --dry-run: "", "client" or "server".
type dryRun string

func (d *dryRun) String() string { return string(*d) }

// Type names the values in the help.
func (d *dryRun) Type() string { return "client|server" }

func (d *dryRun) Set(s string) error {
	switch s {
	case "none", "":
		*d = ""
	case "client", "server":
		*d = dryRun(s)
	default:
		return fmt.Errorf("want client, server or none, not %q", s)
	}
	return nil
}

func (d *dryRun) bind(c *cobra.Command) {
	c.Flags().Var(d, "dry-run", "client: only check the objects; server: let the server check and write nothing")
	c.Flags().Lookup("dry-run").NoOptDefVal = "client"
}

func (d dryRun) suffix() string {
	if d == "" {
		return ""
	}
	return fmt.Sprintf(" (dry run, %s)", string(d))
}

// writer does one thing to many documents and reports like calicoctl.
type writer struct {
	tool   *Tool
	client *api.Client
	past   string // "created"
	dry    dryRun
	format string // -o: print what was written
}

// do writes one document; a false done means that there was nothing to do.
type do func(ctx context.Context, d input.Document) (result api.Object, done bool, err error)

// PartlyError says that some objects were written and others were not. Its
// causes are joined in it.
type PartlyError struct {
	errs []error
}

func (e *PartlyError) Error() string { return errors.Join(e.errs...).Error() }

// Unwrap gives the causes.
func (e *PartlyError) Unwrap() []error { return e.errs }

// ExitCode is that of a partial success.
func (e *PartlyError) ExitCode() int { return api.ExitPartly }

// all does every document, goes on after an error, and says in the end what was
// done and what was not.
func (w writer) all(ctx context.Context, docs []input.Document, f do) error {
	var done []input.Document
	var failed []error
	for _, d := range docs {
		if ctx.Err() != nil {
			failed = append(failed, fmt.Errorf("%s: not %s: interrupted", d.Ref(), w.past))
			continue
		}
		result, changed, err := f(ctx, d)
		if err != nil {
			failed = append(failed, at(d, err))
			continue
		}
		if changed {
			done = append(done, d)
		}
		if w.format != "" && result != nil {
			p, err := print.New(w.format)
			if err == nil {
				err = p.Print(w.tool.Out, d.Kind, []api.Object{result}, false)
			}
			if err != nil {
				return err
			}
		}
	}
	return w.report(docs, done, failed)
}

// at says which file an error is about, when there may be a doubt.
func at(d input.Document, err error) error {
	if d.From == "" {
		return err
	}
	return fmt.Errorf("%s: %w", d.From, err)
}

func (w writer) report(docs, done []input.Document, failed []error) error {
	out := w.tool.Out
	if w.format != "" {
		out = w.tool.Err
	}
	switch {
	case len(failed) == 0 && len(done) == 0:
		fmt.Fprintf(out, "Nothing to be %s: all %d resource(s) are as they should be\n", w.past, len(docs))
		return nil
	case len(failed) == 0:
		fmt.Fprintf(out, "Successfully %s %d %sresource(s)%s\n", w.past, len(done), sameKind(done), w.dry.suffix())
		return nil
	case len(done) == 0:
		return errors.Join(failed...)
	}
	fmt.Fprintf(w.tool.Err, "Partial success: %s %d out of %d resources%s:\n", w.past, len(done), len(docs), w.dry.suffix())
	for _, d := range done {
		fmt.Fprintf(w.tool.Err, "  %s %s\n", w.past, d.Ref())
	}
	return &PartlyError{failed}
}

// sameKind is "'IPPool' " when all are of one kind.
func sameKind(docs []input.Document) string {
	for _, d := range docs {
		if d.Kind != docs[0].Kind {
			return ""
		}
	}
	return "'" + docs[0].Kind.Name + "' "
}

// one is all for a single document; with --dry-run=client nothing is asked.
func (w writer) one(ctx context.Context, d input.Document, f func(context.Context, writer, input.Document) (api.Object, bool, error)) error {
	if w.dry != "client" {
		var err error
		if w.client, err = w.tool.flags.Client(); err != nil {
			return err
		}
	}
	return w.all(ctx, []input.Document{d}, func(ctx context.Context, d input.Document) (api.Object, bool, error) {
		if w.dry == "client" {
			return d.Object, true, nil
		}
		return f(ctx, w, d)
	})
}
