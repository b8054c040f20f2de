package bgp

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
)

// Annotations of BGPPeer and BGPConfiguration objects, for what Calico's API
// has no field for. A value that cannot be read is a problem and leaves the
// default in force.
const (
	// AnnotationHoldTime is the hold time of a BGPPeer, or with a
	// BGPConfiguration "default" that of the mesh: a duration of 3 s to
	// 65535 s ("9s", "3m"), RFC 4271 section 4.2. Default 90 s.
	AnnotationHoldTime = "muslin.io/hold-time"
	// AnnotationBFD turns BFD on for a BGPPeer, or for the mesh: the transmit
	// and receive interval, 10 ms to 60 s ("300ms").
	AnnotationBFD = "muslin.io/bfd"
	// AnnotationBFDMultiplier is how many packets may be missed, 1 to 255.
	// Default 3.
	AnnotationBFDMultiplier = "muslin.io/bfd-multiplier"
	// AnnotationPrefixLimit is how many prefixes a family a BGPPeer, or with a
	// BGPConfiguration "default" each node of the mesh, may announce before its
	// session is closed: 1 to 2^31-1. Default: 100,000, and 10,000 of pods.
	AnnotationPrefixLimit = "muslin.io/prefix-limit"
	// AnnotationFamilies is what a BGPPeer's session carries: "ipv4", "ipv6"
	// or "ipv4,ipv6".
	AnnotationFamilies = "muslin.io/families"
	// AnnotationReExport says which nodes' prefixes an external BGPPeer is
	// reported of beside this node's own: "Orphans" (default), those of nodes
	// that have no external peer themselves; "All", every node's, as Calico.
	AnnotationReExport = "muslin.io/re-export"
	// AnnotationSource is the address that a BGPPeer's session is opened from: an
	// address of the node, or a prefix ("10.255.0.0/24"), of which each node takes the
	// lowest that it has. Default: the node's address.
	AnnotationSource = "muslin.io/source-address"
	// AnnotationConnectRetry is how long is waited between two tries to connect
	// to a BGPPeer, 1 s to 65535 s (RFC 4271 section 8.2.1.3). Default 2 s.
	AnnotationConnectRetry = "muslin.io/connect-retry"
	// AnnotationConnect with the value "Passive" waits for the peer to connect;
	// "Both" (default) connects too.
	AnnotationConnect = "muslin.io/connect"
	// AnnotationMultihop is the TTL of what is sent to an external BGPPeer, 1 to
	// 255: 1 lets no router stand between. Default 255.
	AnnotationMultihop = "muslin.io/multihop-ttl"
	// AnnotationGracefulRestart with the value "Off" does not offer graceful
	// restart (RFC 4724) to a BGPPeer. Default "On".
	AnnotationGracefulRestart = "muslin.io/graceful-restart"
	// AnnotationMaxPaths is how many next hops a learned prefix may have, 1
	// to 64, on a BGPConfiguration. Default 16.
	AnnotationMaxPaths = "muslin.io/max-paths"

	// AnnotationCordoned on the BGPConfiguration "default" says what becomes of service
	// addresses on a node that is cordoned (spec.unschedulable): "Announce" (default), or
	// "LastResort", announced with GRACEFUL_SHUTDOWN (RFC 8326).
	AnnotationCordoned = "muslin.io/cordoned-nodes"

	annotationPrefix = "muslin.io/"
)

var (
	peerAnnotations = []string{
		AnnotationHoldTime, AnnotationBFD, AnnotationBFDMultiplier,
		AnnotationPrefixLimit, AnnotationFamilies, AnnotationReExport,
		AnnotationSource, AnnotationConnectRetry, AnnotationConnect, AnnotationMultihop, AnnotationGracefulRestart,
	}
	configAnnotations = []string{
		AnnotationHoldTime, AnnotationBFD, AnnotationBFDMultiplier,
		AnnotationPrefixLimit, AnnotationMaxPaths, AnnotationOriginCheck, AnnotationCordoned,
	}
)

