package compat

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// within looks into objects that are no matter of the network themselves: Calico's
// ConfigMaps, annotations of pods to come, Calico's programs.
func within(ref model.Ref, o map[string]any) []model.Problem {
	if ref.Kind == "ConfigMap" {
		data, _ := o["data"].(map[string]any)
		return configMap(ref, data)
	}
	var out []model.Problem
	for _, path := range [][]string{{"spec", "template"}, {"spec", "jobTemplate", "spec", "template"}} {
		template := at(o, path...)
		pod, _ := Find("", "Pod")
		for _, p := range pod.annotations(ref, at(template, "metadata")["annotations"]) {
			p.Field = strings.Join(path, ".") + "." + p.Field
			out = append(out, p)
		}
		out = append(out, programs(ref, strings.Join(path, ".")+".spec", at(template, "spec"))...)
	}
	return out
}

// configMap tells of CNI configurations anywhere, and of the keys of those that
// Calico's manifests have.
func configMap(ref model.Ref, data map[string]any) []model.Problem {
	var out []model.Problem
	for _, key := range slices.Sorted(maps.Keys(data)) {
		text, _ := data[key].(string)
		for _, p := range CNI(ref, []byte(text)) {
			p.Field = "data[" + key + "]: " + p.Field
			out = append(out, p)
		}
		f, known := configKeys[key]
		if !configMaps[ref.Name] || key == "cni_network_config" {
			continue
		}
		if reason, why := f.effectOf(ref.Name, text, known); why != "" {
			out = append(out, model.Problem{Object: ref, Field: "data[" + key + "]", Reason: reason, Message: why})
		}
	}
	return out
}

// programs tells of Calico's own, by their images, and of each variable of their
// environment.
func programs(ref model.Ref, path string, spec map[string]any) []model.Problem {
	var out []model.Problem
	for _, list := range []string{"initContainers", "containers"} {
		containers, _ := spec[list].([]any)
		for _, x := range containers {
			c, _ := x.(map[string]any)
			image, _ := c["image"].(string)
			if !strings.Contains(image, "calico/") && !strings.Contains(image, "tigera/") {
				continue
			}
			field := fmt.Sprintf("%s.%s[%v]", path, list, c["name"])
			out = append(out, model.Problem{Object: ref, Field: field + ".image", Reason: ReasonUnsupported,
				Message: image + " is Calico's own program: take it away when Muslin has its place"})
			env, _ := c["env"].([]any)
			out = append(out, environment(ref, field+".env", env)...)
		}
	}
	return out
}

// environment tells of the variables of a program of Calico's.
func environment(ref model.Ref, path string, env []any) []model.Problem {
	var out []model.Problem
	for _, x := range env {
		v, _ := x.(map[string]any)
		name, _ := v["name"].(string)
		value, has := v["value"].(string)
		from := at(v, "valueFrom", "configMapKeyRef")
		if source, _ := from["name"].(string); configMaps[source] {
			continue // it is told there
		}
		f := variable(name)
		if !has && !slices.Contains(f.Same, byReference) {
			value = "its value"
		}
		if reason, why := f.effectOf(ref.Name, value, true); why != "" {
			out = append(out, model.Problem{Object: ref, Field: fmt.Sprintf("%s[%s]", path, name), Reason: reason, Message: why})
		}
	}
	return out
}

// variable is the entry of a variable: Felix has one for each of its fields.
func variable(name string) Field {
	if f, ok := variables[name]; ok {
		return f
	}
	parameter, isFelix := strings.CutPrefix(name, "FELIX_")
	for field, f := range felix {
		if !isFelix || !strings.EqualFold(strings.Replace(parameter, "IPINIP", "IPIP", 1), field) {
			continue
		}
		if f.Effect {
			f = without("say " + field + " in FelixConfiguration default")
		}
		return f
	}
	for prefix, why := range variablePrefixes {
		if strings.HasPrefix(name, prefix) {
			return without(why)
		}
	}
	return without("it is no setting that Muslin knows")
}

// at follows keys into an object; nothing is there where one is missing.
func at(o map[string]any, path ...string) map[string]any {
	for _, key := range path {
		o, _ = o[key].(map[string]any)
	}
	return o
}
