package kube

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
)

// secrets watches, one by one and by name, the Secrets that BGP passwords refer
// to, so that the agent needs to read no other. Its fields are guarded by the
// cluster's mu.
type secrets struct {
	c         *Cluster
	namespace string
	wanted    map[string]*secretWatch
	rev       revision // of all that they hold
	changed   chan struct{}
}

// secretWatch follows one Secret.
type secretWatch struct {
	table  *table[map[string][]byte]
	tried  bool // the server has answered once, if only that there is none
	cancel context.CancelFunc
}

func (s *secrets) init(c *Cluster, namespace string) {
	s.c, s.namespace = c, namespace
	s.wanted = map[string]*secretWatch{}
	s.changed = make(chan struct{}, 1)
}

// want says which Secrets are to be followed. It starts nothing: run does. The
// caller holds mu.
func (s *secrets) want(names map[string]bool) {
	changed := false
	for name := range names {
		if s.wanted[name] == nil {
			s.wanted[name] = &secretWatch{table: s.newTable()}
			changed = true
		}
	}
	for name, w := range s.wanted {
		if names[name] {
			continue
		}
		if w.cancel != nil {
			w.cancel()
		}
		delete(s.wanted, name)
	}
	if changed {
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}
}

func (s *secrets) newTable() *table[map[string][]byte] {
	return &table[map[string][]byte]{
		mu: &s.c.mu, rows: map[string]row[map[string][]byte]{}, note: func() { s.rev++; s.c.noteChange() },
		read: func(obj any) reading[map[string][]byte] {
			return reading[map[string][]byte]{value: obj.(*corev1.Secret).Data, ok: true}
		},
	}
}

// tried reports whether the server has answered for every wanted Secret. The
// caller holds mu.
func (s *secrets) tried() bool {
	for _, w := range s.wanted {
		if !w.tried {
			return false
		}
	}
	return true
}

// fill gives a copy of ref with the password in it when it is known. The caller
// holds mu.
func (s *secrets) fill(ref *model.PasswordRef) *model.PasswordRef {
	if ref == nil {
		return nil
	}
	out := *ref
	out.Known, out.Value = false, model.Secret{}
	w := s.wanted[ref.SecretName]
	if w == nil {
		return &out
	}
	if r, ok := w.table.rows[s.namespace+"/"+ref.SecretName]; ok {
		if v, ok := r.value[ref.Key]; ok && len(v) > 0 {
			out.Known, out.Value = true, model.NewSecret(string(v))
		}
	}
	return &out
}

// run starts a watch for every Secret that comes to be wanted, until ctx ends.
func (s *secrets) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		}
		s.c.mu.Lock()
		for _, name := range slices.Sorted(maps.Keys(s.wanted)) {
			w := s.wanted[name]
			if w.cancel == nil {
				var own context.Context
				own, w.cancel = context.WithCancel(ctx)
				wg.Go(func() { s.follow(own, name, w) })
			}
		}
		s.c.mu.Unlock()
	}
}

// follow asks once, so that a Secret that is absent or forbidden does not hold
// up the start for ever, and watches from then on.
func (s *secrets) follow(ctx context.Context, name string, w *secretWatch) {
	for {
		err := s.askOnce(ctx, name, w)
		if err == nil || ctx.Err() != nil {
			break
		}
		s.c.log.Warn("cannot reach the server for a password secret", "secret", name, "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
	s.c.mirror(ctx, feed{
		client: s.c.core, resource: "secrets", namespace: s.namespace, expect: &corev1.Secret{}, absent: isAbsentOrForbidden,
		fields: fields.OneTermEqualSelector("metadata.name", name).String(),
	}, w.table)
}

func (s *secrets) askOnce(ctx context.Context, name string, w *secretWatch) error {
	var secret corev1.Secret
	err := s.c.core.Get().Namespace(s.namespace).Resource("secrets").Name(name).Do(ctx).Into(&secret)
	var answered apierrors.APIStatus
	if err != nil && !errors.As(err, &answered) {
		return fmt.Errorf("get secret %s/%s: %w", s.namespace, name, err)
	}
	if err == nil {
		if err := w.table.Add(&secret); err != nil {
			return err
		}
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	w.tried = true
	s.c.noteChange()
	return nil
}
