package kubestore

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
)

// nameWindow is how many names NamesFrom reads. In a pool of which one block in
// a hundred is free that shows two or three.
const nameWindow = 250

// BlockCIDRs lists the blocks' metadata out of the API server's cache; the
// names hold the prefixes.
func (s *Store) BlockCIDRs(ctx context.Context, within netip.Prefix) ([]netip.Prefix, error) {
	list, err := s.names(ctx, func(r *rest.Request) { r.Param("resourceVersion", "0") })
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for i := range list.Items {
		if cidr, ok := prefixOf(list.Items[i].Name); ok && within.Overlaps(cidr) {
			out = append(out, cidr)
		}
	}
	return out, nil
}

// NamesFrom reads a page of names that begins where it is told to. The API has
// no such parameter; what it has is the token to continue a list with, which
// says nothing but where to. A server that does not take ours refuses it, and
// the allocator lists all names instead.
func (s *Store) NamesFrom(ctx context.Context, from string) (names []string, more bool, err error) {
	token, err := continueAt(from)
	if err != nil {
		return nil, false, err
	}
	list, err := s.names(ctx, func(r *rest.Request) {
		r.Param("limit", strconv.Itoa(nameWindow)).Param("continue", token)
	})
	if err != nil {
		return nil, false, err
	}
	names = make([]string, len(list.Items))
	for i := range list.Items {
		names[i] = list.Items[i].Name
		if names[i] < from {
			return nil, false, fmt.Errorf("list names of blocks from %s: the server began at %s", from, names[i])
		}
	}
	return names, list.Continue != "", nil
}

// continueAt makes the token of a list that goes on at a name, with what is
// newest there (storage.EncodeContinue of k8s.io/apiserver, at revision -1).
func continueAt(name string) (string, error) {
	token, err := json.Marshal(struct {
		Version  string `json:"v"`
		Revision int64  `json:"rv"`
		Start    string `json:"start"`
	}{"meta.k8s.io/v1", -1, name})
	return base64.RawURLEncoding.EncodeToString(token), err
}

// names lists the blocks' metadata, in protobuf, which is quicker to read than
// JSON.
func (s *Store) names(ctx context.Context, ask func(*rest.Request)) (*metav1.PartialObjectMetadataList, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req := s.client.Get().Resource(s.blocks.resource).
		SetHeader("Accept", "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")
	ask(req)
	data, err := raw(req.Do(ctx))
	if err != nil {
		return nil, fmt.Errorf("list names of blocks: %w", classify(err))
	}
	list, err := readMetadataList(data)
	if err != nil {
		return nil, fmt.Errorf("list names of blocks: %w", err)
	}
	return list, nil
}

// readMetadataList takes a list out of Kubernetes' protobuf envelope.
func readMetadataList(data []byte) (*metav1.PartialObjectMetadataList, error) {
	const magic = "k8s\x00"
	var envelope runtime.Unknown
	if !strings.HasPrefix(string(data[:min(len(data), len(magic))]), magic) {
		return nil, errors.New("the answer is not protobuf")
	}
	if err := envelope.Unmarshal(data[len(magic):]); err != nil {
		return nil, err
	}
	list := new(metav1.PartialObjectMetadataList)
	return list, list.Unmarshal(envelope.Raw)
}

// prefixOf undoes ipam.BlockName.
func prefixOf(name string) (netip.Prefix, bool) {
	i := strings.LastIndexByte(name, '-')
	if i < 0 {
		return netip.Prefix{}, false
	}
	bits, err := strconv.Atoi(name[i+1:])
	if err != nil {
		return netip.Prefix{}, false
	}
	sep := ":"
	if strings.Count(name[:i], "-") == 3 && !strings.Contains(name, "--") {
		sep = "."
	}
	addr, err := netip.ParseAddr(strings.ReplaceAll(name[:i], "-", sep))
	if err != nil {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(addr, bits), true
}
