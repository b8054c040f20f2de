package app

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/input"
	"github.com/muslin-net/muslin/pkg/compat"
	"github.com/muslin-net/muslin/pkg/model"
)

// inVain is a line of compat.
type inVain struct {
	From    string `json:"from,omitempty"` // file and document
	Object  string `json:"object"`
	Field   string `json:"field,omitempty"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

func (t *Tool) compat() *cobra.Command {
	var f files
	var live bool
	var format string
	c := &cobra.Command{
		Use:   "compat (-f FILE | --live)",
		Short: "List what has no effect in Muslin",
		Long: `List every object, field, annotation and key of a CNI configuration that Calico
knows and that has no effect in Muslin, with what to do instead. YAML and JSON may
hold objects of any kind, as Calico's own manifests do, and CNI configurations.
--live reads a cluster, before a change of network as well as after it: objects of
Calico's API groups, network policies, nodes, namespaces, pods and services.`,
		Example: "  muslinctl compat -f calico.yaml\n  muslinctl compat -f /etc/cni/net.d/10-calico.conflist\n  muslinctl compat --live -o json",
		Args:    usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if live == (len(f.paths) > 0) {
				return api.Usagef("give either -f FILE or --live")
			}
			if live {
				found, seen, err := t.compatLive(c.Context())
				return errors.Join(t.printInVain(found, seen, format), err)
			}
			docs, err := input.ReadAny(f.paths, f.deep, t.In)
			if err != nil {
				return err
			}
			return t.printInVain(inVainOf(docs), len(docs), format)
		},
	}
	f.bind(c)
	c.Flags().BoolVar(&live, "live", false, "what the cluster has")
	c.Flags().StringVarP(&format, "output", "o", "", "json")
	return c
}

func inVainOf(docs []input.Document) []inVain {
	out := []inVain{}
	for _, d := range docs {
		problems, _ := compat.Object(d.Object)
		if d.Object["kind"] == nil {
			text, _ := json.Marshal(d.Object) // it was decoded from JSON
			problems = compat.CNI(model.Ref{Kind: "File", Name: d.From}, text)
		}
		for _, p := range problems {
			out = append(out, inVain{d.From, p.Object.String(), p.Field, p.Reason, p.Message})
		}
	}
	return out
}

func (t *Tool) printInVain(found []inVain, seen int, format string) error {
	switch format {
	case "json":
		return writeJSON(t.Out, found)
	case "":
	default:
		return api.Usagef("-o %s: want json", format)
	}
	w := tabwriter.NewWriter(t.Out, 0, 0, 3, ' ', 0)
	objects := map[string]bool{}
	for i, f := range found {
		if i == 0 {
			fmt.Fprintln(w, "OBJECT\tFIELD\tWHAT")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Object, cmp.Or(f.Field, "-"), f.Message)
		objects[f.From+f.Object] = true
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(t.Out, "%d of %d objects have something without effect\n", len(objects), seen)
	return err
}

// compatGroups are the API groups whose objects are read, and of the others'
// these kinds.
var compatGroups = []struct {
	group string
	kinds []string // nil: all
}{
	{"projectcalico.org", nil}, {"crd.projectcalico.org", nil}, {"operator.tigera.io", nil},
	{"networking.k8s.io", []string{"NetworkPolicy"}}, {"policy.networking.k8s.io", nil},
}

// compatLive reads the objects of a cluster. What cannot be read is an error, and
// the rest is judged.
func (t *Tool) compatLive(ctx context.Context) (found []inVain, seen int, err error) {
	client, err := t.flags.Client()
	if err != nil {
		return nil, 0, err
	}
	paths, err := compatPaths(ctx, client)
	errs := []error{err}
	for _, p := range paths {
		_, err := client.EachPage(ctx, p.path, api.Select{}, func(items []api.Object) {
			var docs []input.Document
			for _, o := range items {
				o["apiVersion"], o["kind"] = p.version, p.kind
				docs = append(docs, input.Document{Object: o})
			}
			found, seen = append(found, inVainOf(docs)...), seen+len(items)
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("list %s: %w", p.kind, err))
		}
	}
	return found, seen, errors.Join(errs...)
}

type compatPath struct{ path, version, kind string }

// compatPaths asks the server which of the kinds it has. A kind that Calico's API
// and its datastore both have is read from the API.
func compatPaths(ctx context.Context, client *api.Client) ([]compatPath, error) {
	out := []compatPath{
		{"/api/v1/nodes", "v1", "Node"}, {"/api/v1/namespaces", "v1", "Namespace"}, {"/api/v1/pods", "v1", "Pod"}, {"/api/v1/services", "v1", "Service"},
		{"/apis/apps/v1/daemonsets", "apps/v1", "DaemonSet"}, {"/apis/apps/v1/deployments", "apps/v1", "Deployment"},
	}
	var groups struct {
		Groups []struct {
			Name      string `json:"name"`
			Preferred struct {
				Version string `json:"groupVersion"`
			} `json:"preferredVersion"`
		} `json:"groups"`
	}
	if err := client.GetPath(ctx, "/apis", nil, &groups); err != nil {
		return nil, err
	}
	have := map[string]bool{}
	var errs []error
	for _, g := range compatGroups {
		for _, served := range groups.Groups {
			if served.Name != g.group {
				continue
			}
			more, err := compatKinds(ctx, client, served.Preferred.Version, g.kinds)
			errs = append(errs, err)
			for _, p := range more {
				name := p.kind
				if g.group == "networking.k8s.io" {
					name = g.group
				}
				if !have[name] {
					have[name] = true
					out = append(out, p)
				}
			}
		}
	}
	return out, errors.Join(errs...)
}

// compatKinds are the kinds of a group that can be listed, but for IPAM's own.
func compatKinds(ctx context.Context, client *api.Client, version string, only []string) ([]compatPath, error) {
	var list struct {
		Resources []struct {
			Name  string   `json:"name"`
			Kind  string   `json:"kind"`
			Verbs []string `json:"verbs"`
		} `json:"resources"`
	}
	if err := client.GetPath(ctx, "/apis/"+version, nil, &list); err != nil {
		return nil, fmt.Errorf("kinds of %s: %w", version, err)
	}
	own := []string{"IPAMBlock", "IPAMHandle", "BlockAffinity", "IPAMConfig"}
	var out []compatPath
	for _, r := range list.Resources {
		if slices.Contains(r.Verbs, "list") && !slices.Contains(own, r.Kind) && (only == nil || slices.Contains(only, r.Kind)) {
			out = append(out, compatPath{"/apis/" + version + "/" + r.Name, version, r.Kind})
		}
	}
	return out, nil
}
