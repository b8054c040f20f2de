package model

import (
	"fmt"
	"strconv"
	"strings"
)

// RouteProtocol is the rtnetlink protocol number (rtm_protocol) of every route
// Muslin writes. It is ours alone: a route that carries it was written by
// Muslin, a route without it is never touched. 109 is "m" in ASCII; the numbers
// that other daemons use (BIRD 12, Zebra 11, kube-router 17, Calico 80, FRR
// 186 to 197) are avoided.
const RouteProtocol = 109

// DefaultASN is the AS number of a cluster that does not say another one
// (Calico BGPConfiguration.spec.asNumber).
const DefaultASN ASN = 64512

// NodeName is the name of a Kubernetes node.
type NodeName string

// ASN is a four-byte autonomous system number (RFC 6793).
type ASN uint32

// String gives the number in asplain notation (RFC 5396).
func (a ASN) String() string { return strconv.FormatUint(uint64(a), 10) }

// ParseASN reads asplain ("64512") or asdot ("1.10") notation (RFC 5396).
// Zero is refused: it is reserved (RFC 7607).
func ParseASN(s string) (ASN, error) {
	hi, lo, dotted := strings.Cut(s, ".")
	var n uint64
	var err error
	if dotted {
		var h, l uint64
		if h, err = strconv.ParseUint(hi, 10, 16); err == nil {
			l, err = strconv.ParseUint(lo, 10, 16)
		}
		n = h<<16 | l
	} else {
		n, err = strconv.ParseUint(s, 10, 32)
	}
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not an AS number: want 1 to 4294967295, or asdot as in 1.10", s)
	}
	return ASN(n), nil
}

// Secret is a text that must not be printed: a BGP password. Every way of
// formatting it shows a placeholder; Reveal is the only way to the text.
type Secret struct{ text string }

// NewSecret wraps text.
func NewSecret(text string) Secret { return Secret{text: text} }

// Reveal returns the text itself, for the one call that hands it to the kernel.
func (s Secret) Reveal() string { return s.text }

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s.text == "" }

// Equal compares two secrets.
func (s Secret) Equal(o Secret) bool { return s.text == o.text }

// String redacts.
func (s Secret) String() string {
	if s.text == "" {
		return ""
	}
	return "<redacted>"
}

// GoString redacts.
func (s Secret) GoString() string { return s.String() }

// MarshalText redacts, so that no encoder leaks the text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText takes the text as it is: a secret that was marshalled comes back
// as its placeholder, set or not set as it was.
func (s *Secret) UnmarshalText(text []byte) error {
	s.text = string(text)
	return nil
}

// Selector decides by labels. A nil Selector in a model value matches
// everything, as `all()` does in Calico.
type Selector interface {
	Matches(labels map[string]string) bool
	String() string
}

// Ref names an API object in messages.
type Ref struct {
	Kind      string // "IPPool"
	Namespace string // empty for cluster-scoped kinds
	Name      string
}

// String gives "IPPool default" or "Pod ns/name".
func (r Ref) String() string {
	if r.Namespace != "" {
		return r.Kind + " " + r.Namespace + "/" + r.Name
	}
	return r.Kind + " " + r.Name
}

// Problem is something that could not be honoured: which object, which field,
// why. It stands beside a result and never replaces it.
type Problem struct {
	Object  Ref
	Field   string // JSON path, e.g. "spec.peerIP"; empty when the whole object is meant
	Reason  string // one CamelCase word, usable as a condition reason, e.g. "CIDROverlap"
	Message string // a sentence with what to do
}

// String gives one line: object, field, message.
func (p Problem) String() string {
	if p.Field == "" {
		return p.Object.String() + ": " + p.Message
	}
	return p.Object.String() + ": " + p.Field + ": " + p.Message
}

// HandlePrefix and a container ID make the IPAM handle of a pod (Calico:
// network name, dot, container ID).
const HandlePrefix = "k8s-pod-network."

// Texts gives the text of each of a list.
func Texts[T fmt.Stringer](list []T) []string {
	out := make([]string, len(list))
	for i, x := range list {
		out[i] = x.String()
	}
	return out
}

// Join gives the texts of a list with commas between them.
func Join[T fmt.Stringer](list []T) string { return strings.Join(Texts(list), ",") }
