package kubelab

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSourceTreeIsFound(t *testing.T) {
	root, err := FindSource(".")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "hack", "kubelab", "go.mod")); err != nil {
		t.Error(err)
	}
	if _, err := FindSource(t.TempDir()); err == nil {
		t.Error("a source tree was found in an empty directory")
	}
}
