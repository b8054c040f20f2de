package kubestore

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

const apiVersion = "projectcalico.org/v3"

// meta is what of an object's metadata goes from a read to a write.
type meta struct {
	Name            string            `json:"name"`
	UID             string            `json:"uid,omitempty"`
	ResourceVersion string            `json:"resourceVersion,omitempty"`
	Labels          map[string]string `json:"labels,omitempty"`
	Annotations     map[string]string `json:"annotations,omitempty"`
	Finalizers      []string          `json:"finalizers,omitempty"`
	OwnerReferences json.RawMessage   `json:"ownerReferences,omitempty"`

	unknown ipam.Unknown // keys of the spec
}

// revision makes the ipam.Revision of an object. Resource versions of one
// resource can be compared as numbers.
func (m *meta) revision() (ipam.Revision, error) {
	n, err := strconv.ParseUint(m.ResourceVersion, 10, 64)
	if err != nil {
		return ipam.Revision{}, fmt.Errorf("metadata.resourceVersion %q is not a number", m.ResourceVersion)
	}
	return ipam.Revision{Number: n, Meta: m}, nil
}

// object is one of the three kinds with its spec unread.
type object struct {
	Metadata meta            `json:"metadata"`
	Spec     json.RawMessage `json:"spec,omitempty"`
}

// outgoing is an object as it is written.
type outgoing struct {
	APIVersion string       `json:"apiVersion"`
	Kind       string       `json:"kind"`
	Metadata   outgoingMeta `json:"metadata"`
	Spec       any          `json:"spec"`
}

// outgoingMeta asks the server to keep no managed fields of the object: the
// list of one empty entry resets them, and an update leaves them so (Kubernetes,
// "Server-Side Apply", clearing managedFields). These objects have one writer
// and no apply, and the book-keeping costs the server a tenth of a write.
type outgoingMeta struct {
	meta
	ManagedFields [1]struct{} `json:"managedFields"`
}

// affinitySpec is the JSON of BlockAffinity.spec. deleted is a bool in v3.
type affinitySpec struct {
	State   string `json:"state"`
	Node    string `json:"node"`
	Type    string `json:"type,omitempty"`
	CIDR    string `json:"cidr"`
	Deleted bool   `json:"deleted,omitempty"`
}

func encodeAffinity(a ipam.Affinity, deleted bool) any {
	return affinitySpec{State: string(a.State), Node: string(a.Node), Type: a.Type, CIDR: a.CIDR.String(), Deleted: deleted}
}

func decodeAffinity(data []byte) (ipam.Affinity, bool, error) {
	var s affinitySpec
	if _, err := ipam.DecodeExact(data, &s); err != nil {
		return ipam.Affinity{}, false, err
	}
	cidr, err := netip.ParsePrefix(s.CIDR)
	if err != nil {
		return ipam.Affinity{}, false, fmt.Errorf("spec.cidr: %w", err)
	}
	a := ipam.Affinity{Node: model.NodeName(s.Node), CIDR: cidr, State: model.BlockState(s.State), Type: s.Type}
	if a.State == "" {
		a.State = model.BlockConfirmed // of old; Calico reads it so
	}
	if a.Type == "" {
		a.Type = "host"
	}
	return a, s.Deleted, nil
}

// handleSpec is the JSON of IPAMHandle.spec.
type handleSpec struct {
	HandleID string         `json:"handleID"`
	Block    map[string]int `json:"block"`
	Deleted  bool           `json:"deleted"`
}

func encodeHandle(h ipam.Handle, deleted bool) any {
	s := handleSpec{HandleID: h.ID, Block: make(map[string]int, len(h.Blocks)), Deleted: deleted}
	for cidr, n := range h.Blocks {
		s.Block[cidr.String()] = n
	}
	return s
}

func decodeHandle(data []byte) (ipam.Handle, bool, error) {
	var s handleSpec
	if _, err := ipam.DecodeExact(data, &s); err != nil {
		return ipam.Handle{}, false, err
	}
	h := ipam.Handle{ID: s.HandleID, Blocks: make(map[netip.Prefix]int, len(s.Block))}
	for text, n := range s.Block {
		cidr, err := netip.ParsePrefix(text)
		if err != nil {
			return ipam.Handle{}, false, fmt.Errorf("spec.block: %w", err)
		}
		h.Blocks[cidr] = n
	}
	return h, s.Deleted, nil
}

func encodeBlock(b *ipam.Block, deleted bool) any {
	if deleted {
		b = b.Clone()
		b.MarkDeleted()
	}
	return b
}

func decodeBlock(data []byte) (*ipam.Block, bool, error) {
	b := new(ipam.Block)
	if err := json.Unmarshal(data, b); err != nil {
		return nil, false, err
	}
	return b, b.Deleted(), nil
}
