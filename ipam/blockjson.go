package ipam

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// blockSpec is the JSON of IPAMBlock.spec, field by field as Calico has it.
type blockSpec struct {
	CIDR           string            `json:"cidr"`
	Affinity       *string           `json:"affinity,omitempty"`
	ClaimTime      string            `json:"affinityClaimTime,omitempty"`
	Allocations    slotList          `json:"allocations"`
	Unallocated    []int             `json:"unallocated"`
	Attributes     []attributeSpec   `json:"attributes"`
	Sequence       uint64            `json:"sequenceNumber"`
	SlotSequence   map[string]uint64 `json:"sequenceNumberForAllocation"`
	Deleted        bool              `json:"deleted"`
	StrictAffinity bool              `json:"strictAffinity"`
}

type attributeSpec struct {
	Handle     *string           `json:"handle_id,omitempty"`
	Owner      map[string]string `json:"secondary,omitempty"`
	Alternate  map[string]string `json:"alternateOwnerAttrs,omitempty"`
	ReleasedAt string            `json:"releasedAt,omitempty"`
}

// slotList is an array of numbers and nulls; null is written for free.
type slotList []int16

// MarshalJSON writes the array.
func (l slotList) MarshalJSON() ([]byte, error) {
	out := make([]byte, 0, 2+5*len(l))
	out = append(out, '[')
	for i, s := range l {
		if i > 0 {
			out = append(out, ',')
		}
		if s == free {
			out = append(out, "null"...)
		} else {
			out = strconv.AppendInt(out, int64(s), 10)
		}
	}
	return append(out, ']'), nil
}

// UnmarshalJSON reads the array.
func (l *slotList) UnmarshalJSON(data []byte) error {
	var list []*int16
	if err := json.Unmarshal(data, &list); err != nil {
		return err
	}
	*l = make(slotList, len(list))
	for i, p := range list {
		(*l)[i] = free
		if p == nil {
			continue
		}
		if *p < 0 {
			return fmt.Errorf("entry %d is %d; want null or an index into attributes", i, *p)
		}
		(*l)[i] = *p
	}
	return nil
}

// MarshalJSON gives the block as IPAMBlock.spec.
func (b *Block) MarshalJSON() ([]byte, error) {
	s := blockSpec{
		CIDR:         b.cidr.String(),
		Allocations:  b.slots,
		Unallocated:  make([]int, len(b.unused)),
		Attributes:   make([]attributeSpec, len(b.attrs)),
		Sequence:     b.seq,
		SlotSequence: map[string]uint64{},
		Deleted:      b.deleted,
		ClaimTime:    formatTime(b.claimed),
	}
	if b.affinity != "" {
		s.Affinity = &b.affinity
	}
	for i, o := range b.unused {
		s.Unallocated[i] = int(o)
	}
	for i, a := range b.attrs {
		s.Attributes[i] = attributeSpec{Owner: a.Owner, Alternate: a.Alternate, ReleasedAt: formatTime(a.ReleasedAt)}
		if a.Handle != "" {
			s.Attributes[i].Handle = &a.Handle
		}
	}
	for o, seq := range b.slotSeq {
		if seq != 0 && b.slots[o] != free {
			s.SlotSequence[strconv.Itoa(o)] = seq
		}
	}
	out, err := b.withUnknown(s)
	if err != nil || len(b.unknown) == 0 {
		return out, err
	}
	return b.unknown.Add(out), nil
}

// withUnknown writes the spec with what the attributes have of other keys.
func (b *Block) withUnknown(s blockSpec) ([]byte, error) {
	if !slices.ContainsFunc(b.attrs, func(a Attribute) bool { return len(a.Unknown) > 0 }) {
		return json.Marshal(s)
	}
	kept := struct {
		blockSpec
		Attributes []json.RawMessage `json:"attributes"`
	}{blockSpec: s}
	for i, a := range b.attrs {
		text, err := json.Marshal(s.Attributes[i])
		if err != nil {
			return nil, err
		}
		kept.Attributes = append(kept.Attributes, a.Unknown.Add(text))
	}
	return json.Marshal(kept)
}

