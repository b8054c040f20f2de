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
	if m == nil || m[2]+m[3] == "" || !strings.ContainsAny(m[1][:strings.Index(m[1], "/")], ".:") {
		return Image{}, fmt.Errorf("image %q: want registry/name:tag, registry/name@sha256:digest or both", ref)
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

// SetImage writes the place of the image into the kustomization. A tag beside a
// digest is kept out of it: kustomize takes one of them.
func SetImage(root string, i Image) error {
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
