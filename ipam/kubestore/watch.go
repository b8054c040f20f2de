package kubestore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

// A watch is ended by the server after this time, give or take, and resumed:
// so that a connection that is dead on one side is noticed.
const watchSeconds = 300

// WatchOwn lists and watches a node's blocks and affinities. After every
// interruption it lists again: a watch that goes on from where it was would never
// say that the server's data were put back to an older state.
func (s *Store) WatchOwn(ctx context.Context, node model.NodeName, w ipam.Watcher) error {
	var mu sync.Mutex // calls to w come one at a time
	var listed sync.WaitGroup
	listed.Add(2)
	blocks := &stream{
		store: s, mu: &mu, resource: s.blocks.resource, seen: &s.blocks.seen, listed: sync.OnceFunc(listed.Done),
		selector: [2]string{"fieldSelector", "spec.affinity=" + ipam.HostAffinity(node)},
		sink:     blockSink{s.blocks, w},
	}
	affinities := &stream{
		store: s, mu: &mu, resource: s.affinities.resource, seen: &s.affinities.seen, listed: sync.OnceFunc(listed.Done),
		selector: [2]string{"labelSelector", ipam.LabelHostnameHash + "=" + ipam.HostnameHash(node) + "," + ipam.LabelAffinityType + "=host"},
		sink:     affinitySink{s.affinities, w, node},
	}
	var wg sync.WaitGroup
	wg.Go(func() { blocks.run(ctx) })
	wg.Go(func() { affinities.run(ctx) })
	wg.Go(func() {
		done := make(chan struct{})
		go func() { listed.Wait(); close(done) }()
		select {
		case <-done:
			mu.Lock()
			defer mu.Unlock()
			w.Synced()
		case <-ctx.Done():
			blocks.listed()
			affinities.listed()
		}
	})
	wg.Wait()
	return nil
}

// sink takes the objects of one kind.
type sink interface {
	replace(items []object, list ipam.List) error
	put(obj *object) error
	gone(obj *object) error
}

// stream follows one resource. Its methods run in one goroutine.
type stream struct {
	store    *Store
	mu       *sync.Mutex
	resource string
	selector [2]string // parameter and value
	sink     sink
	seen     *highest
	listed   func()

	failing bool // the last try failed: the log was told
}

// run lists and watches until ctx ends.
func (w *stream) run(ctx context.Context) {
	delay := time.Duration(0)
	for ctx.Err() == nil {
		began := time.Now()
		err := w.step(ctx)
		if ctx.Err() != nil {
			return
		}
		w.report(err)
		if err == nil || time.Since(began) > 10*time.Second {
			delay = 0
		}
		if err != nil {
			delay = min(max(2*delay, 50*time.Millisecond), 5*time.Second)
		}
		select {
		case <-time.After(delay/2 + rand.N(delay+time.Millisecond)):
		case <-ctx.Done():
		}
	}
}

// report logs the first of a row of failures and the recovery.
func (w *stream) report(err error) {
	switch {
	case err != nil && !w.failing:
		w.store.log.Warn("watch of IPAM objects failed; trying again", "resource", w.resource, "error", err)
	case err == nil && w.failing:
		w.store.log.Info("watch of IPAM objects works again", "resource", w.resource)
	}
	w.failing = err != nil
}

// step lists and watches until the server ends it.
func (w *stream) step(ctx context.Context) error {
	version, err := w.list(ctx)
	if err != nil {
		return err
	}
	err = w.watch(ctx, version)
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return nil // too old: list again
	}
	return err
}

// list asks for the newest state, not for what a cache may hold: a predecessor
// of this process may have written a moment ago. It returns the version to watch
// from.
func (w *stream) list(ctx context.Context) (version string, err error) {
	before := w.seen.get()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	data, err := raw(w.store.client.Get().Resource(w.resource).Param(w.selector[0], w.selector[1]).Do(ctx))
	if apierrors.IsBadRequest(err) {
		return "", fmt.Errorf("list %s by %s (apply the CRDs of this release): %w", w.resource, w.selector[1], err)
	}
	if err != nil {
		return "", fmt.Errorf("list %s: %w", w.resource, err)
	}
	var l list
	if err := json.Unmarshal(data, &l); err != nil {
		return "", fmt.Errorf("list %s: %w", w.resource, err)
	}
	version = l.Metadata.ResourceVersion
	at, err := strconv.ParseUint(version, 10, 64)
	if err != nil {
		return "", fmt.Errorf("list %s: metadata.resourceVersion %q is not a number", w.resource, version)
	}
	restored := at < before
	if restored {
		w.store.log.Warn("the API server's data were put back to an older state; IPAM objects are read anew",
			"resource", w.resource, "seen", before, "now", at)
		w.seen.reset(at)
	}
	w.mu.Lock()
	err = w.sink.replace(l.Items, ipam.List{Number: at, Restored: restored})
	w.mu.Unlock()
	if err != nil {
		w.store.log.Warn("IPAM objects left out", "resource", w.resource, "error", err)
	}
	w.seen.note(at)
	w.listed()
	w.report(nil)
	return version, nil
}

