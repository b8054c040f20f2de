package world

import (
	"maps"
	"strings"
	"time"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
)

// of gives the changes that concern a list.
func of(path string, changes []api.Object) []api.Object {
	var out []api.Object
	for _, c := range changes {
		if k, err := kind.Find(kind.Text(c, "kind", "")); err == nil && strings.HasSuffix(path, k.Path()) {
			out = append(out, c)
		}
	}
	return out
}

// lay puts changes into a list, over the objects of the same names. A change is an
// object or, of a Node, a merge patch of its metadata.
func lay(list []api.Object, changes []api.Object) []api.Object {
	for _, c := range changes {
		name, found := kind.Text(c, "metadata.name", ""), false
		for i, have := range list {
			if kind.Text(have, "metadata.name", "") != name {
				continue
			}
			found = true
			if patch, ok := c["patch"].(api.Object); ok {
				list[i] = patched(have, patch)
			} else {
				list[i] = replaced(have, c)
			}
		}
		if !found && c["patch"] == nil {
			list = append(list, api.Object{"apiVersion": kind.GroupVersion, "kind": c["kind"], "spec": c["spec"],
				"metadata": api.Object{"name": name, "uid": "preview-" + name, "resourceVersion": "1",
					"annotations": kind.At(c, "metadata.annotations"), "creationTimestamp": time.Now().UTC().Format(time.RFC3339)}})
		}
	}
	return list
}

// replaced is an object with the spec of another and, if that has any, its
// annotations.
func replaced(have, by api.Object) api.Object {
	out := maps.Clone(have)
	out["spec"] = by["spec"]
	if a := kind.At(by, "metadata.annotations"); a != nil {
		meta, _ := have["metadata"].(api.Object)
		meta = maps.Clone(meta)
		meta["annotations"], out["metadata"] = a, meta
	}
	return out
}

// patched does a merge patch of the metadata (RFC 7386, two levels).
func patched(have, patch api.Object) api.Object {
	out := maps.Clone(have)
	meta, _ := have["metadata"].(api.Object)
	meta = maps.Clone(meta)
	out["metadata"] = meta
	change, _ := patch["metadata"].(api.Object)
	for field, v := range change {
		with, ok := v.(api.Object)
		if !ok {
			continue // resourceVersion
		}
		old, _ := meta[field].(api.Object)
		into := api.Object{}
		maps.Copy(into, old)
		for k, x := range with {
			if x == nil {
				delete(into, k)
			} else {
				into[k] = x
			}
		}
		meta[field] = into
	}
	return out
}
