package kind

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// FieldError is a field that an object's kind does not have, or a value that
// does not fit it.
type FieldError struct {
	Object string // "IPPool default"
	Field  string // "spec.natOutgoin"
	Hint   string
}

// Error is one line with what to do.
func (e *FieldError) Error() string { return e.Object + ": " + e.Field + ": " + e.Hint }

// Check compares an object with its kind's fields: every field must exist and
// hold a value of its type. The errors are joined, in order of the fields.
func (k *Kind) Check(obj map[string]any) error {
	object := k.Name + " " + Text(obj, "metadata.name", "(no name)")
	var errs []error
	for _, f := range sorted(obj) {
		switch f {
		case "apiVersion", "kind", "status":
		case "metadata", "spec":
			errs = append(errs, walk(object, f, obj[f], fieldOf(k.Type, f)))
		default:
			errs = append(errs, &FieldError{object, f, "unknown field" + maybe(f, []string{"apiVersion", "kind", "metadata", "spec", "status"})})
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return k.decode(object, obj)
}

// decode has the JSON library judge the values.
func (k *Kind) decode(object string, obj map[string]any) error {
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{}, "spec": obj["spec"]})
	if err != nil {
		return fmt.Errorf("%s: %w", object, err)
	}
	err = json.Unmarshal(data, reflect.New(k.Type).Interface())
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return &FieldError{object, jsonPath(wrong.Field), fmt.Sprintf("holds a %s where a %s belongs", wrong.Value, plain(wrong.Type))}
	}
	if err != nil {
		return &FieldError{object, "spec", err.Error()}
	}
	return nil
}

// jsonPath drops the names of embedded Go structs, which JSON does not have.
func jsonPath(path string) string {
	parts := slices.DeleteFunc(strings.Split(path, "."), func(p string) bool { return p != "" && p[0] >= 'A' && p[0] <= 'Z' })
	return strings.Join(parts, ".")
}

func plain(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Slice, reflect.Array:
		return "list"
	case reflect.Struct, reflect.Map:
		return "mapping"
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	}
	return "number"
}

// walk descends into v beside the type that holds it.
func walk(object, path string, v any, t reflect.Type) error {
	t = strip(t)
	if t == nil || leaf(t) {
		return nil
	}
	var errs []error
	switch v := v.(type) {
	case map[string]any:
		if t.Kind() == reflect.Map {
			for _, f := range sorted(v) {
				errs = append(errs, walk(object, path+"."+f, v[f], t.Elem()))
			}
			return errors.Join(errs...)
		}
		if t.Kind() != reflect.Struct {
			return nil
		}
		names := fieldNames(t)
		for _, f := range sorted(v) {
			next := fieldOf(t, f)
			if next == nil {
				errs = append(errs, &FieldError{object, path + "." + f, "unknown field" + maybe(f, names)})
				continue
			}
			errs = append(errs, walk(object, path+"."+f, v[f], next))
		}
	case []any:
		if t.Kind() != reflect.Slice {
			return nil
		}
		for i, x := range v {
			errs = append(errs, walk(object, fmt.Sprintf("%s[%d]", path, i), x, t.Elem()))
		}
	}
	return errors.Join(errs...)
}

func maybe(f string, names []string) string {
	// Fields differ mostly in case, or in a letter.
	for _, n := range names {
		if strings.EqualFold(n, f) {
			return "; did you mean " + n + "?"
		}
	}
	if near := Nearest(f, names); near != "" {
		return "; did you mean " + near + "?"
	}
	return "; one of " + strings.Join(names, ", ")
}

// leaf types read their JSON themselves.
func leaf(t reflect.Type) bool {
	u := reflect.TypeFor[json.Unmarshaler]()
	return t.Implements(u) || reflect.PointerTo(t).Implements(u)
}

func strip(t reflect.Type) reflect.Type {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// fieldOf finds the type of a JSON field, looking into embedded structs.
func fieldOf(t reflect.Type, name string) reflect.Type {
	var found reflect.Type
	eachField(t, func(n string, ft reflect.Type) {
		if n == name {
			found = ft
		}
	})
	return found
}

func fieldNames(t reflect.Type) []string {
	var out []string
	eachField(t, func(n string, _ reflect.Type) { out = append(out, n) })
	slices.Sort(out)
	return slices.Compact(out)
}

func eachField(t reflect.Type, visit func(string, reflect.Type)) {
	t = strip(t)
	if t == nil || t.Kind() != reflect.Struct {
		return
	}
	for i := range t.NumField() {
		f := t.Field(i)
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case tag == "-" || !f.IsExported():
		case f.Anonymous && tag == "" || strings.Contains(options, "inline"):
			eachField(f.Type, visit)
		default:
			visit(cmp.Or(tag, f.Name), f.Type)
		}
	}
}

func sorted(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }
