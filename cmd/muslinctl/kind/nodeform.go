package kind

import (
	"fmt"
	"strconv"
	"strings"
)

// CalicoNode shows a Kubernetes node as Calico does.
func CalicoNode(node map[string]any) map[string]any {
	meta := map[string]any{}
	for _, f := range []string{"name", "uid", "resourceVersion", "creationTimestamp", "labels"} {
		if v := At(node, "metadata."+f); v != nil {
			meta[f] = v
		}
	}
	spec := map[string]any{}
	annotations, _ := At(node, "metadata.annotations").(map[string]any)
	for _, a := range nodeAnnotations {
		text, _ := annotations[a.key].(string)
		if text == "" {
			continue
		}
		var value any = text
		if a.path == "bgp.asNumber" {
			if n, err := strconv.ParseUint(text, 10, 32); err == nil {
				value = int64(n)
			}
		}
		put(spec, a.path, value)
	}
	keep := map[string]any{}
	for k, v := range annotations {
		if strings.HasPrefix(k, "projectcalico.org/") && !isField(k) || strings.Contains(k, "muslin") {
			keep[k] = v
		}
	}
	if len(keep) > 0 {
		meta["annotations"] = keep
	}
	addresses(node, spec)
	spec["orchRefs"] = []any{map[string]any{"nodeName": meta["name"], "orchestrator": "k8s"}}
	return map[string]any{"apiVersion": GroupVersion, "kind": "Node", "metadata": meta, "spec": spec}
}

func addresses(node, spec map[string]any) {
	var out []any
	list, _ := At(node, "status.addresses").([]any)
	for _, x := range list {
		m, _ := x.(map[string]any)
		switch m["type"] {
		case "InternalIP", "ExternalIP":
			out = append(out, map[string]any{"address": m["address"], "type": m["type"]})
		}
	}
	if out != nil {
		spec["addresses"] = out
	}
}

func isField(key string) bool {
	for _, a := range nodeAnnotations {
		if a.key == key {
			return true
		}
	}
	return false
}

func put(spec map[string]any, path string, v any) {
	parent, leaf, nested := strings.Cut(path, ".")
	if !nested {
		spec[path] = v
		return
	}
	m, ok := spec[parent].(map[string]any)
	if !ok {
		m = map[string]any{}
		spec[parent] = m
	}
	m[leaf] = v
}

// NodePatch turns Calico's Node into a merge patch of the Kubernetes node. A
// whole patch removes the fields that the object does not have; addresses and
// orchRefs follow the Kubernetes node and are left out.
func NodePatch(obj map[string]any, whole bool) map[string]any {
	annotations := map[string]any{}
	spec, _ := obj["spec"].(map[string]any)
	for _, a := range nodeAnnotations {
		v := At(spec, a.path)
		switch {
		case v != nil:
			annotations[a.key] = fmt.Sprint(v)
		case whole || has(spec, a.path):
			annotations[a.key] = nil
		}
	}
	if extra, ok := At(obj, "metadata.annotations").(map[string]any); ok {
		for k, v := range extra {
			annotations[k] = v
		}
	}
	meta := map[string]any{"annotations": annotations}
	if labels, ok := At(obj, "metadata.labels").(map[string]any); ok {
		meta["labels"] = labels
	}
	if rv := Text(obj, "metadata.resourceVersion", ""); rv != "" {
		meta["resourceVersion"] = rv
	}
	return map[string]any{"metadata": meta}
}

// has reports whether the path is there, with whatever value.
func has(m map[string]any, path string) bool {
	parent, leaf, nested := strings.Cut(path, ".")
	if !nested {
		_, ok := m[path]
		return ok
	}
	sub, _ := m[parent].(map[string]any)
	_, ok := sub[leaf]
	return ok
}
