package compat

import (
	"maps"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// within looks into objects that are no matter of the network themselves: CNI
// configurations of ConfigMaps, annotations of pods to come, Calico's programs.
func within(ref model.Ref, o map[string]any) []model.Problem {
	var out []model.Problem
	if ref.Kind == "ConfigMap" {
		data, _ := o["data"].(map[string]any)
		for _, key := range slices.Sorted(maps.Keys(data)) {
			text, _ := data[key].(string)
			for _, p := range CNI(ref, []byte(text)) {
				p.Field = "data[" + key + "]: " + p.Field
				out = append(out, p)
			}
		}
		return out
	}
	for _, path := range [][]string{{"spec", "template"}, {"spec", "jobTemplate", "spec", "template"}} {
		template := at(o, path...)
		pod, _ := Find("", "Pod")
		for _, p := range pod.annotations(ref, at(template, "metadata")["annotations"]) {
			p.Field = strings.Join(path, ".") + "." + p.Field
			out = append(out, p)
		}
		out = append(out, programs(ref, at(template, "spec"))...)
	}
	return out
}

// programs tells of Calico's own, by their images: nothing reads what they are
// told in environment and arguments.
func programs(ref model.Ref, spec map[string]any) []model.Problem {
	for _, list := range []string{"containers", "initContainers"} {
		containers, _ := spec[list].([]any)
		for _, x := range containers {
			c, _ := x.(map[string]any)
			image, _ := c["image"].(string)
			if strings.Contains(image, "calico/") || strings.Contains(image, "tigera/") {
				return []model.Problem{{Object: ref, Reason: ReasonUnsupported,
					Message: "runs " + image + ", Calico's own program: take it away when Muslin has its place. Muslin reads none of its environment; docs/configuration.md has the objects and annotations for it"}}
			}
		}
	}
	return nil
}

// at follows keys into an object; nothing is there where one is missing.
func at(o map[string]any, path ...string) map[string]any {
	for _, key := range path {
		o, _ = o[key].(map[string]any)
	}
	return o
}
