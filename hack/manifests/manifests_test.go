package manifests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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
		if err := Write(dir); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(dir, "manifests/muslin.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(string(text), " image: "); got != 3 || strings.Count(string(text), c.shown+"\n") != got {
			t.Errorf("%s: not all of %d images are %s", c.ref, got, c.shown)
		}
	}
}
