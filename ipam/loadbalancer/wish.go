package loadbalancer

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// Annotations of a Service. The first three are Calico's, JSON lists of texts.
const (
	AnnotationIPv4Pools = "projectcalico.org/ipv4pools"       // names of IPPools, or their prefixes
	AnnotationIPv6Pools = "projectcalico.org/ipv6pools"       // the same
	AnnotationAddrs     = "projectcalico.org/loadBalancerIPs" // at most one of each family
	// AnnotationShare names a key: Services of one namespace that have the same one
	// may have the same address.
	AnnotationShare = "muslin.io/shared-ip-key"

	annotationPrefix = "muslin.io/"
)

// The values of spec.loadBalancerClass that are served here. Calico's is there for
// manifests that were written for it.
const (
	Class       = "muslin.io/load-balancer"
	ClassCalico = "calico"
)

// Reasons of problems that are none of ipam's codes.
const (
	reasonInvalid   = "InvalidValue"
	reasonConflict  = "ConflictingRequests"
	reasonPoolGone  = "PoolGone"
	reasonElsewhere = "ServedElsewhere"
	reasonUnknown   = "UnknownAnnotation"
	// reasonNotHonoured is that of an annotation on a Service that gets no address here.
	reasonNotHonoured = "NotHonoured"
	// reasonNotShared is that of a key by which nothing is shared.
	reasonNotShared = "NotShared"
)

// Handle is the handle of a Service's addresses, as Calico makes it: "lb-" and the
// base64 of a SHA-256 without its signs.
func Handle(s *model.BalancedService) string {
	sum := sha256.Sum256([]byte(strings.ToLower(s.Name + "-" + s.Namespace + "-" + s.UID)))
	return "lb-" + strings.NewReplacer("-", "", "_", "").Replace(base64.RawURLEncoding.EncodeToString(sum[:]))
}

// asks reports whether a Service names what it wants by Calico's annotations.
func asks(s *model.BalancedService) bool {
	return s.Annotations[AnnotationIPv4Pools] != "" || s.Annotations[AnnotationIPv6Pools] != "" || s.Annotations[AnnotationAddrs] != ""
}

// ours reports whether a Service gets its addresses here.
func ours(s *model.BalancedService, onlyRequested bool) bool {
	switch {
	case !s.LoadBalancer:
		return false
	case s.Class != "":
		return s.Class == Class || s.Class == ClassCalico
	}
	return !onlyRequested || asks(s)
}

// notOurs says why a Service gets no address here.
func notOurs(s *model.BalancedService) string {
	switch {
	case !s.LoadBalancer:
		return "spec.type is not LoadBalancer"
	case s.Class != "":
		return "spec.loadBalancerClass " + s.Class + " is another's"
	}
	return "KubeControllersConfiguration default has assignIPs RequestedServicesOnly, and the Service names no pool, address or class"
}

// misplaced tells of the annotations of a Service that gets no address here: they ask
// for something about one.
func misplaced(s *model.BalancedService, why string) []model.Problem {
	var out []model.Problem
	for _, key := range slices.Sorted(maps.Keys(s.Annotations)) {
		switch {
		case strings.HasPrefix(key, annotationPrefix), key == AnnotationIPv4Pools, key == AnnotationIPv6Pools, key == AnnotationAddrs:
			out = append(out, model.Problem{Object: s.Ref(), Field: annotation(key), Reason: reasonNotHonoured, Message: "has no effect: " + why})
		}
	}
	return out
}

// wish is what a Service asks for.
type wish struct {
	*model.BalancedService
	handle string
	key    string // of sharing; empty: it shares with nobody
	exact  map[model.Family]requested
	pools  map[model.Family]pooled
	unread bool // it cannot be told what it asks for: it keeps what it has
	named  bool // by class or annotation: it wants its address from here

	has map[model.Family]netip.Addr // what it gets
}

// requested is an address and the field that asks for it.
type requested struct {
	addr  netip.Addr
	field string
}

// pooled are pools and the field that asks for them.
type pooled struct {
	names []string
	field string
}

// families are those of the Service; of them, if it names addresses, as Calico has it
// those of the addresses.
func (w *wish) families() []model.Family {
	var out []model.Family
	for _, f := range model.Families {
		_, named := w.exact[f]
		if model.OfFamily(f, w.IPv4, w.IPv6) && (len(w.exact) == 0 || named || w.unread) {
			out = append(out, f)
		}
	}
	return out
}

func annotation(name string) string { return "metadata.annotations[" + name + "]" }

// read makes a wish of what a Service says, and tells what of it makes no sense.
func read(s *model.BalancedService) (*wish, []model.Problem) {
	w := &wish{
		BalancedService: s, handle: Handle(s), key: s.Annotations[AnnotationShare], named: s.Class != "" || asks(s),
		exact: map[model.Family]requested{}, pools: map[model.Family]pooled{}, has: map[model.Family]netip.Addr{},
	}
	var out []model.Problem
	note := func(field, reason, format string, args ...any) {
		out = append(out, model.Problem{Object: s.Ref(), Field: field, Reason: reason, Message: fmt.Sprintf(format, args...)})
	}
	tell := func(field, reason, format string, args ...any) {
		w.unread = true
		note(field, reason, format, args...)
	}
	for f, name := range map[model.Family]string{model.IPv4: AnnotationIPv4Pools, model.IPv6: AnnotationIPv6Pools} {
		if list := readList(s, name, tell); len(list) > 0 {
			w.pools[f] = pooled{list, annotation(name)}
			if !w.Optional && !model.OfFamily(f, w.IPv4, w.IPv6) {
				note(annotation(name), reasonConflict, "has no effect: spec.ipFamilies has no %s", f)
			}
		}
	}
	for key := range s.Annotations {
		if strings.HasPrefix(key, annotationPrefix) && key != AnnotationShare {
			note(annotation(key), reasonUnknown, "no such annotation of a Service; known is %s", AnnotationShare)
		}
	}
	for _, text := range readList(s, AnnotationAddrs, tell) {
		w.ask(text, annotation(AnnotationAddrs), tell)
	}
	if s.Wanted != "" {
		w.ask(s.Wanted, "spec.loadBalancerIP", tell)
	}
	slices.SortStableFunc(out, func(a, b model.Problem) int { return strings.Compare(a.Field, b.Field) })
	return w, out
}

type builder func(field, reason, format string, args ...any)

func readList(s *model.BalancedService, name string, tell builder) []string {
	text := s.Annotations[name]
	if text == "" {
		return nil
	}
	var list []string
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		tell(annotation(name), reasonInvalid, `%q is not a JSON list of texts, as in ["a"]`, text)
	}
	return list
}

// ask notes an address that is asked for by name.
func (w *wish) ask(text, field string, tell builder) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		tell(field, reasonInvalid, "%q is not an IP address", text)
		return
	}
	a = a.Unmap()
	f := model.FamilyOf(a)
	before, twice := w.exact[f]
	switch {
	case twice && before.addr != a && before.field == field:
		tell(field, reasonConflict, "%s and %s are both %s: a Service has one address of a family", before.addr, a, f)
	case twice && before.addr != a:
		tell(field, reasonConflict, "%s is asked for, and %s by %s: name one of them", a, before.addr, before.field)
	case !model.OfFamily(f, w.IPv4, w.IPv6):
		tell(field, reasonConflict, "%s is asked for, and spec.ipFamilies has no %s", a, f)
	case !twice:
		w.exact[f] = requested{a, field}
	}
}
