package ipam

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Unknown are the keys of a JSON object that this release does not know, with
// their values as they came. Whoever reads an object and writes it again keeps
// them: a newer release, or Calico, has put them there.
type Unknown map[string]json.RawMessage

// UnknownKeys gives the keys of a JSON object that the struct T has no field for;
// nil when there are none, and for what is no object.
func UnknownKeys[T any](data []byte) Unknown {
	if decodeStrictly(data, new(T)) == nil {
		return nil
	}
	var all Unknown
	if json.Unmarshal(data, &all) != nil {
		return nil
	}
	t := reflect.TypeFor[T]()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		delete(all, name)
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

// decodeStrictly fails for a key that there is no field for.
func decodeStrictly(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(into)
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
