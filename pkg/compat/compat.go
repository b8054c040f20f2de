package compat

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// Reasons of the problems.
const (
	ReasonUnsupported = "Unsupported" // nothing that Muslin does depends on it
	ReasonElsewhere   = "NotHonoured" // it has an effect on the object of another name
)

const unknownField = "is no field that Muslin knows: it has no effect"

// IsUnknown reports whether a problem of Spec is a field that neither Calico nor
// Muslin has: misspelt, or of a later release.
func IsUnknown(p model.Problem) bool { return p.Message == unknownField }

// Field says what Muslin makes of a field, and of all below it that have no
// entry of their own.
type Field struct {
	// Effect: what Muslin does depends on it.
	Effect bool
	// Default: it has that effect in the object named default alone.
	Default bool
	// Same are the values that ask for what Muslin does anyway, as text.
	Same []string
	// Why says what to do instead, of a field without effect.
	Why string
}

// Kind is a kind of object that Calico's users have.
type Kind struct {
	Group string // API group; "" is the core group
	Name  string
	// Why is set for a kind of which no object has an effect.
	Why string
	// Fields are those below spec, by path without indices, as "export.cidr".
	Fields map[string]Field
	// Annotations are those with a meaning to Calico or Muslin. Why of one is
	// what to do instead; Effect: it is read.
	Annotations map[string]Field
}

// Find gives the entry of a kind; false: it is none that concerns a pod network.
func Find(group, kind string) (Kind, bool) {
	if group == "crd.projectcalico.org" || group == "operator.tigera.io" && kind == "IPPool" {
		group = calicoGroup
	}
	if group == calicoGroup && kind == "IPAMConfig" { // as the datastore calls it
		kind = "IPAMConfiguration"
	}
	i := slices.IndexFunc(kinds, func(k Kind) bool { return k.Group == group && k.Name == kind })
	if i < 0 {
		return Kind{}, false
	}
	return kinds[i], true
}

// Spec gives the fields of an object's spec, JSON, that have no effect; ref names
// the object. A spec that is no JSON, and a kind without an entry, have none.
func Spec(ref model.Ref, spec []byte) []model.Problem {
	k, ok := Find(calicoGroup, ref.Kind)
	var tree map[string]any
	if !ok || len(spec) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(spec))
	d.UseNumber()
	if d.Decode(&tree) != nil {
		return nil
	}
	return k.fieldsBelow(ref, "spec", tree)
}

// Object gives what of an object has no effect: the object, fields, annotations,
// keys of a CNI configuration in it. o is decoded JSON. ok is false for what is no
// matter of the network.
func Object(o map[string]any) (problems []model.Problem, ok bool) {
	version, _ := o["apiVersion"].(string)
	group, _, _ := strings.Cut(version, "/")
	if !strings.Contains(version, "/") {
		group = ""
	}
	name, _ := o["kind"].(string)
	meta, _ := o["metadata"].(map[string]any)
	ref := model.Ref{Kind: name}
	ref.Name, _ = meta["name"].(string)
	ref.Namespace, _ = meta["namespace"].(string)
	k, ok := Find(group, name)
	if !ok {
		if strings.HasSuffix(group, calicoGroup) || strings.HasSuffix(group, "tigera.io") {
			return []model.Problem{{Object: ref, Reason: ReasonUnsupported, Message: "is of a kind that Muslin does not know"}}, true
		}
		problems = within(ref, o)
		return problems, len(problems) > 0
	}
	if k.Why != "" {
		return []model.Problem{{Object: ref, Reason: ReasonUnsupported, Message: "no object of this kind has an effect in Muslin: " + k.Why}}, true
	}
	if k.Fields != nil {
		spec, _ := o["spec"].(map[string]any)
		problems = k.fieldsBelow(ref, "spec", spec)
	}
	problems = append(problems, k.annotations(ref, meta["annotations"])...)
	if spec, _ := o["spec"].(map[string]any); name == "Service" && spec["type"] == "LoadBalancer" {
		problems = append(problems, Others(ref, texts(meta["annotations"]))...)
	}
	return problems, true
}

