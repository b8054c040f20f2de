package kind

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/fields"
)

// GroupVersion of every kind but Node and Pod.
const GroupVersion = "projectcalico.org/v3"

// Kind is one kind of object.
type Kind struct {
	Name     string   // "IPPool", as in an object's kind
	Plural   string   // "ippools", the resource in URLs
	Aliases  []string // what users call it, lower case; Name and Plural are understood too
	Core     bool     // lives in the core group, "v1"
	Of       string   // the resource that objects are made from; "": Plural
	ReadOnly bool     // written by Muslin only: create, apply and so on refuse it
	Single   bool     // there is one object, called default
	// Namespaced objects are named NAMESPACE/NAME, or NAME in the namespace of the
	// context.
	Namespaced bool
	Columns    []Column // -o ps
	Wide       []Column // -o wide; nil: as Columns
	Type       reflect.Type
}

// Path is the URL of all objects of the kind.
func (k *Kind) Path() string {
	if k.Core {
		return "/api/v1/" + k.resource()
	}
	return "/apis/" + GroupVersion + "/" + k.resource()
}

func (k *Kind) resource() string { return cmp.Or(k.Of, k.Plural) }

// PathIn is the URL of the objects of one namespace, of all if it is empty.
func (k *Kind) PathIn(namespace string) string {
	if !k.Namespaced || namespace == "" {
		return k.Path()
	}
	return strings.TrimSuffix(k.Path(), k.resource()) + "namespaces/" + namespace + "/" + k.resource()
}

// Refusal says why objects of a ReadOnly kind are not written.
func (k *Kind) Refusal() string {
	if k.Of != "" {
		return "is made from a " + strings.TrimSuffix(k.Of, "s") + ", which kubectl changes"
	}
	return "is written by Muslin's IPAM only; use muslinctl ipam"
}

// WithNamespaces is the kind with a column for the namespace.
func (k *Kind) WithNamespaces() *Kind {
	if !k.Namespaced {
		return k
	}
	out := *k
	out.Columns = slices.Concat([]Column{namespace}, k.Columns)
	out.Wide = slices.Concat([]Column{namespace}, k.WideColumns())
	return &out
}

// NameOf is an object's name, behind its namespace if it has one.
func (k *Kind) NameOf(o map[string]any) string {
	name := Text(o, "metadata.name", "")
	if ns := Text(o, "metadata.namespace", ""); k.Namespaced && ns != "" {
		return ns + "/" + name
	}
	return name
}

// Fields is the field selector of the objects with a name, which has no namespace
// before it. An endpoint's name may be Calico's or its pod's.
func (k *Kind) Fields(name string) string {
	if node, pod, ok := endpointOf(name); ok && k.Of != "" {
		return named(pod) + "," + fields.OneTermEqualSelector("spec.nodeName", node).String()
	}
	return named(name)
}

func named(name string) string { return fields.OneTermEqualSelector("metadata.name", name).String() }

// APIVersion is that of objects as users see and write them: Node too is shown
// as Calico's.
func (k *Kind) APIVersion() string { return GroupVersion }

// WideColumns are the columns of -o wide.
func (k *Kind) WideColumns() []Column {
	if k.Wide != nil {
		return k.Wide
	}
	return k.Columns
}

// All gives every kind in alphabetical order.
func All() []*Kind { return table }

// Names gives the plural of every kind, for completion.
func Names() []string {
	out := make([]string, len(table))
	for i, k := range table {
		out[i] = k.Plural
	}
	return out
}

// UnknownError says that a name is no kind, and what it may have meant.
type UnknownError struct{ Given, Hint string }

// Error is one line with what to do.
func (e *UnknownError) Error() string {
	return fmt.Sprintf("unknown kind %q: %s", e.Given, e.Hint)
}

// Find looks a kind up by any of its names, in any case.
func Find(name string) (*Kind, error) {
	low := strings.ToLower(name)
	for _, k := range table {
		if low == strings.ToLower(k.Name) || low == k.Plural || slices.Contains(k.Aliases, low) {
			return k, nil
		}
	}
	if what, ok := elsewhere[strings.TrimSuffix(low, "s")]; ok {
		return nil, &UnknownError{name, what}
	}
	if near := Nearest(low, known()); near != "" {
		return nil, &UnknownError{name, fmt.Sprintf("did you mean %s? (muslinctl get --help lists the kinds)", near)}
	}
	return nil, &UnknownError{name, "one of " + strings.Join(Names(), ", ")}
}

// MustFind is Find for names that are in the code.
func MustFind(name string) *Kind {
	k, err := Find(name)
	if err != nil {
		panic(err)
	}
	return k
}

func known() []string {
	var out []string
	for _, k := range table {
		out = append(out, strings.ToLower(k.Name), k.Plural)
		out = append(out, k.Aliases...)
	}
	return out
}

// elsewhere are Calico's kinds that Muslin has no use for.
var elsewhere = map[string]string{
	"profile": "profiles are namespaces and service accounts: kubectl get namespaces, kubectl get serviceaccounts -A",
	"pod":     "pods are kubectl's: kubectl get pods -o wide; muslinctl explain POD follows one through the network",
	"service": "services are kubectl's: kubectl get services",
}
