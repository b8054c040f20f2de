//go:build soak

package release

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// Two releases of one checkout are the same, byte for byte, with no module fetched.
func TestSoakRelease(t *testing.T) {
	t.Setenv("GOPROXY", "off")
	dir := t.TempDir()
	var dirs [2]string
	for i, name := range []string{"one", "two"} {
		dirs[i] = filepath.Join(dir, name)
		if err := Make(t.Context(), Options{Root: root, Out: dirs[i], Version: "v0.0.1-soak"}); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	if want := len(Platforms) + 6; len(entries) != want { // image, bill, krew, manifests, chart, checksums
		t.Errorf("%d files, want %d", len(entries), want)
	}
	for _, e := range entries {
		one, err := os.ReadFile(filepath.Join(dirs[0], e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if two, err := os.ReadFile(filepath.Join(dirs[1], e.Name())); err != nil || !bytes.Equal(one, two) {
			t.Errorf("%s differs, %v", e.Name(), err)
		}
	}
}
