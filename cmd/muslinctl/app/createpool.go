package app

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/input"
	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
)

type poolFlags struct {
	cidr, ipip, vxlan, nodes, namespaces, mode string
	size                                       int
	nat, disabled, private                     bool
}

func (t *Tool) createPool() *cobra.Command {
	var p poolFlags
	var o writeOptions
	c := &cobra.Command{
		Use:     "ippool NAME --cidr CIDR",
		Aliases: []string{"pool"},
		Short:   "Make a pool of addresses out of flags",
		Example: `  muslinctl create ippool default --cidr 10.244.0.0/16 --nat-outgoing
  muslinctl create ippool r2 --cidr 10.245.0.0/16 --node-selector 'rack == "r2"' --dry-run=client -o yaml`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			d := input.Document{Kind: kind.MustFind("ippools"), Object: p.object(args[0])}
			w := writer{tool: t, past: "created", dry: o.dry, format: o.format}
			if err := d.Kind.Check(d.Object); err != nil {
				return err
			}
			return w.one(c.Context(), d, func(ctx context.Context, w writer, d input.Document) (api.Object, bool, error) {
				return w.create(false)(ctx, d)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&p.cidr, "cidr", "", "addresses of the pool, as in 10.244.0.0/16")
	f.IntVar(&p.size, "block-size", 0, "prefix length of a block: 20 to 32, or 116 to 128; default 26 and 122")
	f.StringVar(&p.ipip, "ipip", "", "Never, Always or CrossSubnet")
	f.StringVar(&p.vxlan, "vxlan", "", "Never, Always or CrossSubnet")
	f.BoolVar(&p.nat, "nat-outgoing", false, "masquerade what leaves the pools")
	f.BoolVar(&p.disabled, "disabled", false, "assign no address out of it yet")
	f.BoolVar(&p.private, "disable-bgp-export", false, "announce nothing of it")
	f.StringVar(&p.nodes, "node-selector", "", "nodes that may take blocks")
	f.StringVar(&p.namespaces, "namespace-selector", "", "namespaces whose pods it is for")
	f.StringVar(&p.mode, "assignment-mode", "", "Automatic or Manual")
	f.StringVarP(&o.format, "output", "o", "", "also print what was written: yaml, json, name, ...")
	o.dry.bind(c)
	_ = c.MarkFlagRequired("cidr")
	return c
}

func (p poolFlags) object(name string) api.Object {
	spec := api.Object{"cidr": p.cidr}
	for field, v := range map[string]string{
		"ipipMode": p.ipip, "vxlanMode": p.vxlan, "nodeSelector": p.nodes, "namespaceSelector": p.namespaces, "assignmentMode": p.mode,
	} {
		if v != "" {
			spec[field] = v
		}
	}
	for field, v := range map[string]bool{"natOutgoing": p.nat, "disabled": p.disabled, "disableBGPExport": p.private} {
		if v {
			spec[field] = true
		}
	}
	if p.size != 0 {
		spec["blockSize"] = int64(p.size)
	}
	return api.Object{"apiVersion": kind.GroupVersion, "kind": "IPPool", "metadata": api.Object{"name": name}, "spec": spec}
}
