package manifests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const root = "../.."

// What is committed is what make manifests writes.
func TestFilesAreCurrent(t *testing.T) {
	files, err := Files(root)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range files {
		if got, err := os.ReadFile(filepath.Join(root, path)); err != nil || string(got) != string(want) {
			t.Errorf("%s is not current (%v): run make manifests and commit", path, err)
		}
	}
}

func TestParseImage(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0f", 32)
	for ref, want := range map[string]Image{
		"registry.example.net/muslin:v1":                  {"registry.example.net/muslin", "v1", ""},
		"localhost:5000/a/b@" + digest:                    {"localhost:5000/a/b", "", digest},
		"registry.example.net/muslin/muslin:v1@" + digest: {"registry.example.net/muslin/muslin", "v1", digest},
	} {
		if got, err := ParseImage(ref); err != nil || got != want || got.String() != ref {
			t.Errorf("%s: got %+v %v, want %+v", ref, got, err, want)
		}
	}
	for _, ref := range []string{"", "muslin:v1", "muslin/muslin:v1", "registry.example.net/muslin", "registry.example.net/muslin:v 1", "registry.example.net/muslin@sha256:12", "registry.example.net/muslin:v1\n"} {
		if got, err := ParseImage(ref); err == nil || !strings.Contains(err.Error(), "image ") {
			t.Errorf("%q is taken for %+v, %v", ref, got, err)
		}
	}
}

// Each overlay renders, and differs from the base in what the docs list alone; each
// folder is listed, and each that a distribution names is there.
func TestOverlays(t *testing.T) {
	objects := func(dir string) []Object {
		text, err := Render(filepath.Join(root, "manifests", dir))
		if err != nil {
			t.Fatal(err)
		}
		out, err := Decode(text)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	folders, err := os.ReadDir(filepath.Join(root, "manifests/overlays"))
	if err != nil {
		t.Fatal(err)
	}
	base, listed := objects("."), map[string]bool{}
	for _, o := range Overlays {
		listed[o.Name] = true
		if diff := cmp.Diff(o.Differs, Differences(base, objects("overlays/"+o.Name))); diff != "" {
			t.Errorf("%s: differs from the base in other fields than listed (-list +found):\n%s", o.Name, diff)
		}
	}
	for _, f := range folders {
		if !listed[f.Name()] {
			t.Errorf("overlay %s is not listed", f.Name())
		}
	}
	for _, d := range Distributions {
		if d.Overlay != "" && !listed[d.Overlay] {
			t.Errorf("%s names overlay %s, which is not there", d.Name, d.Overlay)
		}
	}
}

func TestDifferences(t *testing.T) {
	read := func(text string) []Object {
		out, err := Decode([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	a := read("kind: A\nmetadata: {name: a}\nspec: {x: 1, list: [{name: one, v: 1}, {name: two, v: 2}]}\n")
	b := read("kind: A\nmetadata: {name: a}\nspec: {x: 1, list: [{name: two, v: 2}, {name: one, v: 3}], z: 2}\n---\nkind: B\nmetadata: {name: b}\nd: 1\n")
	if diff := cmp.Diff([]string{"A/a spec.list.one.v", "A/a spec.z", "B/b d"}, Differences(a, b)); diff != "" {
		t.Error(diff)
	}
}

// A given image is in every file and in each container, and can be replaced again.
func TestSetImage(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "manifests"), os.DirFS(filepath.Join(root, "manifests"))); err != nil {
		t.Fatal(err)
	}
	digest := "sha256:" + strings.Repeat("0f", 32)
	for _, c := range []struct{ ref, shown string }{
		{"registry.example.net/muslin:v1@" + digest, "image: registry.example.net/muslin@" + digest},
		{"localhost:5000/x/muslin:v2", "image: localhost:5000/x/muslin:v2"},
		{"muslin.invalid/muslin:dev", "image: muslin.invalid/muslin:dev"},
	} {
		image, err := ParseImage(c.ref)
		if err != nil {
			t.Fatal(err)
		}
		if err := SetImage(dir, image); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(dir, "docs"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := Write(dir); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(dir, "manifests/muslin.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		values, err := os.ReadFile(filepath.Join(dir, "manifests/charts/muslin/values.yaml"))
		if err != nil || !strings.Contains(string(values), "\n  repository: "+image.Repository+"\n") || !strings.Contains(string(values), "\n  digest: \""+image.Digest+"\"\n") {
			t.Errorf("%s: values %v\n%.400s", c.ref, err, values)
		}
		if got := strings.Count(string(text), " image: "); got != 3 || strings.Count(string(text), c.shown+"\n") != got {
			t.Errorf("%s: not all of %d images are %s", c.ref, got, c.shown)
		}
	}
}
