package app

import (
	"context"
	"encoding/json"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/input"
	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
)

type patchOptions struct {
	patch, kind string
	dry         dryRun
	format      string
}

func (t *Tool) patch() *cobra.Command {
	var o patchOptions
	c := &cobra.Command{
		Use:   "patch KIND NAME -p PATCH",
		Short: "Change fields of an object",
		Example: `  muslinctl patch ippool default -p '{"spec": {"natOutgoing": true}}'
  muslinctl patch node n1 -p '{"spec": {"bgp": {"routeReflectorClusterID": "10.0.0.1"}}}'
  muslinctl patch bgppeer tor1 -t json -p '[{"op": "remove", "path": "/spec/filters"}]'`,
		Args:              usage(cobra.ExactArgs(2)),
		ValidArgsFunction: t.completeKinds,
		RunE: func(c *cobra.Command, args []string) error {
			want, err := targets(args)
			if err != nil {
				return err
			}
			return t.runPatch(c, o, want[0])
		},
	}
	f := c.Flags()
	f.StringVarP(&o.patch, "patch", "p", "", "the patch, in JSON or YAML")
	f.StringVarP(&o.kind, "type", "t", "merge", "merge or json; strategic means merge, as these kinds have no strategy")
	f.StringVarP(&o.format, "output", "o", "", "also print what was written: yaml, json, name, ...")
	o.dry.bind(c)
	_ = c.MarkFlagRequired("patch")
	return c
}

func (t *Tool) runPatch(c *cobra.Command, o patchOptions, w target) error {
	if w.kind.ReadOnly {
		return api.Usagef("%s %s", w.kind.Name, w.kind.Refusal())
	}
	body, err := yaml.YAMLToJSONStrict([]byte(o.patch))
	if err != nil {
		return api.Usagef("-p: not JSON or YAML: %w", err)
	}
	how := map[string]types.PatchType{"merge": types.MergePatchType, "strategic": types.MergePatchType, "json": types.JSONPatchType}[o.kind]
	if how == "" {
		return api.Usagef("-t %s: want merge, json or strategic", o.kind)
	}
	if how == types.MergePatchType {
		if body, err = checkPatch(w.kind, w.name, body); err != nil {
			return err
		}
	} else if w.kind.Core {
		return api.Usagef("-t json: a Calico Node has no JSON form of its own in Kubernetes; use -t merge")
	}
	wr := writer{tool: t, past: "patched", dry: o.dry, format: o.format}
	d := input.Document{Kind: w.kind, Object: api.Object{"metadata": api.Object{"name": w.name}}}
	return wr.one(c.Context(), d, func(ctx context.Context, wr writer, d input.Document) (api.Object, bool, error) {
		out, err := wr.client.Patch(ctx, d.Kind, d.Name(), how, body, o.dry == "server")
		return out, true, err
	})
}

// checkPatch finds unknown fields, and turns a patch of a Node into one of the
// Kubernetes node.
func checkPatch(k *kind.Kind, name string, body []byte) ([]byte, error) {
	var o api.Object
	if err := json.Unmarshal(body, &o); err != nil {
		return nil, api.Usagef("-p: want a mapping, as in {\"spec\": {...}}: %w", err)
	}
	full := merged(o, api.Object{"metadata": merged(o["metadata"], api.Object{"name": name})})
	if err := k.Check(full); err != nil {
		return nil, err
	}
	if k.Core {
		return json.Marshal(kind.NodePatch(o, false))
	}
	return body, nil
}
