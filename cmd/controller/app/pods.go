package app

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"sync"
	"unique"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
)

// podFacts is what decides whether a pod has an address.
type podFacts struct {
	node     string
	ips      []netip.Addr // none: it has no network yet
	asks     []netip.Addr // annotation ipAddrs
	host     bool         // hostNetwork: it has no address of a pool
	finished bool
}

// podEntry is what is kept of a pod of any node: about 250 bytes with its place
// in the index. It stands for the pod in a reflector, which asks it for its name.
type podEntry struct {
	*metav1.ObjectMeta        // noMeta, shared by all
	key                string // namespace/name
	slash              int
	node               unique.Handle[string]
	ips, asks          []netip.Addr
	host, finished     bool
}

// noMeta answers what a reflector asks beside the name.
var noMeta = &metav1.ObjectMeta{}

func (e *podEntry) GetNamespace() string { return e.key[:e.slash] }
func (e *podEntry) GetName() string      { return e.key[e.slash+1:] }

// slim makes an entry of a pod. It is the transformation that runs before a pod
// is stored anywhere: an initial list never holds whole pods.
func slim(obj any) (any, error) {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return obj, nil
	}
	f := factsOf(p)
	return &podEntry{
		ObjectMeta: noMeta, key: p.Namespace + "/" + p.Name, slash: len(p.Namespace), node: unique.Make(f.node),
		ips: f.ips, asks: f.asks, host: f.host, finished: f.finished,
	}, nil
}

// podIndex is the store behind the reflector of pods.
type podIndex struct {
	mu     sync.RWMutex
	rows   map[string]*podEntry
	having map[netip.Addr]int32            // how many pods that have not finished have the address
	bound  map[unique.Handle[string]]int32 // by node: how many of them are no hostNetwork pods
	synced chan struct{}
	once   sync.Once
}

var _ cache.TransformingStore = (*podIndex)(nil)

func newPodIndex() *podIndex {
	x := &podIndex{synced: make(chan struct{})}
	x.fill(nil)
	return x
}

// fill replaces everything. Callers hold mu, or nobody else knows of x yet.
func (x *podIndex) fill(rows map[string]*podEntry) {
	x.rows = make(map[string]*podEntry, len(rows))
	x.having, x.bound = make(map[netip.Addr]int32, len(rows)), map[unique.Handle[string]]int32{}
	for key, e := range rows {
		x.put(key, e)
	}
}

// put replaces the entry of a key, with none when e is nil. Callers hold mu.
func (x *podIndex) put(key string, e *podEntry) {
	if old := x.rows[key]; old != nil {
		x.count(old, -1)
		delete(x.rows, key)
	}
	if e != nil {
		x.count(e, 1)
		x.rows[key] = e
	}
}

func (x *podIndex) count(e *podEntry, by int32) {
	if e.finished {
		return
	}
	for _, ip := range e.ips {
		add(x.having, ip, by)
	}
	if !e.host {
		add(x.bound, e.node, by)
	}
}

func add[K comparable](m map[K]int32, key K, by int32) {
	if m[key] += by; m[key] == 0 {
		delete(m, key)
	}
}

func (x *podIndex) Transformer() cache.TransformFunc { return slim }

func (x *podIndex) Resync() error { return nil }

func (x *podIndex) Add(obj any) error { return x.Update(obj) }

func (x *podIndex) Update(obj any) error {
	e, err := entryOf(obj)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.put(e.key, e)
	return nil
}

func (x *podIndex) Delete(obj any) error {
	key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.put(key, nil)
	return nil
}

func (x *podIndex) Replace(list []any, _ string) error {
	rows := make(map[string]*podEntry, len(list))
	for _, obj := range list {
		e, err := entryOf(obj)
		if err != nil {
			return err
		}
		rows[e.key] = e
	}
	x.mu.Lock()
	x.fill(rows)
	x.mu.Unlock()
	x.once.Do(func() { close(x.synced) })
	return nil
}

func entryOf(obj any) (*podEntry, error) {
	slimmed, err := slim(obj)
	if err != nil {
		return nil, err
	}
	e, ok := slimmed.(*podEntry)
	if !ok {
		return nil, fmt.Errorf("%T is not a pod", obj)
	}
	return e, nil
}

// get gives a pod as it was last heard of.
func (x *podIndex) get(namespace, name string) (podFacts, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e, ok := x.rows[namespace+"/"+name]
	if !ok {
		return podFacts{}, false
	}
	return podFacts{node: e.node.Value(), ips: e.ips, asks: e.asks, host: e.host, finished: e.finished}, true
}

// has reports whether a pod of any node that has not finished has the address.
func (x *podIndex) has(a netip.Addr) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.having[a] > 0
}

// on reports whether a pod is bound to the node that has not finished and may
// have an address of a pool.
func (x *podIndex) on(node model.NodeName) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.bound[unique.Make(string(node))] > 0
}

func (x *podIndex) ready() bool {
	select {
	case <-x.synced:
		return true
	default:
		return false
	}
}

// annotationAddrs is Calico's: a JSON list of the addresses a pod asks for.
const annotationAddrs = "cni.projectcalico.org/ipAddrs"

// requested keeps of a pod's annotations the one that is read here.
func requested(p *corev1.Pod) map[string]string {
	if text, ok := p.Annotations[annotationAddrs]; ok {
		return map[string]string{annotationAddrs: text}
	}
	return nil
}

// watchPods keeps the index until ctx ends. A server that streams lists sends
// pods one by one; of others they are read in pages.
func (o *Objects) watchPods(ctx context.Context) {
	lw := &cache.ListWatch{ListWithContextFunc: o.listPods, WatchFuncWithContext: o.followPods}
	r := cache.NewReflectorWithOptions(lw, &corev1.Pod{}, o.pods, cache.ReflectorOptions{
		Name: "pods of all nodes", TypeDescription: "pods",
		Backoff: kube.Backoff(),
	})
	r.RunWithContext(ctx)
}

func (o *Objects) followPods(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
	opts.Watch = true
	return kube.Watch(ctx, o.client.Get().Resource("pods").VersionedParams(&opts, metav1.ParameterCodec))
}

// listPods reads page by page and keeps of each pod what slim reads.
func (o *Objects) listPods(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
	out := &corev1.PodList{}
	next := ""
	for {
		var page corev1.PodList
		req := o.client.Get().Resource("pods").Param("limit", strconv.Itoa(pageSize))
		if next != "" {
			req.Param("continue", next)
		}
		if err := req.Do(ctx).Into(&page); err != nil {
			return nil, err
		}
		for i := range page.Items {
			p := &page.Items[i]
			out.Items = append(out.Items, corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, ResourceVersion: p.ResourceVersion, Annotations: requested(p)},
				Spec:       corev1.PodSpec{NodeName: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork},
				Status:     corev1.PodStatus{Phase: p.Status.Phase, PodIPs: p.Status.PodIPs},
			})
		}
		out.ResourceVersion = page.ResourceVersion
		if next = page.Continue; next == "" {
			return out, nil
		}
	}
}
