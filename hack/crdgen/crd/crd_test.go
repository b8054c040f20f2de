package crd_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/muslin-net/muslin/hack/crdgen/crd"
)

func TestMerge(t *testing.T) {
	type m = map[string]any
	for name, c := range map[string]struct{ base, over, want any }{
		"adds":            {m{"a": 1}, m{"b": 2}, m{"a": 1, "b": 2}},
		"replaces":        {m{"a": 1}, m{"a": 2}, m{"a": 2}},
		"goes down":       {m{"a": m{"b": 1, "c": 2}}, m{"a": m{"b": 3}}, m{"a": m{"b": 3, "c": 2}}},
		"null removes":    {m{"a": 1, "b": 2}, m{"a": nil}, m{"b": 2}},
		"makes the way":   {m{}, m{"a": m{"b": 1}}, m{"a": m{"b": 1}}},
		"lists replace":   {m{"a": []any{1}}, m{"a": []any{2}}, m{"a": []any{2}}},
		"CEL rules join":  {m{"x-kubernetes-validations": []any{1}}, m{"x-kubernetes-validations": []any{2}}, m{"x-kubernetes-validations": []any{1, 2}}},
		"nothing over it": {m{"a": 1}, m{}, m{"a": 1}},
	} {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(c.want, crd.Merge(c.base, c.over)); d != "" {
				t.Error(d)
			}
		})
	}
}

const generated = `---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: cats.crdgen.projectcalico.org, annotations: {tool: x}}
spec:
  group: crdgen.projectcalico.org
  names: {plural: cats}
  versions: [{name: v3, schema: {openAPIV3Schema: {properties: {spec: {properties: {name: {type: string}}}}}}}]
`

func TestBuild(t *testing.T) {
	overlay := fstest.MapFS{"cats.yaml": {Data: []byte("root: {x: 1}\nspec: {properties: {name: {maxLength: 9}}}\n")}}
	files, err := crd.Build([]byte(generated), overlay)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"name: cats.projectcalico.org", "group: projectcalico.org", "maxLength: 9", "x: 1", "type: string"} {
		if !strings.Contains(string(files["cats.yaml"]), want) {
			t.Errorf("no %q in\n%s", want, files["cats.yaml"])
		}
	}
	if !strings.Contains(string(files["kustomization.yaml"]), "- cats.yaml") {
		t.Errorf("kustomization:\n%s", files["kustomization.yaml"])
	}
	dir := t.TempDir()
	if err := crd.Write(dir, files); err != nil {
		t.Fatal(err)
	}
	if err := crd.Compare(dir, files); err != nil {
		t.Error(err)
	}
	files["cats.yaml"] = []byte("other")
	if err := crd.Compare(dir, files); err == nil || !strings.Contains(err.Error(), "cats.yaml is not current") {
		t.Errorf("got %v", err)
	}
}

func TestBadOverlays(t *testing.T) {
	for name, c := range map[string]struct{ file, text, want string }{
		"no such kind": {"dogs.yaml", "spec: {}", "dogs.yaml: no such kind"},
		"unknown key":  {"cats.yaml", "schema: {}", "unknown field"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := crd.Build([]byte(generated), fstest.MapFS{c.file: {Data: []byte(c.text)}})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
