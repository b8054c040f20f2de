package kube

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/compat"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/selector"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reasons of problems found while an object is read.
const (
	reasonInvalid     = "InvalidValue"
	reasonUnknownName = "UnknownName"
)

// reader collects the problems of one object while its fields are read. A
// field that does not parse is reported and read as zero.
type reader struct {
	object   model.Ref
	problems []model.Problem
	failed   bool
}

func newReader(kind string, meta *metav1.ObjectMeta) *reader {
	return &reader{object: model.Ref{Kind: kind, Name: meta.Name}}
}

// fail reports a field that makes the object unusable.
func (r *reader) fail(field, format string, args ...any) {
	r.failed = true
	r.warn(field, format, args...)
}

// warn reports a field without which the object can still be used.
func (r *reader) warn(field, format string, args ...any) {
	r.problems = append(r.problems, model.Problem{
		Object: r.object, Field: field, Reason: reasonInvalid, Message: fmt.Sprintf(format, args...),
	})
}

func finish[T any](r *reader, value T) reading[T] {
	return reading[T]{value: value, ok: !r.failed, problems: r.problems}
}

// spec decodes the object's spec; what does not fit the type fails the object,
// and what has no effect is told.
func (r *reader) spec(o *object, into any) {
	if len(o.Spec) == 0 {
		return
	}
	r.problems = append(r.problems, compat.Spec(r.object, o.Spec)...)
	if err := json.Unmarshal(o.Spec, into); err != nil {
		r.fail("spec", "cannot be read: %v", err)
	}
}

// selector parses text; empty text is a nil selector.
func (r *reader) selector(field, text string) model.Selector {
	if text == "" {
		return nil
	}
	s, err := selector.Parse(text)
	if err != nil {
		r.fail(field, "%q is not a selector: %v", text, err)
		return nil
	}
	return s
}

func (r *reader) prefix(field, text string) netip.Prefix {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		r.fail(field, "%q is not a CIDR, as in 10.244.0.0/16", text)
		return netip.Prefix{}
	}
	return p.Masked()
}

func (r *reader) addr(field, text string) netip.Addr {
	if text == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		r.fail(field, "%q is not an IP address", text)
		return netip.Addr{}
	}
	return a.Unmap()
}

// addrPort reads "ip", "ipv4:port" or "[ipv6]:port"; port 0 means none was given.
func (r *reader) addrPort(field, text string) (netip.Addr, int) {
	if text == "" {
		return netip.Addr{}, 0
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return a.Unmap(), 0
	}
	ap, err := netip.ParseAddrPort(text)
	if err != nil || ap.Port() == 0 {
		r.fail(field, "%q is not an address, optionally with a port, as in 192.0.2.1:179 or [2001:db8::1]:179", text)
		return netip.Addr{}, 0
	}
	return ap.Addr().Unmap(), int(ap.Port())
}

// oneOf checks that text is empty or one of the allowed words, and gives the
// first of them when it is empty.
func oneOf[T, Text ~string](r *reader, field string, text Text, allowed ...T) T {
	if text == "" {
		return allowed[0]
	}
	if !slices.Contains(allowed, T(text)) {
		words := make([]string, len(allowed))
		for i, a := range allowed {
			words[i] = string(a)
		}
		r.fail(field, "%q is not one of %s", text, strings.Join(words, ", "))
		return allowed[0]
	}
	return T(text)
}

// anyCase is oneOf for words whose case does not matter.
func anyCase[T ~string](r *reader, field, text string, allowed ...T) T {
	for _, word := range allowed {
		if strings.EqualFold(string(word), text) {
			text = string(word)
		}
	}
	return oneOf(r, field, text, allowed...)
}

// ours keeps the annotations that Calico and Muslin give a meaning to.
func ours(annotations map[string]string) map[string]string {
	var out map[string]string
	for k, v := range annotations {
		domain, _, _ := strings.Cut(k, "/")
		if strings.HasSuffix(domain, "projectcalico.org") || strings.Contains(domain, "muslin") {
			if out == nil {
				out = map[string]string{}
			}
			out[k] = v
		}
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