// annotationsOfAddresses are read by package nodeaddr, before anything gets here.
var annotationsOfAddresses = []string{"muslin.io/ip-autodetection-method", "muslin.io/ip6-autodetection-method"}

// Misread tells which annotations of BGPPeers, and of the BGPConfiguration "default", no
// node can read, whatever its addresses. It is sorted; DesiredOn tells the same of one node.
func Misread(snap model.Snapshot) []model.Problem {
	b := &builder{snap: snap, anywhere: true}
	for _, o := range snap.Peers {
		external := Peer{LocalASN: 1, ASN: 2, Address: o.PeerIP} // which each annotation may be about
		b.annotations(o, &external)
		b.reExportAll(o)
	}
	for _, c := range snap.BGP {
		if b.defaults = c; c.Name == "default" {
			b.maxPaths()
			b.timers(model.Ref{Kind: "BGPConfiguration", Name: "default"}, c.Annotations, &Peer{})
			b.word(model.Ref{Kind: "BGPConfiguration", Name: "default"}, c.Annotations, AnnotationCordoned, "Announce", "LastResort")
		}
	}
	slices.SortFunc(b.problems, compareProblems)
	return b.problems
}

// annotations applies those of a BGPPeer to its session.
func (b *builder) annotations(o model.BGPPeer, p *Peer) {
	ref := peerRef(o)
	b.unknownAnnotations(ref, o.Annotations, peerAnnotations)
	b.timers(ref, o.Annotations, p)
	if v, ok := o.Annotations[AnnotationFamilies]; ok {
		b.families(ref, v, p)
	}
	b.connection(ref, o, p)
}

// connection applies what says how a session comes to be.
func (b *builder) connection(ref model.Ref, o model.BGPPeer, p *Peer) {
	a := o.Annotations
	if v, ok := a[AnnotationSource]; ok {
		b.source(ref, v, p)
	}
	if d, ok := b.duration(ref, a, AnnotationConnectRetry, time.Second, 65535*time.Second); ok {
		p.ConnectRetry = d.Round(time.Second)
	}
	if v, ok := b.word(ref, a, AnnotationConnect, "Both", "Passive"); ok {
		p.Passive = p.Passive || v == "Passive"
	}
	if v, ok := b.word(ref, a, AnnotationGracefulRestart, "On", "Off"); ok {
		p.NoRestart = v == "Off"
	}
	n, ok := b.number(ref, a, AnnotationMultihop, 255)
	switch {
	case !ok:
	case !p.External() || o.TTLSecurity > 0:
		b.problem(ref, annotationField(AnnotationMultihop), "InvalidAnnotation", "it is ignored: it is for external peers, and spec.ttlSecurity sends with a TTL of 255")
	default:
		p.Multihop = n
	}
}

// source finds the node's address that a session is opened from.
func (b *builder) source(ref model.Ref, v string, p *Peer) {
	within, err := netip.ParsePrefix(v)
	if a, addrErr := netip.ParseAddr(v); addrErr == nil {
		within, err = host(a), nil
	}
	switch {
	case err != nil:
		b.badAnnotation(ref, AnnotationSource, v, "want an address of the node or a prefix that holds one")
		return
	case p.Address.IsValid() && model.FamilyOf(within.Addr()) != model.FamilyOf(p.Address):
		b.badAnnotation(ref, AnnotationSource, v, "the peer's address is of the other family")
		return
	}
	if b.anywhere {
		return
	}
	for _, a := range b.addrs {
		if within.Contains(a) {
			p.LocalAddress = a
			return
		}
	}
	b.badAnnotation(ref, AnnotationSource, v, "this node has no such address")
}

// word reads an annotation that is one of some words.
func (b *builder) word(ref model.Ref, a map[string]string, key string, words ...string) (string, bool) {
	v, ok := a[key]
	if ok && !slices.Contains(words, v) {
		b.badAnnotation(ref, key, v, "want "+strings.Join(words, " or "))
		return "", false
	}
	return v, ok
}

