package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
)

// PoolFinalizer keeps a pool that is being deleted until its blocks are empty.
// It is Calico's.
const PoolFinalizer = "projectcalico.org/ippool-finalizer"

// finalize is a change of a pool's finalizer.
type finalize struct {
	pool string
	uid  string
	keep bool // else it is taken away
}

// finalizers decides which pools get the finalizer, and which lose it: one that
// is deleted, or not, and has no block left. inUse reports whether a pool has
// blocks; nil: nobody knows. Nothing keeps one once the kind itself is being
// deleted, which would wait for ever for a controller that is deleted with it.
func finalizers(pools []kube.Reported, inUse func(name string) *bool, uninstalling bool) []finalize {
	var out []finalize
	for _, p := range pools {
		if p.Ref.Kind != "IPPool" {
			continue
		}
		has := slices.Contains(p.Meta.Finalizers, PoolFinalizer)
		want := has
		if used := inUse(p.Ref.Name); used != nil {
			want = *used
		}
		want = want && !uninstalling
		switch {
		case has && !want:
			out = append(out, finalize{p.Ref.Name, p.Meta.UID, false})
		case !has && want && !p.Meta.Deleting:
			out = append(out, finalize{p.Ref.Name, p.Meta.UID, true})
		}
	}
	return out
}

// drainer keeps finalizers of pools.
type drainer struct {
	store   ipam.Store
	objects *Objects
	unowned []netip.Prefix // blocks of the last survey that no node has
	lasting bool           // see Objects.makeLastingRights
}

// drain puts finalizers on pools that have blocks and takes them from those
// that have none. draining: a pool waits for its blocks.
func (d *drainer) drain(ctx context.Context, s model.Snapshot, objects []kube.Reported, uninstalling bool) (draining bool, err error) {
	var errs []error
	inUse := func(name string) *bool {
		p := poolNamed(s.Pools, name)
		if p == nil {
			return nil
		}
		used := slices.ContainsFunc(s.Blocks, func(b model.Block) bool { return p.CIDR.Overlaps(b.CIDR) }) ||
			slices.ContainsFunc(d.unowned, p.CIDR.Overlaps)
		return &used
	}
	for _, f := range finalizers(objects, inUse, uninstalling) {
		errs = append(errs, d.change(ctx, f, s, uninstalling))
	}
	for _, o := range objects {
		draining = draining || o.Ref.Kind == "IPPool" && o.Meta.Deleting && slices.Contains(o.Meta.Finalizers, PoolFinalizer)
	}
	return draining && !uninstalling, errors.Join(errs...)
}

// change writes one finalizer. Before one goes there is a last look at the
// blocks themselves, some of which no node has.
func (d *drainer) change(ctx context.Context, f finalize, s model.Snapshot, uninstalling bool) error {
	if !f.keep && !uninstalling {
		has, err := d.hasBlocks(ctx, poolNamed(s.Pools, f.pool).CIDR)
		if err != nil {
			return err
		}
		if has {
			return nil
		}
	}
	if f.keep && !d.lasting {
		if err := d.objects.makeLastingRights(ctx); err != nil {
			return err
		}
		d.lasting = true
	}
	return d.objects.finalize(ctx, f)
}

// hasBlocks asks for blocks; the list may be a second old, and an affinity is
// written before its block.
func (d *drainer) hasBlocks(ctx context.Context, cidr netip.Prefix) (bool, error) {
	found := false
	err := d.store.EachBlock(ctx, cidr, func(*ipam.Block, ipam.Revision) bool {
		found = true
		return false
	})
	return found, err
}

func poolNamed(pools []model.Pool, name string) *model.Pool {
	i := slices.IndexFunc(pools, func(p model.Pool) bool { return p.Name == name })
	if i < 0 {
		return nil
	}
	return &pools[i]
}

// finalize writes the finalizers of a pool.
func (o *Objects) finalize(ctx context.Context, f finalize) error {
	if err := o.setFinalizer(ctx, v3Path+"ippools/"+f.pool, f.uid, f.keep); err != nil {
		return fmt.Errorf("finalizers of IPPool %s: %w", f.pool, err)
	}
	return nil
}

// setFinalizer puts PoolFinalizer on an object, or takes it away, guarded by
// what was read. An object that is gone, or is another one by its uid (empty:
// any), is left alone, and none is put on one that is being deleted.
func (o *Objects) setFinalizer(ctx context.Context, path, uid string, keep bool) error {
	data, err := fetch(ctx, o.client.Get().AbsPath(path).SetHeader("Accept", jsonMeta))
	if err != nil {
		return notFoundIsFine(err)
	}
	var have struct {
		Metadata struct {
			UID               string     `json:"uid"`
			ResourceVersion   string     `json:"resourceVersion"`
			Finalizers        []string   `json:"finalizers"`
			DeletionTimestamp *time.Time `json:"deletionTimestamp"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(data, &have); err != nil {
		return err
	}
	m := have.Metadata
	if uid != "" && m.UID != uid || keep && m.DeletionTimestamp != nil || slices.Contains(m.Finalizers, PoolFinalizer) == keep {
		return nil
	}
	list := slices.DeleteFunc(m.Finalizers, func(s string) bool { return s == PoolFinalizer })
	if keep {
		list = append(list, PoolFinalizer)
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": m.UID, "resourceVersion": m.ResourceVersion, "finalizers": list,
	}})
	if err != nil {
		return err
	}
	_, err = fetch(ctx, o.client.Patch(types.MergePatchType).AbsPath(path).SetHeader("Accept", jsonMeta).Body(body))
	return notFoundIsFine(err)
}

func notFoundIsFine(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
