package image

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// WriteIndex writes images of one name for several architectures as a tar archive of
// an OCI image layout, with one image index that has them all, as a registry holds it.
// It gives the digest of that index, by which the image is pulled. It holds the layers
// in memory.
func WriteIndex(w io.Writer, specs []Spec) (indexDigest string, err error) {
	if len(specs) == 0 {
		return "", errors.New("image index: no image")
	}
	all := index{SchemaVersion: 2, MediaType: indexType}
	var blobs [][]byte
	seen := map[string]bool{}
	for _, s := range specs {
		s = s.withDefaults()
		if err := s.validate(); err != nil {
			return "", err
		}
		if s.Ref != specs[0].Ref || seen[s.Architecture] {
			return "", fmt.Errorf("image index %s: %s for %s: want one name, and each architecture once", specs[0].Ref, s.Ref, s.Architecture)
		}
		seen[s.Architecture] = true
		l, err := buildLayer(s)
		if err != nil {
			return "", fmt.Errorf("image %s for %s: %w", s.Ref, s.Architecture, err)
		}
		config, man, d, err := documents(s, l)
		if err != nil {
			return "", fmt.Errorf("image %s for %s: %w", s.Ref, s.Architecture, err)
		}
		all.Manifests, blobs = append(all.Manifests, d), append(blobs, man, config, l.bytes)
	}
	list, err := json.Marshal(all)
	if err != nil {
		return "", fmt.Errorf("image index %s: %w", specs[0].Ref, err)
	}
	outer, err := json.Marshal(index{SchemaVersion: 2, MediaType: indexType, Manifests: []descriptor{describe(indexType, list).named(specs[0].Ref)}})
	if err != nil {
		return "", fmt.Errorf("image index %s: %w", specs[0].Ref, err)
	}
	a := archive{tw: tar.NewWriter(w), created: specs[0].withDefaults().Created}
	a.put("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	a.put("index.json", outer)
	written := map[string]bool{} // layers may be alike
	for _, blob := range append([][]byte{list}, blobs...) {
		if sum := hexDigest(blob); !written[sum] {
			written[sum] = true
			a.put("blobs/sha256/"+sum, blob)
		}
	}
	if err := a.close(); err != nil {
		return "", fmt.Errorf("image index %s: write archive: %w", specs[0].Ref, err)
	}
	return digest(list), nil
}
