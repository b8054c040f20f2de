package seed

import (
	"strings"
	"testing"
)

func pool(name, spec string) string {
	return "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: " + name + "}\nspec: " + spec + "\n"
}

// One document in each key but for the first; what is refused is named, and stops
// none of the others.
func TestRead(t *testing.T) {
	for name, c := range map[string]struct {
		data    map[string]string
		objects string // their names, in order
		refused []string
		pool    bool // a refused one may be a pool
	}{
		"nothing":        {nil, "", nil, false},
		"empty document": {map[string]string{"a": "---\n# nothing\n---\n", "b": ""}, "", nil, false},
		"in order":       {map[string]string{"b": pool("three", "{}"), "a": pool("one", "{}") + "---\n" + pool("two", "{}")}, "one two three", nil, false},
		"JSON":           {map[string]string{"a": `{"apiVersion":"projectcalico.org/v3","kind":"IPPool","metadata":{"name":"one"},"spec":{}}`}, "one", nil, false},
		"not YAML": {
			map[string]string{"a": pool("one", "{cidr: [") + "---\n" + pool("two", "{}")}, "two",
			[]string{"a: not YAML: "}, true,
		},
		"a key twice":   {map[string]string{"a": pool("one", "{cidr: 10.0.0.0/8, cidr: 10.1.0.0/16}")}, "", []string{`a: not YAML: `}, true},
		"no object":     {map[string]string{"a": "- 1"}, "", []string{"a: is no object"}, true},
		"no name":       {map[string]string{"a": strings.Replace(pool("x", "{}"), "name", "generateName", 1)}, "", []string{"metadata.name: is missing"}, true},
		"name a number": {map[string]string{"a": pool("7", "{}")}, "", []string{"metadata.name: is missing, or no text"}, true},
		"no kind":       {map[string]string{"a": "apiVersion: projectcalico.org/v3\nmetadata: {name: x}"}, "", []string{`kind: "" is not seeded; want one of BGPConfiguration, BGPFilter`}, true},
		"other version": {map[string]string{"a": strings.Replace(pool("x", "{}"), "projectcalico.org/v3", "v1", 1)}, "", []string{`IPPool x (a): apiVersion: "v1" is not seeded; want projectcalico.org/v3`}, true},
		"unknown kind":  {map[string]string{"a": pool("one", "{}"), "b": strings.Replace(pool("x", "{}"), "IPPool", "IPPol", 1)}, "one", []string{`IPPol x (b): kind: "IPPol" is not seeded`}, true},
		"IPAM's own":    {map[string]string{"a": strings.Replace(pool("x", "{}"), "IPPool", "IPAMBlock", 1)}, "", []string{`kind: "IPAMBlock" is not seeded`}, true},
		"top level":     {map[string]string{"a": pool("x", "{}") + "sepc: {}\n"}, "", []string{"IPPool x (a): sepc: is no field"}, true},
		"status":        {map[string]string{"a": pool("x", "{}") + "status: {}\n"}, "", []string{"IPPool x (a): status: is no field"}, true},
		"metadata":      {map[string]string{"a": pool("x, uid: u", "{}")}, "", []string{"IPPool x (a): metadata.uid: is no field"}, true},
		"namespace":     {map[string]string{"a": pool("x, namespace: kube-system", "{}")}, "", []string{"IPPool x (a): metadata.namespace: is no field"}, true},
		"twice": {
			map[string]string{"a": pool("x", "{}"), "b": pool("x", "{disabled: true}")}, "x",
			[]string{"IPPool x (b): is in a already"}, true,
		},
		"a field that the server would keep": {
			map[string]string{"a": strings.Replace(pool("default", "{vxlanPortt: 1, ipipMTU: 1400}"), "IPPool", "FelixConfiguration", 1)}, "",
			[]string{"FelixConfiguration default (a): unknown field spec.vxlanPortt"}, false,
		},
		"a field without effect is no fault": {map[string]string{"a": strings.Replace(pool("default", "{bpfEnabled: true}"), "IPPool", "FelixConfiguration", 1)}, "default", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			objects, refused := Read(c.data)
			var names []string
			for _, o := range objects {
				names = append(names, o.Name)
			}
			if got := strings.Join(names, " "); got != c.objects {
				t.Errorf("objects %q, want %q", got, c.objects)
			}
			if len(refused) != len(c.refused) {
				t.Fatalf("refused %v, want %q", refused, c.refused)
			}
			for i, r := range refused {
				if !strings.Contains(r.Message, c.refused[i]) || r.Pool != c.pool {
					t.Errorf("refused %+v, want %q, pool %v", r, c.refused[i], c.pool)
				}
			}
		})
	}
}

// The hash is of what is said, not of how.
func TestHash(t *testing.T) {
	hash := func(text string) string {
		objects, refused := Read(map[string]string{"a": text})
		if len(objects) != 1 {
			t.Fatalf("%q: %v, refused %v", text, objects, refused)
		}
		return objects[0].Hash
	}
	first := hash(pool("x", "{cidr: 10.0.0.0/8, blockSize: 26}"))
	if other := hash("# a comment\nkind: IPPool\nspec:\n  blockSize:   26\n  cidr: \"10.0.0.0/8\"\nmetadata:\n  name: x\napiVersion: projectcalico.org/v3\n"); other != first {
		t.Errorf("the same object written otherwise has hash %s, was %s", other, first)
	}
	if other := hash(pool("x", "{cidr: 10.0.0.0/8, blockSize: 27}")); other == first {
		t.Error("another object has the same hash")
	}
}
