// Command crdgen writes manifests/crds: it runs controller-gen over the types
// of pkg/kube/v3 and lays the overlays of this folder on what comes out.
//
// The overlays add what cannot be said on Calico's own Go types, which are not
// ours to mark: defaults, bounds, CEL rules. It reads and writes files only, and
// is run by `make generate` or `go generate ./pkg/kube/v3`.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/muslin-net/muslin/hack/crdgen/crd"
)

func main() {
	root := flag.String("root", ".", "root of the repository")
	check := flag.Bool("check", false, "write nothing, fail when a file is not current")
	flag.Parse()
	if err := run(*root, *check); err != nil {
		fmt.Fprintln(os.Stderr, "crdgen:", err)
		os.Exit(1)
	}
}

func run(root string, check bool) error {
	var raw bytes.Buffer
	if err := generate(root, &raw); err != nil {
		return err
	}
	files, err := crd.Build(raw.Bytes(), os.DirFS(filepath.Join(root, "hack/crdgen/overlay")))
	if err != nil {
		return err
	}
	dir := filepath.Join(root, "manifests/crds")
	if check {
		return crd.Compare(dir, files)
	}
	return crd.Write(dir, files)
}

// generate runs controller-gen, pinned by hack/tools/go.mod, in root.
func generate(root string, out io.Writer) error {
	cmd := exec.Command("go", "tool", "-modfile=hack/tools/go.mod", "controller-gen", "crd:allowDangerousTypes=true", "paths=./pkg/kube/v3", "output:stdout")
	cmd.Dir, cmd.Stdout, cmd.Stderr = root, out, os.Stderr
	cmd.Env = append(os.Environ(), "GOFLAGS=-trimpath") // without a -modfile, which the tool would load the types by
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run controller-gen: %w", err)
	}
	return nil
}
