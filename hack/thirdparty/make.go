package thirdparty

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	// Module and Version are the release that is copied.
	Module  = "github.com/osrg/gobgp/v4"
	Version = "v4.8.0"
	// sums are its lines of a go.sum, so that what is copied is what was read.
	sums = Module + " " + Version + " h1:CoprkOZ2nsH8aTHij6xWj18QOrsBwG9D00l1PGw7394=\n" + Module + " " + Version + "/go.mod h1:bJbFm7T2nRANggShfl3I9h0UpPCzu4uAY5J/6dTdRvs=\n"
	// Dir is where the copy stands, below the root of the checkout.
	Dir = "third_party/gobgp"
	// patches and readme are what of the copy is ours.
	patches = "patches"
	readme  = "README.md"
	// notice stands at the top of changed files (Apache License 2.0, section 4 b).
	notice = "// Changed for Muslin: see README.md in third_party/gobgp.\n\n"
)

// packages are what bgp/gobgp imports, and what that imports.
var packages = []string{
	"api", "internal/pkg/netutils", "internal/pkg/table", "internal/pkg/version", "pkg/apiutil", "pkg/config/oc", "pkg/packet/bfd",
	"pkg/packet/bgp", "pkg/packet/bmp", "pkg/packet/mrt", "pkg/packet/rtr", "pkg/server", "pkg/zebra",
}

// Source unpacks the whole release into to, which must not be there yet, and
// applies the patches of the checkout at root.
func Source(ctx context.Context, root, to string) error {
	from, err := download(ctx)
	if err != nil {
		return err
	}
	return patched(ctx, root, from, to)
}

func patched(ctx context.Context, root, from, to string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return fmt.Errorf("copy %s: %w", Module, err)
	}
	list, err := filepath.Glob(filepath.Join(root, Dir, patches, "*.patch"))
	if err != nil {
		return err
	}
	// Inside a repository git apply would leave alone what is not of it.
	if _, err := run(ctx, to, "git", "init", "--quiet"); err != nil {
		return err
	}
	for _, p := range list {
		if p, err = filepath.Abs(p); err != nil {
			return err
		}
		if _, err := run(ctx, to, "git", "apply", "--whitespace=nowarn", p); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(p), err)
		}
	}
	return nil
}

// Make writes the copy into to, in place of an earlier one: what of the patched
// release belongs there.
func Make(ctx context.Context, root, to string) error {
	whole, err := os.MkdirTemp("", "muslin-thirdparty-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(whole)
	whole = filepath.Join(whole, "source")
	from, err := download(ctx)
	if err != nil {
		return err
	}
	if err := patched(ctx, root, from, whole); err != nil {
		return err
	}
	files := []string{"go.mod", "LICENSE"}
	for _, p := range packages {
		list, err := filepath.Glob(filepath.Join(whole, p, "*.go"))
		if err != nil {
			return err
		}
		for _, f := range list {
			if !strings.HasSuffix(f, "_test.go") {
				files = append(files, filepath.Join(p, filepath.Base(f)))
			}
		}
	}
	old, err := Files(to)
	if err != nil {
		return err
	}
	for name := range old {
		if err := os.Remove(filepath.Join(to, name)); err != nil {
			return err
		}
	}
	for _, f := range files {
		if err := place(f, from, whole, to); err != nil {
			return err
		}
	}
	return nil
}

// Files lists what Make is answerable for in the copy at dir, with contents.
func Files(dir string) (map[string]string, error) {
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		switch {
		case err != nil:
			return err
		case d.IsDir() && name == patches:
			return fs.SkipDir
		case d.IsDir() || name == readme:
			return nil
		}
		text, err := os.ReadFile(path)
		out[name] = string(text)
		return err
	})
	return out, err
}

// download fetches the release, unless the module cache has it, and says where it is.
func download(ctx context.Context) (string, error) {
	away, err := os.MkdirTemp("", "muslin-thirdparty-") // a module that replaces nothing
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(away)
	for name, text := range map[string]string{"go.mod": "module away\n", "go.sum": sums} {
		if err := os.WriteFile(filepath.Join(away, name), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	out, err := run(ctx, away, "go", "mod", "download", "-json", Module+"@"+Version)
	if err != nil {
		return "", err
	}
	var m struct{ Dir string }
	if err := json.Unmarshal(out, &m); err != nil {
		return "", fmt.Errorf("go mod download: %w", err)
	}
	return m.Dir, nil
}

// place copies a file of the patched release, with the notice if it is not as
// released.
func place(name, released, patched, to string) error {
	text, err := os.ReadFile(filepath.Join(patched, name))
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(filepath.Join(released, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	} else if !bytes.Equal(old, text) {
		text = append([]byte(notice), text...)
	}
	to = filepath.Join(to, name)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o644)
}

func run(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, errs.Bytes())
	}
	return out, nil
}