// fieldsBelow walks what stands below root.
func (k Kind) fieldsBelow(ref model.Ref, root string, tree map[string]any) []model.Problem {
	var out []model.Problem
	var walk func(path, field string, v any)
	walk = func(path, field string, v any) {
		f, known := k.Fields[path]
		switch v := v.(type) {
		case nil:
			return
		case []any:
			if !known || k.below(path) || len(v) == 0 {
				for i, x := range v {
					walk(path, fmt.Sprintf("%s[%d]", field, i), x)
				}
				return
			}
		case map[string]any:
			if k.below(path) || len(v) == 0 {
				for _, name := range slices.Sorted(maps.Keys(v)) {
					walk(strings.TrimPrefix(path+"."+name, "."), field+"."+name, v[name])
				}
				return
			}
		}
		if reason, why := f.effectOf(ref.Name, v, known); why != "" {
			out = append(out, model.Problem{Object: ref, Field: field, Reason: reason, Message: why})
		}
	}
	walk("", root, tree)
	return out
}

// below reports whether fields below a path have entries; "" is the spec.
func (k Kind) below(path string) bool {
	if path == "" {
		return true
	}
	for p := range k.Fields {
		if strings.HasPrefix(p, path+".") {
			return true
		}
	}
	return false
}

// effectOf says why a value has no effect, nothing if it has one or needs none.
func (f Field) effectOf(object string, value any, known bool) (reason, why string) {
	text := fmt.Sprint(value)
	switch {
	case text == "": // not set
	case slices.ContainsFunc(f.Same, func(s string) bool { return strings.EqualFold(s, text) }):
	case !known:
		return ReasonUnsupported, unknownField
	case f.Default && object != "default":
		return ReasonElsewhere, "has no effect here; set it on the object named default"
	case !f.Effect:
		switch value.(type) {
		case []any, map[string]any:
			return ReasonUnsupported, "has no effect in Muslin: " + f.Why
		}
		return ReasonUnsupported, text + " has no effect in Muslin: " + f.Why
	}
	return "", ""
}

// annotations gives those of Calico's that have no effect on such an object.
func (k Kind) annotations(ref model.Ref, all any) []model.Problem {
	var out []model.Problem
	list := texts(all)
	for _, key := range slices.Sorted(maps.Keys(list)) {
		out = append(out, k.annotation(ref, key, list[key])...)
	}
	return out
}

// texts are annotations out of decoded JSON.
func texts(all any) map[string]string {
	list, _ := all.(map[string]any)
	out := make(map[string]string, len(list))
	for key, value := range list {
		out[key], _ = value.(string)
	}
	return out
}

// Annotations gives those that have no effect on an object of a kind.
func Annotations(group string, ref model.Ref, all map[string]string) []model.Problem {
	k, _ := Find(group, ref.Kind)
	var out []model.Problem
	for _, key := range slices.Sorted(maps.Keys(all)) {
		out = append(out, k.annotation(ref, key, all[key])...)
	}
	return out
}

func (k Kind) annotation(ref model.Ref, key, value string) []model.Problem {
	f, known := k.Annotations[key]
	domain, _, _ := strings.Cut(key, "/")
	switch {
	case known && f.Effect, value == "", slices.Contains(f.Same, value):
		return nil
	case !known && (!strings.HasSuffix(domain, calicoGroup) || bookkeeping[key]):
		return nil
	case !known && domain == "qos.projectcalico.org":
		f.Why = qos
	case !known:
		f.Why = "it is no annotation of this kind that Muslin knows"
	}
	return []model.Problem{{
		Object: ref, Field: "metadata.annotations[" + key + "]", Reason: ReasonUnsupported, Message: "has no effect in Muslin: " + f.Why,
	}}
}
