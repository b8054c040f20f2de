package ctl

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/muslin-net/muslin/pkg/ctl/agentview"
	"github.com/muslin-net/muslin/pkg/ctl/api"
	"github.com/muslin-net/muslin/pkg/ctl/kind"
)

func (t *Tool) cluster() *cobra.Command {
	return group("cluster", "Collect what is needed to understand a cluster", "Collect what is needed to understand a cluster.", t.diags())
}

func (t *Tool) diags() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "diags",
		Short: "Write objects and the agents' views into one archive",
		Long: `Write every object of Muslin's kinds and the view of every agent into a .tar.gz.
Passwords are not in it: Secrets are not read, and views show a placeholder. What
could not be read stands in errors.txt.`,
		Example: "  muslinctl cluster diags\n  muslinctl cluster diags -o /tmp/case.tar.gz",
		Args:    usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if file == "" {
				file = "muslin-diags-" + time.Now().UTC().Format("20060102-150405") + ".tar.gz"
			}
			return t.runDiags(c.Context(), file)
		},
	}
	c.Flags().StringVarP(&file, "output", "o", "", "the archive; default: muslin-diags-TIME.tar.gz")
	return c
}

func (t *Tool) runDiags(ctx context.Context, file string) error {
	client, err := t.flags.Client()
	if err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return &api.UsageError{Err: err}
	}
	gz := gzip.NewWriter(f)
	a := &archive{tar: tar.NewWriter(gz), now: time.Now()}
	for _, k := range kind.All() {
		objects, _, err := client.List(ctx, k, api.Select{})
		a.add("objects/"+k.Plural+".json", objects, err)
	}
	agents, err := agentview.Agents(ctx, client)
	a.add("agents.json", agents, err)
	names := make([]string, len(agents))
	for i, g := range agents {
		names[i] = g.Node
	}
	for _, n := range askAll(names, func(n string) (any, error) {
		g, err := agentview.Of(agents, n)
		if err != nil {
			return nil, err
		}
		var v any
		return v, g.Get(ctx, client, "/show", &v)
	}) {
		a.add("nodes/"+n.node+".json", n.said, n.err)
	}
	a.write("errors.txt", []byte(a.notes))
	if err := errors.Join(a.failed, a.tar.Close(), gz.Close(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	fmt.Fprintf(t.Out, "Wrote %s\n", file)
	return nil
}

// archive collects files, and notes of what could not be collected.
type archive struct {
	tar    *tar.Writer
	now    time.Time
	notes  string
	failed error
}

func (a *archive) add(name string, v any, err error) {
	if err != nil {
		a.notes += name + ": " + err.Error() + "\n"
		return
	}
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		a.notes += name + ": " + err.Error() + "\n"
		return
	}
	a.write(name, data)
}

func (a *archive) write(name string, data []byte) {
	err := a.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: a.now})
	if err == nil {
		_, err = a.tar.Write(data)
	}
	a.failed = errors.Join(a.failed, err)
}