// watch follows the changes after a version. nil: the server has ended it in the
// ordinary way.
func (w *stream) watch(ctx context.Context, version string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body, err := w.store.client.Get().Resource(w.resource).Param(w.selector[0], w.selector[1]).
		Param("watch", "true").Param("resourceVersion", version).Param("allowWatchBookmarks", "true").
		Param("timeoutSeconds", strconv.Itoa(watchSeconds+rand.N(watchSeconds))).Stream(ctx)
	if err != nil {
		return fmt.Errorf("watch %s: %w", w.resource, err)
	}
	defer body.Close()
	decoder := json.NewDecoder(body)
	for {
		var e struct {
			Type   string          `json:"type"`
			Object json.RawMessage `json:"object"`
		}
		if err := decoder.Decode(&e); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("watch %s: %w", w.resource, err)
		}
		if err := w.event(e.Type, e.Object); err != nil {
			return err
		}
	}
}

func (w *stream) event(kind string, data []byte) error {
	if kind == "ERROR" {
		var status metav1.Status
		if err := json.Unmarshal(data, &status); err != nil {
			return fmt.Errorf("watch %s: %w", w.resource, err)
		}
		if status.Code == http.StatusGone {
			status.Reason = metav1.StatusReasonExpired
		}
		return &apierrors.StatusError{ErrStatus: status}
	}
	var obj object
	if err := json.Unmarshal(data, &obj); err != nil {
		return fmt.Errorf("watch %s: %w", w.resource, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var err error
	switch kind {
	case "ADDED", "MODIFIED":
		err = w.sink.put(&obj)
	case "DELETED":
		err = w.sink.gone(&obj)
	}
	if at, parseErr := obj.Metadata.revision(); parseErr == nil {
		w.seen.note(at.Number) // a bookmark has nothing else to say
	}
	if err != nil {
		// One bad object does not stop the others.
		w.store.log.Warn("IPAM object left out", "resource", w.resource, "name", obj.Metadata.Name, "error", err)
	}
	return nil
}

// blockSink hands blocks to a Watcher.
type blockSink struct {
	o *objects[netip.Prefix, *ipam.Block]
	w ipam.Watcher
}

func (s blockSink) replace(items []object, list ipam.List) error {
	var blocks []*ipam.Block
	var at []ipam.Revision
	var errs []error
	for i := range items {
		b, rev, deleted, err := s.o.read(&items[i])
		if err != nil {
			errs = append(errs, fmt.Errorf("IPAMBlock %s: %w", items[i].Metadata.Name, err))
		} else if !deleted {
			blocks, at = append(blocks, b), append(at, rev)
		}
	}
	s.w.ReplaceBlocks(blocks, at, list)
	return errors.Join(errs...)
}

func (s blockSink) put(obj *object) error {
	b, rev, deleted, err := s.o.read(obj)
	switch {
	case err != nil:
		return err
	case deleted:
		s.w.BlockGone(b.CIDR(), rev)
	default:
		s.w.Block(b, rev)
	}
	return nil
}

func (s blockSink) gone(obj *object) error {
	b, rev, _, err := s.o.read(obj)
	if err == nil {
		s.w.BlockGone(b.CIDR(), rev)
	}
	return err
}

// affinitySink hands affinities to a Watcher.
type affinitySink struct {
	o    *objects[ipam.AffinityKey, ipam.Affinity]
	w    ipam.Watcher
	node model.NodeName
}

func (s affinitySink) replace(items []object, list ipam.List) error {
	var affinities []ipam.Affinity
	var at []ipam.Revision
	var errs []error
	for i := range items {
		a, rev, deleted, err := s.o.read(&items[i])
		if err != nil {
			errs = append(errs, fmt.Errorf("BlockAffinity %s: %w", items[i].Metadata.Name, err))
		} else if !deleted && a.Node == s.node {
			affinities, at = append(affinities, a), append(at, rev)
		}
	}
	s.w.ReplaceAffinities(affinities, at, list)
	return errors.Join(errs...)
}

func (s affinitySink) put(obj *object) error {
	a, rev, deleted, err := s.o.read(obj)
	switch {
	case err != nil:
		return err
	case a.Node != s.node:
	case deleted:
		s.w.AffinityGone(s.o.key(a), rev)
	default:
		s.w.Affinity(a, rev)
	}
	return nil
}

func (s affinitySink) gone(obj *object) error {
	a, rev, _, err := s.o.read(obj)
	if err == nil && a.Node == s.node {
		s.w.AffinityGone(s.o.key(a), rev)
	}
	return err
}
