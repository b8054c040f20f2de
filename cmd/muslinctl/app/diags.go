package app

import (
	"archive/tar"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/muslin-net/muslin/cmd/muslinctl/agentview"
	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
)

func (t *Tool) cluster() *cobra.Command {
	return group("cluster", "Collect what is needed to understand a cluster", "Collect what is needed to understand a cluster.", t.diags())
}

func (t *Tool) diags() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "diags",
		Short: "Write objects and the agents' views into one archive",
		Long: `Write every object of Muslin's kinds, and the view, the metrics and the last lines
of the log of every agent into a .tar.gz. Passwords are not in it: Secrets are not
read, and views show a placeholder. What could not be read stands in errors.txt.`,
		Example: "  muslinctl cluster diags\n  muslinctl cluster diags -o /tmp/case.tar.gz",
		Args:    usage(cobra.NoArgs),
		RunE:    func(c *cobra.Command, _ []string) error { return t.runDiags(c.Context(), file, nil) },
	}
	c.Flags().StringVarP(&file, "output", "o", "", "the archive; default: muslin-diags-TIME.tar.gz")
	return c
}

func (t *Tool) nodeDiags() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "diags NODE...",
		Short: "Write what the agents of some nodes show into one archive",
		Long: `Write the view, the metrics and the last lines of the log of the agents of some
nodes, and the objects that their decisions come from, into a .tar.gz. What could
not be read stands in errors.txt.`,
		Example:           "  muslinctl node diags n1\n  muslinctl node diags n1 n2 -o /tmp/case.tar.gz",
		Args:              usage(cobra.MinimumNArgs(1)),
		ValidArgsFunction: t.completeNodes,
		RunE:              func(c *cobra.Command, args []string) error { return t.runDiags(c.Context(), file, args) },
	}
	c.Flags().StringVarP(&file, "output", "o", "", "the archive; default: muslin-diags-TIME.tar.gz")
	return c
}

// runDiags collects from some nodes, from all that have an agent without names.
func (t *Tool) runDiags(ctx context.Context, file string, nodes []string) error {
	client, err := t.flags.Client()
	if err != nil {
		return err
	}
	agents, err := agentview.Agents(ctx, client)
	if err != nil && len(nodes) > 0 {
		return err
	}
	if len(nodes) == 0 {
		for _, g := range agents {
			nodes = append(nodes, g.Node)
		}
	}
	for _, n := range nodes {
		if _, err := agentview.Of(agents, n); err != nil {
			return err
		}
	}
	file = cmp.Or(file, "muslin-diags-"+time.Now().UTC().Format("20060102-150405")+".tar.gz")
	f, openErr := os.Create(file)
	if openErr != nil {
		return &api.UsageError{Err: openErr}
	}
	gz := gzip.NewWriter(f)
	a := &archive{tar: tar.NewWriter(gz), now: time.Now()}
	a.add("agents.json", agents, err)
	for _, k := range kind.All() {
		objects, _, err := client.List(ctx, k, api.Select{})
		a.add("objects/"+k.Plural+".json", objects, err)
	}
	tell := t.progress()
	for i, n := range nodes {
		tell(fmt.Sprintf("%d of %d nodes: %s", i+1, len(nodes), n))
		g, _ := agentview.Of(agents, n)
		a.node(ctx, client, g)
	}
	tell("")
	a.write("errors.txt", []byte(a.notes))
	if err := errors.Join(a.failed, a.tar.Close(), gz.Close(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	fmt.Fprintf(t.Out, "Wrote %s\n", file)
	return nil
}

// node collects from one agent.
func (a *archive) node(ctx context.Context, client *api.Client, g agentview.Agent) {
	var v any
	err := g.Get(ctx, client, "/show", &v)
	a.add("nodes/"+g.Node+"/view.json", v, err)
	metrics, err := g.Text(ctx, client, "/metrics")
	a.text("nodes/"+g.Node+"/metrics.txt", metrics, err)
	log, err := client.Text(ctx, "/api/v1/namespaces/"+agentview.Namespace+"/pods/"+g.Pod+"/log", url.Values{"container": {"agent"}, "tailLines": {"5000"}})
	a.text("nodes/"+g.Node+"/agent.log", log, err)
}

func (a *archive) text(name string, data []byte, err error) {
	if err != nil {
		a.notes += name + ": " + err.Error() + "\n"
		return
	}
	a.write(name, data)
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