// timers reads those annotations, also the prefix limit, that a BGPPeer and the mesh share.
func (b *builder) timers(ref model.Ref, a map[string]string, p *Peer) {
	if d, ok := b.duration(ref, a, AnnotationHoldTime, 3*time.Second, 65535*time.Second); ok {
		p.HoldTime = d.Round(time.Second)
		p.Keepalive = p.HoldTime / 3
	}
	if n, ok := b.number(ref, a, AnnotationPrefixLimit, 1<<31-1); ok {
		p.PrefixLimit = n
	}
	d, ok := b.duration(ref, a, AnnotationBFD, 10*time.Millisecond, time.Minute)
	if !ok {
		return
	}
	p.BFD = &BFD{Interval: d, Multiplier: 3}
	if n, ok := b.number(ref, a, AnnotationBFDMultiplier, 255); ok {
		p.BFD.Multiplier = n
	}
}

// familyNamed are the families by their names in text form and annotations.
var familyNamed = map[string]model.Family{"ipv4": model.IPv4, "ipv6": model.IPv6}

func (b *builder) families(ref model.Ref, v string, p *Peer) {
	var fs []model.Family
	for w := range strings.SplitSeq(v, ",") {
		f, ok := familyNamed[strings.TrimSpace(w)]
		if !ok {
			b.badAnnotation(ref, AnnotationFamilies, v, "want ipv4, ipv6 or ipv4,ipv6")
			return
		}
		if !b.anywhere && !b.node.Address(f).IsValid() {
			b.badAnnotation(ref, AnnotationFamilies, v, "this node has no "+f.String()+" address")
			return
		}
		if !slices.Contains(fs, f) {
			fs = append(fs, f)
		}
	}
	p.Families = fs
}

func (b *builder) reExportAll(o model.BGPPeer) bool {
	switch v, ok := o.Annotations[AnnotationReExport]; {
	case !ok || v == "Orphans":
		return false
	case v == "All":
		return true
	default:
		b.badAnnotation(peerRef(o), AnnotationReExport, v, "want Orphans or All")
		return false
	}
}

// maxPaths reads the annotations of the BGPConfiguration and gives the number of
// next hops.
func (b *builder) maxPaths() int {
	ref := model.Ref{Kind: "BGPConfiguration", Name: "default"}
	b.unknownAnnotations(ref, b.defaults.Annotations, append(slices.Clip(configAnnotations), annotationsOfAddresses...))
	switch v, ok := b.defaults.Annotations[AnnotationOriginCheck]; OriginMode(v) {
	case OriginOff, OriginWarn, OriginEnforce:
	default:
		if ok {
			b.badAnnotation(ref, AnnotationOriginCheck, v, "want Off, Warn or Enforce")
		}
	}
	if n, ok := b.number(ref, b.defaults.Annotations, AnnotationMaxPaths, 64); ok {
		return n
	}
	return DefaultMaxPaths
}

func (b *builder) duration(ref model.Ref, a map[string]string, key string, least, most time.Duration) (time.Duration, bool) {
	v, ok := a[key]
	if !ok {
		return 0, false
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < least || d > most {
		b.badAnnotation(ref, key, v, "want a duration of "+least.String()+" to "+most.String())
		return 0, false
	}
	return d, true
}

// number reads a number from 1 to most.
func (b *builder) number(ref model.Ref, a map[string]string, key string, most int) (int, bool) {
	v, ok := a[key]
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > most {
		b.badAnnotation(ref, key, v, "want a number of 1 to "+strconv.Itoa(most))
		return 0, false
	}
	return n, true
}

func (b *builder) badAnnotation(ref model.Ref, key, value, want string) {
	b.problem(ref, annotationField(key), "InvalidAnnotation", "%q is not understood and is ignored: %s", value, want)
}

func (b *builder) unknownAnnotations(ref model.Ref, a map[string]string, known []string) {
	for k := range a {
		if strings.HasPrefix(k, annotationPrefix) && !slices.Contains(known, k) {
			b.problem(ref, annotationField(k), "UnknownAnnotation", "no such annotation of a %s; known are %s", ref.Kind, strings.Join(known, ", "))
		}
	}
}

func annotationField(key string) string { return "metadata.annotations[" + key + "]" }
