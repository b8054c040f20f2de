package thirdparty

import (
	"maps"
	"path/filepath"
	"slices"
	"testing"
)

// TestCopyIsTheReleaseWithThePatches makes the copy again and compares.
func TestCopyIsTheReleaseWithThePatches(t *testing.T) {
	root := filepath.Join("..", "..")
	fresh := t.TempDir()
	if err := Make(t.Context(), root, fresh); err != nil {
		t.Fatal(err)
	}
	want, err := Files(fresh)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Files(filepath.Join(root, Dir))
	if err != nil {
		t.Fatal(err)
	}
	names := maps.Clone(want)
	maps.Copy(names, got)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if got[name] != want[name] {
			t.Errorf("%s is not what make third-party writes", filepath.Join(Dir, name))
		}
	}
	if len(want) < 2*len(packages) {
		t.Errorf("only %d files were made", len(want))
	}
}
