package app

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/router"
	"github.com/muslin-net/muslin/cmd/muslinctl/world"
	"github.com/muslin-net/muslin/pkg/model"
)

type routerOptions struct {
	format, label, listen string
	limit                 int
}

func (t *Tool) routerConfig() *cobra.Command {
	var o routerOptions
	c := &cobra.Command{
		Use:   "router-config (NODE | RACK)",
		Short: "Write the routers' half of the BGP sessions",
		Long: `Write the configuration of the routers that a node, or all nodes of a rack, peer
with: neighbours or a listen range, AS numbers, a placeholder for passwords, BFD,
a filter for the pools and a prefix limit. A rack is a value of the label "rack",
or of the one that --rack-label names.`,
		Example: `  muslinctl router-config n1 --for frr
  muslinctl router-config r1 --for bird --listen-range 10.1.1.0/24
  muslinctl router-config r1 --for junos --rack-label topology.kubernetes.io/zone`,
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: t.completeNodes,
		RunE:              func(c *cobra.Command, args []string) error { return t.runRouterConfig(c.Context(), args[0], o) },
	}
	f := c.Flags()
	f.StringVar(&o.format, "for", "frr", "one of "+strings.Join(router.Formats, ", "))
	f.StringVar(&o.label, "rack-label", "rack", "label of nodes whose value names their rack")
	f.StringVar(&o.listen, "listen-range", "", "accept any node out of this prefix instead of naming each")
	f.IntVar(&o.limit, "prefix-limit", 1000, "prefixes that a node may announce")
	_ = c.RegisterFlagCompletionFunc("for", cobra.FixedCompletions(router.Formats, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (t *Tool) runRouterConfig(ctx context.Context, name string, o routerOptions) error {
	if !slices.Contains(router.Formats, o.format) {
		return api.Usagef("--for %s: want one of %s", o.format, strings.Join(router.Formats, ", "))
	}
	var listen netip.Prefix
	if o.listen != "" {
		var err error
		if listen, err = netip.ParsePrefix(o.listen); err != nil {
			return api.Usagef("--listen-range: %w", err)
		}
	}
	client, err := t.flags.Client()
	if err != nil {
		return err
	}
	w, err := world.Read(ctx, client.Config, nil)
	if err != nil {
		return err
	}
	nodes := map[model.NodeName]bgp.Config{}
	for _, n := range w.Nodes {
		if string(n.Name) == name || n.Labels[o.label] == name {
			nodes[n.Name], _ = bgp.Desired(w.For(n.Name), n.Name)
		}
	}
	if len(nodes) == 0 {
		return api.Usagef("%q is neither a node nor a value of the label %q of nodes (--rack-label)", name, o.label)
	}
	routers := router.Routers(nodes, w.Pools, o.limit)
	if len(routers) == 0 {
		return fmt.Errorf("%s: no BGPPeer gives its nodes a router to peer with", name)
	}
	for _, r := range routers {
		r.Listen = listen
		text, err := r.Write(o.format)
		if err != nil {
			return err
		}
		fmt.Fprint(t.Out, text)
	}
	return nil
}
