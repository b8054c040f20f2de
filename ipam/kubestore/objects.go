package kubestore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/muslin-net/muslin/ipam"
)

// onlyMeta asks for the metadata of what was written and spares the rest.
const onlyMeta = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

// objects implements ipam.Objects for one kind.
type objects[K comparable, T any] struct {
	client         *rest.RESTClient
	kind, resource string
	name           func(K) string
	key            func(T) K
	labels         func(T) map[string]string // nil: none
	annotations    map[string]string         // of new objects
	encode         func(value T, deleted bool) any
	decode         func(spec []byte) (value T, deleted bool, err error)
	unknown        func(spec []byte) ipam.Unknown // nil: the value keeps them itself
	observe        func(T)                        // a value that was read; nil: nothing remembers it
	note           func(T)                        // a value that was written; nil: as above
	seen           highest
}

// highest is the highest resourceVersion of a kind that the server has told of.
// It goes back only when the server does.
type highest struct{ n atomic.Uint64 }

func (h *highest) get() uint64    { return h.n.Load() }
func (h *highest) reset(n uint64) { h.n.Store(n) }

func (h *highest) note(n uint64) {
	for old := h.n.Load(); n > old && !h.n.CompareAndSwap(old, n); old = h.n.Load() {
	}
}

// Get reads an object. One whose delete has begun is deleted the rest of the
// way.
func (o *objects[K, T]) Get(ctx context.Context, key K) (value T, rev ipam.Revision, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	name := o.name(key)
	data, err := raw(o.client.Get().Resource(o.resource).Name(name).Do(ctx))
	if err != nil {
		return value, rev, o.failed("get", name, err)
	}
	var obj object
	if err := json.Unmarshal(data, &obj); err != nil {
		return value, rev, o.failed("read", name, err)
	}
	value, rev, deleted, err := o.read(&obj)
	if err != nil {
		return value, rev, o.failed("read", name, fmt.Errorf("%w: %w", ipam.ErrRefused, err))
	}
	if deleted {
		if err := o.finish(ctx, obj.Metadata.Name, obj.Metadata.UID); err != nil {
			return value, rev, err
		}
		return value, rev, ipam.ErrNotFound
	}
	return value, rev, nil
}

// read turns an object into a value.
func (o *objects[K, T]) read(obj *object) (value T, rev ipam.Revision, deleted bool, err error) {
	if rev, err = obj.Metadata.revision(); err != nil {
		return value, rev, false, err
	}
	o.seen.note(rev.Number)
	if o.unknown != nil {
		obj.Metadata.unknown = o.unknown(obj.Spec)
	}
	value, deleted, err = o.decode(obj.Spec)
	if err == nil && o.observe != nil {
		o.observe(value)
	}
	return value, rev, deleted, err
}

// Create makes an object. One of that name whose delete has begun is out of
// the way first.
func (o *objects[K, T]) Create(ctx context.Context, value T) (ipam.Revision, error) {
	rev, err := o.create(ctx, value)
	if !errors.Is(err, ipam.ErrExists) {
		return rev, err
	}
	if _, _, getErr := o.Get(ctx, o.key(value)); errors.Is(getErr, ipam.ErrNotFound) {
		return o.create(ctx, value)
	}
	return rev, err
}

func (o *objects[K, T]) create(ctx context.Context, value T) (ipam.Revision, error) {
	m := meta{Name: o.name(o.key(value)), Annotations: o.annotations}
	if o.labels != nil {
		m.Labels = o.labels(value)
	}
	rev, err := o.write(ctx, "create", o.client.Post().Resource(o.resource), m, o.encode(value, false))
	return rev, o.written(value, err)
}

// Update replaces an object under its resourceVersion.
func (o *objects[K, T]) Update(ctx context.Context, value T, at ipam.Revision) (ipam.Revision, error) {
	rev, err := o.update(ctx, value, at, false)
	return rev, o.written(value, err)
}

// written remembers a value that the server has taken.
func (o *objects[K, T]) written(value T, err error) error {
	if err == nil && o.note != nil {
		o.note(value)
	}
	return err
}

func (o *objects[K, T]) update(ctx context.Context, value T, at ipam.Revision, deleted bool) (ipam.Revision, error) {
	m, ok := at.Meta.(*meta)
	if !ok {
		return ipam.Revision{}, fmt.Errorf("update %s %s: the revision is not of this store", o.kind, o.name(o.key(value)))
	}
	return o.write(ctx, "update", o.client.Put().Resource(o.resource).Name(m.Name), *m, o.encode(value, deleted))
}

// write sends an object and reads the metadata of the answer.
func (o *objects[K, T]) write(ctx context.Context, verb string, req *rest.Request, m meta, spec any) (ipam.Revision, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	body, err := o.body(m, spec)
	if err != nil {
		return ipam.Revision{}, fmt.Errorf("%s %s %s: %w: %w", verb, o.kind, m.Name, ipam.ErrRefused, err)
	}
	// The server need not look for unknown fields twice: no user wrote this.
	data, err := raw(req.SetHeader("Accept", onlyMeta).Param("fieldValidation", "Ignore").Body(body).Do(ctx))
	if err != nil {
		return ipam.Revision{}, o.failed(verb, m.Name, err)
	}
	var answer object
	if err := json.Unmarshal(data, &answer); err != nil {
		return ipam.Revision{}, o.failed(verb, m.Name, err)
	}
	answer.Metadata.unknown = m.unknown // the answer has no spec
	rev, err := answer.Metadata.revision()
	o.seen.note(rev.Number)
	return rev, err
}

// body is an object as it is written, with the keys of its spec that are not known.
func (o *objects[K, T]) body(m meta, spec any) ([]byte, error) {
	if len(m.unknown) > 0 {
		text, err := json.Marshal(spec)
		if err != nil {
			return nil, err
		}
		spec = json.RawMessage(m.unknown.Add(text))
	}
	return json.Marshal(outgoing{APIVersion: apiVersion, Kind: o.kind, Metadata: outgoingMeta{meta: m}, Spec: spec})
}

// Delete marks the object under its resourceVersion and deletes it under its
// UID.
func (o *objects[K, T]) Delete(ctx context.Context, value T, at ipam.Revision) error {
	marked, err := o.update(ctx, value, at, true)
	if err != nil {
		return err
	}
	m := marked.Meta.(*meta)
	return o.finish(ctx, m.Name, m.UID)
}

// finish deletes a marked object. That it is gone, or another has taken its
// name, is success.
func (o *objects[K, T]) finish(ctx context.Context, name, uid string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	id := types.UID(uid)
	body, err := json.Marshal(metav1.DeleteOptions{
		TypeMeta:      metav1.TypeMeta{Kind: "DeleteOptions", APIVersion: "v1"},
		Preconditions: &metav1.Preconditions{UID: &id},
	})
	if err != nil {
		return err
	}
	err = classify(o.client.Delete().Resource(o.resource).Name(name).Body(body).Do(ctx).Error())
	if err == nil || errors.Is(err, ipam.ErrNotFound) || errors.Is(err, ipam.ErrConflict) {
		return nil
	}
	return o.failed("delete", name, err)
}

// failed says what was tried on which object.
func (o *objects[K, T]) failed(verb, name string, err error) error {
	return fmt.Errorf("%s %s %s: %w", verb, o.kind, name, classify(err))
}
