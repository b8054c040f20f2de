package manifests

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
)

const header = "# Made by make manifests from kustomization.yaml; not written by hand.\n"

// Files gives the files that are made from others, by their paths below root, a
// checkout.
func Files(root string) (map[string][]byte, error) {
	all, err := Render(filepath.Join(root, "manifests"))
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		"manifests/muslin.yaml": append([]byte(header), all...),
		"docs/distributions.md": DistributionsPage(),
	}, nil
}

// Write writes them.
func Write(root string) error {
	files, err := Files(root)
	if err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		if err := os.WriteFile(filepath.Join(root, path), files[path], 0o644); err != nil {
			return err
		}
	}
	return nil
}
