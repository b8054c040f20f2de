package manifests

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
)

// Object is a decoded object of the API.
type Object = map[string]any

// Decode reads YAML documents, skipping empty ones.
func Decode(text []byte) ([]Object, error) {
	d := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	var out []Object
	for {
		var o Object
		if err := d.Decode(&o); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, fmt.Errorf("document %d: %w", len(out)+1, err)
		}
		if o != nil {
			out = append(out, o)
		}
	}
}

// Fields gives every value of objects by its place: "DaemonSet/muslin-agent
// spec.template.spec.volumes.run.hostPath.path". Elements of a list are named by their
// name if they have one, else by their index.
func Fields(objects []Object) map[string]string {
	out := map[string]string{}
	for _, o := range objects {
		meta, _ := o["metadata"].(map[string]any)
		flatten(fmt.Sprintf("%v/%v ", o["kind"], meta["name"]), o, out)
	}
	return out
}

func flatten(path string, v any, out map[string]string) {
	below := func(name string) string {
		if strings.HasSuffix(path, " ") {
			return path + name
		}
		return path + "." + name
	}
	switch v := v.(type) {
	case map[string]any:
		for name, x := range v {
			flatten(below(name), x, out)
		}
	case []any:
		for i, x := range v {
			name := strconv.Itoa(i)
			if m, ok := x.(map[string]any); ok && m["name"] != nil {
				name = fmt.Sprint(m["name"])
			}
			flatten(below(name), x, out)
		}
	default:
		out[path] = fmt.Sprint(v)
	}
}

// Differences gives the places at which two lists of objects have other values, or one
// of them none, sorted. What names an object that only one has is not listed apart.
func Differences(a, b []Object) []string {
	left, right := Fields(a), Fields(b)
	places := map[string]bool{}
	for _, pair := range [][2]map[string]string{{left, right}, {right, left}} {
		for place, value := range pair[0] {
			if other, there := pair[1][place]; !there || other != value {
				places[place] = true
			}
		}
	}
	return slices.DeleteFunc(slices.Sorted(maps.Keys(places)), func(place string) bool {
		_, field, _ := strings.Cut(place, " ")
		return slices.Contains([]string{"apiVersion", "kind", "metadata.name", "metadata.namespace"}, field)
	})
}
