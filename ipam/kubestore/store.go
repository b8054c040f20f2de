package kubestore

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

// callTimeout bounds one request but a watch.
const callTimeout = 10 * time.Second

// pageSize is how many objects one page of a long list holds.
const pageSize = 500

// Options of a Store.
type Options struct {
	Logger *slog.Logger // nil: no log
	// Node marks the handles that this store makes as that node's, by
	// AnnotationNode; empty: as nobody's.
	Node model.NodeName
}

// AnnotationNode of an IPAMHandle names the node whose agent made it, which is the
// only agent that may write it. Calico's handles have none.
const AnnotationNode = "muslin.io/node"

// Store implements ipam.Store. It is safe for concurrent use.
type Store struct {
	client     *rest.RESTClient
	log        *slog.Logger
	blocks     *objects[netip.Prefix, *ipam.Block]
	affinities *objects[ipam.AffinityKey, ipam.Affinity]
	handles    *objects[string, ipam.Handle]
}

var _ ipam.Store = (*Store)(nil)

// New makes a store over an API server. Requests are not limited in rate: the
// allocator makes few and shares them.
func New(cfg *rest.Config, opt Options) (*Store, error) {
	scheme := runtime.NewScheme()
	gv := schema.GroupVersion{Group: "projectcalico.org", Version: "v3"}
	metav1.AddToGroupVersion(scheme, gv)
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	c := rest.CopyConfig(cfg)
	c.GroupVersion, c.APIPath, c.QPS = &gv, "/apis", -1
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.ContentType, c.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	client, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("make client for IPAM objects: %w", err)
	}
	s := &Store{client: client, log: opt.Logger}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.blocks = &objects[netip.Prefix, *ipam.Block]{
		client: client, kind: "IPAMBlock", resource: "ipamblocks",
		name: ipam.BlockName, key: (*ipam.Block).CIDR, encode: encodeBlock, decode: decodeBlock,
	}
	watched := new(ipam.Observer)
	s.blocks.observe = func(b *ipam.Block) { watched.Observe(b, time.Now()) }
	s.blocks.note = func(b *ipam.Block) { watched.Note(b, time.Now()) }
	s.affinities = &objects[ipam.AffinityKey, ipam.Affinity]{
		client: client, kind: "BlockAffinity", resource: "blockaffinities",
		name:   func(k ipam.AffinityKey) string { return ipam.AffinityName(k.Node, k.CIDR) },
		key:    func(a ipam.Affinity) ipam.AffinityKey { return ipam.AffinityKey{Node: a.Node, CIDR: a.CIDR} },
		labels: ipam.AffinityLabels, encode: encodeAffinity, decode: decodeAffinity, unknown: ipam.UnknownKeys[affinitySpec],
	}
	s.handles = &objects[string, ipam.Handle]{
		client: client, kind: "IPAMHandle", resource: "ipamhandles",
		name: ipam.HandleName, key: func(h ipam.Handle) string { return h.ID }, encode: encodeHandle, decode: decodeHandle, unknown: ipam.UnknownKeys[handleSpec],
	}
	if opt.Node != "" {
		s.handles.annotations = map[string]string{AnnotationNode: string(opt.Node)}
	}
	return s, nil
}

// Blocks gives access to IPAMBlock objects.
func (s *Store) Blocks() ipam.Objects[netip.Prefix, *ipam.Block] { return s.blocks }

// Affinities gives access to BlockAffinity objects.
func (s *Store) Affinities() ipam.Objects[ipam.AffinityKey, ipam.Affinity] { return s.affinities }

// Handles gives access to IPAMHandle objects.
func (s *Store) Handles() ipam.Objects[string, ipam.Handle] { return s.handles }

// EachBlock reads all blocks in pages and visits those inside a prefix. Blocks
// that cannot be read are left out.
func (s *Store) EachBlock(ctx context.Context, within netip.Prefix, visit func(*ipam.Block, ipam.Revision) bool) error {
	next := ""
	for {
		page, err := s.page(ctx, next)
		if err != nil {
			return err
		}
		for i := range page.Items {
			b, rev, deleted, err := s.blocks.read(&page.Items[i])
			if err != nil || deleted || !within.Overlaps(b.CIDR()) {
				continue
			}
			if !visit(b, rev) {
				return nil
			}
		}
		if next = page.Metadata.Continue; next == "" {
			return nil
		}
	}
}

// BlocksOf lists the blocks of one affinity by the field that the CRD declares as
// selectable. One that cannot be read is an error: its addresses are not free.
func (s *Store) BlocksOf(ctx context.Context, affinity string) ([]*ipam.Block, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	data, err := raw(s.client.Get().Resource(s.blocks.resource).Param("fieldSelector", "spec.affinity="+affinity).Do(ctx))
	if err != nil {
		return nil, fmt.Errorf("list blocks of %s: %w", affinity, classify(err))
	}
	var page list
	if err := json.Unmarshal(data, &page); err != nil {
		return nil, fmt.Errorf("list blocks of %s: %w", affinity, err)
	}
	out := make([]*ipam.Block, 0, len(page.Items))
	for i := range page.Items {
		b, _, deleted, err := s.blocks.read(&page.Items[i])
		if err != nil {
			return nil, fmt.Errorf("read IPAMBlock %s: %w", page.Items[i].Metadata.Name, err)
		}
		if !deleted {
			out = append(out, b)
		}
	}
	return out, nil
}

// list is a list of objects.
type list struct {
	Metadata struct {
		ResourceVersion string `json:"resourceVersion"`
		Continue        string `json:"continue"`
	} `json:"metadata"`
	Items []object `json:"items"`
}

func (s *Store) page(ctx context.Context, next string) (*list, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req := s.client.Get().Resource(s.blocks.resource).Param("limit", strconv.Itoa(pageSize))
	if next != "" {
		req.Param("continue", next)
	}
	data, err := raw(req.Do(ctx))
	if err != nil {
		return nil, fmt.Errorf("list blocks: %w", err)
	}
	out := new(list)
	if err := json.Unmarshal(data, out); err != nil {
		return nil, fmt.Errorf("list blocks: %w", err)
	}
	return out, nil
}

// classify gives an API server's answer the sentinel that stands for it. An
// error that is left as it is means that the outcome is open.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsNotFound(err):
		return ipam.ErrNotFound
	case apierrors.IsConflict(err):
		return ipam.ErrConflict
	case apierrors.IsAlreadyExists(err):
		return ipam.ErrExists
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err), apierrors.IsBadRequest(err),
		apierrors.IsMethodNotSupported(err), apierrors.IsRequestEntityTooLargeError(err):
		return fmt.Errorf("%w: %w", ipam.ErrRefused, err)
	}
	return err
}

// raw is the answer's body, or what the server says went wrong.
func raw(r rest.Result) ([]byte, error) {
	if err := r.Error(); err != nil {
		return nil, err
	}
	return r.Raw()
}
