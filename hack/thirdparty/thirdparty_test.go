package thirdparty

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// checkout is what Make looks at of this one, elsewhere.
func checkout(t *testing.T) (root string) {
	t.Helper()
	root = t.TempDir()
	if err := os.CopyFS(filepath.Join(root, Dir, "patches"), os.DirFS(filepath.Join("..", "..", Dir, "patches"))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join("..", "..", name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(root, name), string(text))
	}
	return root
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// made calls Make and returns what stands in the place of the copy.
func made(t *testing.T, root string) os.FileInfo {
	t.Helper()
	if _, err := Make(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(root, patched))
	if err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(root, Dir, "patched.*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	return info
}

func TestMakeOnlyWhatIsNotCurrent(t *testing.T) {
	root := checkout(t)
	first := made(t, root)
	if again := made(t, root); !os.SameFile(first, again) {
		t.Error("made again, though nothing changed")
	}
	file := filepath.Join(root, patched, "pkg/server/server.go")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changes := map[string]func(){
		"a file of the copy changed": func() { write(t, file, "package server") },
		"a file of the copy is gone": func() { _ = os.Remove(file) },
		"a file too many":            func() { write(t, filepath.Join(filepath.Dir(file), "more.go"), "package server") },
		"go.mod changed":             func() { appendTo(t, filepath.Join(root, "go.mod"), "// more\n") },
		"go.sum changed":             func() { appendTo(t, filepath.Join(root, "go.sum"), "\n") },
		"one patch less":             func() { removeLast(t, root) },
	}
	for name, change := range changes {
		before := made(t, root)
		change()
		if os.SameFile(before, made(t, root)) {
			t.Errorf("%s: not made again", name)
		}
	}
	if now, err := os.ReadFile(file); err != nil || len(now) < len(text)/2 {
		t.Errorf("what was changed by hand stayed: %d bytes, %v", len(now), err)
	}
}

func appendTo(t *testing.T, path, more string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, string(text)+more)
}

func removeLast(t *testing.T, root string) {
	t.Helper()
	list, err := patches(root)
	if err != nil || len(list) == 0 {
		t.Fatalf("patches: %v, %v", list, err)
	}
	if err := os.Remove(list[len(list)-1]); err != nil {
		t.Fatal(err)
	}
}

// Several targets of make, and tests that build an image, may ask at once.
func TestManyMakeAtOnce(t *testing.T) {
	root := checkout(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			modfile, err := Make(t.Context(), root)
			if err != nil {
				t.Error(err)
			} else if _, err := os.Stat(modfile); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	made(t, root)
}

// TestTheCopyTakesTheReleasesPlace asks the go command.
func TestTheCopyTakesTheReleasesPlace(t *testing.T) {
	root := checkout(t)
	modfile, err := Make(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	for flag, want := range map[string]string{"-modfile=" + modfile: "./" + patched, "-modfile=": ""} {
		out, err := run(t.Context(), root, "go", "list", flag, "-m", "-json", Module)
		if err != nil {
			t.Fatal(err)
		}
		var m struct{ Replace struct{ Path string } }
		if err := json.Unmarshal(out, &m); err != nil || m.Replace.Path != want {
			t.Errorf("%s: replaced by %q, %v, want %q", flag, m.Replace.Path, err, want)
		}
	}
}

func TestPatchThatDoesNotApply(t *testing.T) {
	root := checkout(t)
	before := made(t, root)
	bad := filepath.Join(root, Dir, "patches", "9999-of-another-release.patch")
	write(t, bad, "--- a/README.md\n+++ b/README.md\n@@ -1,2 +1,1 @@\n-not\n-there\n+x\n")
	if _, err := Make(t.Context(), root); err == nil || !strings.Contains(err.Error(), filepath.Base(bad)) {
		t.Errorf("error %v does not name the patch", err)
	}
	if err := os.Remove(bad); err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, made(t, root)) {
		t.Error("the last good copy is gone")
	}
}

// Once all patches are in a release, the release is what is used.
func TestNoPatches(t *testing.T) {
	if modfile, err := Make(t.Context(), t.TempDir()); modfile != "" || err != nil {
		t.Errorf("%q, %v", modfile, err)
	}
}
