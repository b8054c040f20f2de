package ipam

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"
)

// Unknown are the keys of a JSON object that this release does not know, with
// their values as they came. Whoever reads an object and writes it again keeps
// them: a newer release, or Calico, has put them there.
type Unknown map[string]json.RawMessage

// UnknownKeys gives the keys of a JSON object that the struct T has no field for;
// nil when there are none, and for what is no object.
func UnknownKeys[T any](data []byte) Unknown {
	unknown, err := DecodeExact(data, new(T))
	if err != nil {
		return nil
	}
	return unknown
}

// DecodeExact reads a JSON object into a struct and gives the keys that it has no
// field for. As for the API server, a key is a field's only if it is spelt so:
// encoding/json alone would take one of other case for it.
func DecodeExact[T any](data []byte, into *T) (Unknown, error) {
	if isPlain(data, into) {
		return nil, nil
	}
	known, unknown, err := exactKeys[T](data)
	if err != nil {
		return nil, err
	}
	var exact T
	if err := json.Unmarshal(known, &exact); err != nil {
		return nil, err
	}
	*into = exact
	return unknown, nil
}

// exactKeys takes a JSON object apart into what the fields of the struct T are
// read from, and the rest.
func exactKeys[T any](data []byte) (known []byte, unknown Unknown, err error) {
	if err := json.Unmarshal(data, &unknown); err != nil {
		return nil, nil, err
	}
	fields := Unknown{}
	for _, name := range fieldNames(reflect.TypeFor[T]()) {
		if value, there := unknown[name]; there {
			fields[name] = value
			delete(unknown, name)
		}
	}
	if len(unknown) == 0 {
		unknown = nil
	}
	return fields.Add([]byte("{}")), unknown, nil
}

// isPlain reads what has no key but the fields' own, as nearly all has, and
// reports whether it could. What may hold one of other case, or a letter that
// folds to one of ASCII, is not plain.
func isPlain[T any](data []byte, into *T) bool {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if bytes.ContainsFunc(data, func(r rune) bool { return r == '\\' || r >= utf8.RuneSelf }) || d.Decode(into) != nil {
		return false
	}
	lower := bytes.ToLower(data)
	for _, name := range allFieldNames(reflect.TypeFor[T]()) {
		quoted := []byte(`"` + name + `"`)
		if bytes.Count(data, quoted) != bytes.Count(lower, bytes.ToLower(quoted)) {
			return false
		}
	}
	return true
}

// fieldNames are the keys of a struct's own fields.
func fieldNames(t reflect.Type) []string {
	var out []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		out = append(out, name)
	}
	return out
}

// allFieldNames are those of its fields that are lists of structs, too.
func allFieldNames(t reflect.Type) []string {
	out := fieldNames(t)
	for i := range t.NumField() {
		if f := t.Field(i).Type; f.Kind() == reflect.Slice && f.Elem().Kind() == reflect.Struct {
			out = append(out, allFieldNames(f.Elem())...)
		}
	}
	return out
}

// Add puts the keys into a JSON object, after its own.
func (u Unknown) Add(object []byte) []byte {
	out := slices.Clip(bytes.TrimSuffix(object, []byte("}")))
	for _, key := range slices.Sorted(maps.Keys(u)) {
		if len(out) > 1 {
			out = append(out, ',')
		}
		name, _ := json.Marshal(key) // a string always can be
		out = append(append(append(out, name...), ':'), u[key]...)
	}
	return append(out, '}')
}

func (u Unknown) equal(o Unknown) bool {
	return maps.EqualFunc(u, o, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) })
}
