package app

import (
	"context"
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
)

type splitOptions struct {
	cidr, name string
	force      bool
}

func (t *Tool) ipamSplit() *cobra.Command {
	var o splitOptions
	c := &cobra.Command{
		Use:   "split NUMBER (--name POOL | --cidr CIDR)",
		Short: "Split a pool into smaller ones of equal size",
		Long: `Split a pool into NUMBER smaller ones of equal size, a power of two. The new
pools are called POOL-0, POOL-1 and so on and have the settings of the old one;
blocks and addresses stay as they are and lie in the new pools.

The pool must be disabled, or the datastore locked (ClusterInformation default:
spec.datastoreReady: false), so that no node takes a block meanwhile; --force goes
without. The new pools are not disabled. A run that was interrupted goes on where
it was when it is started again.`,
		Example: "  muslinctl patch ippool big -p '{spec: {disabled: true}}'\n  muslinctl ipam split 4 --name big\n  muslinctl ipam split 2 --cidr 10.244.0.0/16 --force",
		Args:    usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[0])
			if err != nil || n < 2 || n > 1<<16 || n&(n-1) != 0 {
				return api.Usagef("%q: want a power of two from 2 to 65536", args[0])
			}
			if (o.cidr == "") == (o.name == "") {
				return api.Usagef("want --name or --cidr")
			}
			return t.runSplit(c.Context(), n, o)
		},
	}
	c.Flags().StringVar(&o.cidr, "cidr", "", "the pool with this CIDR")
	c.Flags().StringVar(&o.name, "name", "", "the pool of this name")
	c.Flags().BoolVar(&o.force, "force", false, "split a pool that is in use, too")
	_ = c.RegisterFlagCompletionFunc("name", t.completePools)
	return c
}

func (t *Tool) runSplit(ctx context.Context, n int, o splitOptions) error {
	client, err := t.flags.Client()
	if err != nil {
		return err
	}
	pool, err := poolOf(ctx, client, o)
	if err != nil {
		return err
	}
	name := kind.Text(pool, "metadata.name", "")
	cidrs, err := pieces(pool, n)
	if err != nil {
		return err
	}
	if err := quietPool(ctx, client, pool, o.force); err != nil {
		return err
	}
	k := kind.MustFind("ippools")
	for i, cidr := range cidrs {
		child, err := piece(ctx, client, pool, fmt.Sprintf("%s-%d", name, i), cidr)
		if err != nil {
			return err
		}
		fmt.Fprintf(t.Out, "%s IPPool %s-%d %s\n", child, name, i, cidr)
	}
	// With blocks in it the old pool would stay until they are empty; they lie in
	// the new ones now.
	if err := client.Delete(ctx, k, name, kind.Text(pool, "metadata.uid", ""), false); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	_, err = client.Patch(ctx, k, name, types.MergePatchType, api.Object{"metadata": api.Object{"finalizers": nil}}, false)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	fmt.Fprintf(t.Out, "Successfully split IPPool %s into %d\n", name, n)
	return nil
}

func poolOf(ctx context.Context, client *api.Client, o splitOptions) (api.Object, error) {
	k := kind.MustFind("ippools")
	if o.name != "" {
		return client.Get(ctx, k, o.name)
	}
	pools, _, err := client.List(ctx, k, api.Select{})
	if err != nil {
		return nil, err
	}
	for _, p := range pools {
		if kind.Text(p, "spec.cidr", "") == o.cidr {
			return p, nil
		}
	}
	return nil, api.Usagef("--cidr %s: no IPPool has it; see muslinctl get ippools", o.cidr)
}

// pieces cuts the pool's CIDR into n.
func pieces(pool api.Object, n int) ([]netip.Prefix, error) {
	name := kind.Text(pool, "metadata.name", "")
	cidr, err := netip.ParsePrefix(kind.Text(pool, "spec.cidr", ""))
	if err != nil {
		return nil, fmt.Errorf("IPPool %s: spec.cidr: %w", name, err)
	}
	block := map[bool]int{true: 26, false: 122}[cidr.Addr().Is4()]
	if size, ok := kind.At(pool, "spec.blockSize").(int64); ok {
		block = int(size)
	}
	length := cidr.Bits() + bits.TrailingZeros(uint(n))
	if length > block {
		return nil, api.Usagef("IPPool %s: %d pieces of %s are smaller than a block, which is a /%d", name, n, cidr, block)
	}
	out := make([]netip.Prefix, n)
	for i := range out {
		a := cidr.Masked().Addr().AsSlice()
		for k := range length - cidr.Bits() {
			bit := length - 1 - k // counted from the left
			a[bit/8] |= byte(i>>k&1) << (7 - bit%8)
		}
		addr, _ := netip.AddrFromSlice(a)
		out[i] = netip.PrefixFrom(addr, length)
	}
	return out, nil
}

// quietPool refuses while nodes may still take blocks of the pool.
func quietPool(ctx context.Context, client *api.Client, pool api.Object, force bool) error {
	if force || kind.Text(pool, "spec.disabled", "") == "true" {
		return nil
	}
	info, err := client.Get(ctx, kind.MustFind("clusterinfo"), "default")
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if kind.Text(info, "spec.datastoreReady", "true") == "false" {
		return nil
	}
	name := kind.Text(pool, "metadata.name", "")
	return fmt.Errorf("IPPool %s is in use: disable it first (muslinctl patch ippool %s -p '{spec: {disabled: true}}'), or give --force", name, name)
}

// piece makes one of the new pools, unless it is there from an earlier run.
func piece(ctx context.Context, client *api.Client, pool api.Object, name string, cidr netip.Prefix) (string, error) {
	k := kind.MustFind("ippools")
	spec := merged(kind.At(pool, "spec"), api.Object{"cidr": cidr.String()})
	delete(spec, "disabled")
	meta := api.Object{"name": name}
	if labels := kind.At(pool, "metadata.labels"); labels != nil {
		meta["labels"] = labels
	}
	_, err := client.Create(ctx, k, api.Object{"apiVersion": kind.GroupVersion, "kind": k.Name, "metadata": meta, "spec": spec}, false)
	if !apierrors.IsAlreadyExists(err) {
		return "Created", err
	}
	have, err := client.Get(ctx, k, name)
	if err == nil && kind.Text(have, "spec.cidr", "") != cidr.String() {
		err = fmt.Errorf("IPPool %s: exists with spec.cidr %s, want %s; rename or delete it", name, kind.Text(have, "spec.cidr", ""), cidr)
	}
	return "Kept", err
}