// keptSpec is a spec that has keys which are not known.
type keptSpec struct {
	blockSpec
	Attributes []keptAttribute `json:"attributes"`
}

type keptAttribute struct {
	attributeSpec
	unknown Unknown
}

// UnmarshalJSON reads the attribute and keeps what is not known.
func (a *keptAttribute) UnmarshalJSON(data []byte) (err error) {
	a.unknown, err = DecodeExact(data, &a.attributeSpec)
	return err
}

// UnmarshalJSON reads IPAMBlock.spec. It refuses what cannot be worked with at
// all: a bad prefix, a wrong number of entries, an index outside its array.
// What is merely wrong is left for Validate to tell and for the next write to
// mend.
func (b *Block) UnmarshalJSON(data []byte) error {
	var s blockSpec
	if isPlain(data, &s) { // as nearly all are
		return b.read(s)
	}
	known, unknown, err := exactKeys[blockSpec](data)
	if err != nil {
		return fmt.Errorf("block: %w", err)
	}
	var kept keptSpec
	if err := json.Unmarshal(known, &kept); err != nil {
		return fmt.Errorf("block: %w", err)
	}
	s = kept.blockSpec
	s.Attributes = nil
	for _, a := range kept.Attributes {
		s.Attributes = append(s.Attributes, a.attributeSpec)
	}
	if err := b.read(s); err != nil {
		return err
	}
	b.unknown = unknown
	for i, a := range kept.Attributes {
		b.attrs[i].Unknown = a.unknown
	}
	return nil
}

// read takes a spec over, and leaves the block as it was when it cannot.
func (b *Block) read(s blockSpec) error {
	out := Block{seq: s.Sequence, deleted: s.Deleted, slots: s.Allocations}
	var err error
	if out.cidr, err = netip.ParsePrefix(s.CIDR); err != nil {
		return fmt.Errorf("block: spec.cidr: %w", err)
	}
	n, err := blockSize(out.cidr)
	if err != nil {
		return err
	}
	if s.Affinity != nil {
		out.affinity = *s.Affinity
	}
	if err := errors.Join(
		out.readTimes(s),
		out.readSlots(s, n),
	); err != nil {
		return fmt.Errorf("block %s: %w", out.cidr, err)
	}
	*b = out
	return nil
}

func (b *Block) readTimes(s blockSpec) (err error) {
	if b.claimed, err = parseTime(s.ClaimTime); err != nil {
		return fmt.Errorf("spec.affinityClaimTime: %w", err)
	}
	b.attrs = make([]Attribute, len(s.Attributes))
	for i, a := range s.Attributes {
		b.attrs[i] = Attribute{Owner: a.Owner, Alternate: a.Alternate}
		if a.Handle != nil {
			b.attrs[i].Handle = *a.Handle
		}
		if b.attrs[i].ReleasedAt, err = parseTime(a.ReleasedAt); err != nil {
			return fmt.Errorf("spec.attributes[%d].releasedAt: %w", i, err)
		}
	}
	return nil
}

func (b *Block) readSlots(s blockSpec, n int) error {
	if len(s.Allocations) != n {
		return fmt.Errorf("spec.allocations has %d entries; want %d", len(s.Allocations), n)
	}
	for o, slot := range s.Allocations {
		if int(slot) >= len(s.Attributes) {
			return fmt.Errorf("spec.allocations[%d] is %d, but there are %d attributes", o, slot, len(s.Attributes))
		}
	}
	b.unused = make([]uint16, len(s.Unallocated))
	for i, o := range s.Unallocated {
		if o < 0 || o >= n {
			return fmt.Errorf("spec.unallocated[%d] is %d; want 0 to %d", i, o, n-1)
		}
		b.unused[i] = uint16(o)
	}
	b.slotSeq = make([]uint64, n)
	for key, seq := range s.SlotSequence {
		if o, err := strconv.Atoi(key); err == nil && o >= 0 && o < n && b.slots[o] != free {
			b.slotSeq[o] = seq
		}
	}
	return nil
}

// formatTime writes a time as metav1.Time does: RFC 3339 in UTC, whole seconds.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func parseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	return t.UTC(), err
}
