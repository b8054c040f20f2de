package app

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
)

type labelOptions struct{ overwrite, remove bool }

func (t *Tool) label() *cobra.Command {
	var o labelOptions
	c := &cobra.Command{
		Use:   "label KIND NAME KEY=VALUE",
		Short: "Add, change or remove a label of an object",
		Example: `  muslinctl label node n1 rack=r1
  muslinctl label node n1 rack=r2 --overwrite
  muslinctl label node n1 rack --remove`,
		Args:              usage(cobra.ExactArgs(3)),
		ValidArgsFunction: t.completeKinds,
		RunE:              func(c *cobra.Command, args []string) error { return t.runLabel(c.Context(), o, args) },
	}
	c.Flags().BoolVar(&o.overwrite, "overwrite", false, "change a label that is set to something else")
	c.Flags().BoolVar(&o.remove, "remove", false, "remove the label KEY")
	return c
}

func (t *Tool) runLabel(ctx context.Context, o labelOptions, args []string) error {
	k, err := kind.Find(args[0])
	if err != nil {
		return err
	}
	if k.ReadOnly {
		return api.Usagef("%s %s", k.Name, k.Refusal())
	}
	key, value, hasValue := strings.Cut(args[2], "=")
	if hasValue == o.remove || key == "" {
		return api.Usagef("%q: want KEY=VALUE, or KEY with --remove", args[2])
	}
	client, err := t.flags.Client()
	if err != nil {
		return err
	}
	have, err := client.Get(ctx, k, args[1])
	if err != nil {
		return err
	}
	labels, _ := kind.At(have, "metadata.labels").(api.Object)
	old, exists := labels[key].(string)
	var next any = value
	done := fmt.Sprintf("Successfully set label %s on %s %s", key, k.Name, args[1])
	switch {
	case o.remove && !exists:
		return fmt.Errorf("%s %s has no label %s", k.Name, args[1], key)
	case o.remove:
		next, done = nil, fmt.Sprintf("Successfully removed label %s from %s %s", key, k.Name, args[1])
	case exists && old == value:
		fmt.Fprintf(t.Out, "Label %s of %s %s is %q already\n", key, k.Name, args[1], value)
		return nil
	case exists && !o.overwrite:
		return fmt.Errorf("label %s of %s %s is %q; --overwrite changes it", key, k.Name, args[1], old)
	}
	patch := api.Object{"metadata": api.Object{"labels": api.Object{key: next}}}
	if _, err := client.Patch(ctx, k, args[1], types.MergePatchType, patch, false); err != nil {
		return err
	}
	fmt.Fprintln(t.Out, done)
	return nil
}
