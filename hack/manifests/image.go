package manifests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Image is a place of an image: repository with registry, and a tag, a digest or
// both.
type Image struct {
	Repository  string // "registry.example.net/muslin/muslin"
	Tag, Digest string // "v1.2.3", "sha256:..." with 64 hexadecimal digits
}

var imageForm = regexp.MustCompile(`^([a-z0-9.-]+(?::[0-9]+)?(?:/[a-z0-9._-]+)+)(?::([\w][\w.-]{0,127}))?(?:@(sha256:[0-9a-f]{64}))?$`)

// ParseImage reads "registry/name:tag@sha256:...". The registry is required, and one
// of tag and digest.
func ParseImage(ref string) (Image, error) {
	m := imageForm.FindStringSubmatch(ref)
	wrong := fmt.Errorf("image %q: want registry/name:tag, registry/name@sha256:digest or both", ref)
	if m == nil || m[2]+m[3] == "" {
		return Image{}, wrong
	}
	if registry, _, _ := strings.Cut(m[1], "/"); !strings.ContainsAny(registry, ".:") {
		return Image{}, wrong
	}
	return Image{Repository: m[1], Tag: m[2], Digest: m[3]}, nil
}

// String is the reference.
func (i Image) String() string {
	out := i.Repository
	if i.Tag != "" {
		out += ":" + i.Tag
	}
	if i.Digest != "" {
		out += "@" + i.Digest
	}
	return out
}

// name is what the manifests ask for before an image is put in its place.
const name = "muslin.invalid/muslin"

// SetImage writes the place of the image into the kustomization and the values of the
// chart. A tag beside a digest is kept out of the first: kustomize takes one of them.
func SetImage(root string, i Image) error {
	if err := setValues(filepath.Join(root, "manifests", "charts", "muslin", "values.yaml"), i); err != nil {
		return err
	}
	path := filepath.Join(root, "manifests", "base", "kustomization.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, _, found := strings.Cut(string(text), "images:\n")
	if !found {
		return fmt.Errorf("%s has no images", path)
	}
	entry := "images:\n- name: " + name + "\n"
	if i.Repository != name {
		entry += "  newName: " + i.Repository + "\n"
	}
	if i.Digest != "" {
		entry += "  digest: " + i.Digest + "\n"
	} else {
		entry += "  newTag: " + i.Tag + "\n"
	}
	return os.WriteFile(path, []byte(head+entry), 0o644)
}

var valuesForm = regexp.MustCompile(`(?m)^(  repository:).*\n(  tag:).*\n((?:  #.*\n)*)(  digest:).*$`)

// setValues writes the image into the values of the chart, and keeps the comments.
func setValues(path string, i Image) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !valuesForm.Match(text) {
		return fmt.Errorf("%s has no image with repository, tag and digest", path)
	}
	tag := i.Tag
	if tag == "" {
		tag = "dev" // the digest is what is pulled
	}
	out := valuesForm.ReplaceAll(text, []byte("$1 "+i.Repository+"\n$2 \""+tag+"\"\n$3$4 \""+i.Digest+"\""))
	return os.WriteFile(path, out, 0o644)
}
