package arch

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestAddingNamesFiles: every path that docs/adding.md names exists.
func TestAddingNamesFiles(t *testing.T) {
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "docs", "adding.md"))
	if err != nil {
		t.Fatal(err)
	}
	paths := 0
	for _, m := range regexp.MustCompile("`([a-zA-Z0-9_./-]+)`").FindAllStringSubmatch(string(text), -1) {
		if !strings.Contains(m[1], "/") && !strings.HasSuffix(m[1], ".md") {
			continue // a name in the code
		}
		paths++
		if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
			t.Errorf("docs/adding.md names %s, which does not exist", m[1])
		}
	}
	if paths < 40 {
		t.Errorf("docs/adding.md names %d paths; is it read as it should be?", paths)
	}
}
