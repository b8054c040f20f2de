package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestHouse checks every package of the module against the plan.
func TestHouse(t *testing.T) {
	for _, line := range Check(list(t)) {
		t.Error(line)
	}
}

// TestRulesBite plants violations: a rule that cannot fail is no rule.
func TestRulesBite(t *testing.T) {
	planted := []Package{
		{ImportPath: Module + "/bgp", Doc: "d", Imports: []string{"os"}},
		{ImportPath: Module + "/felix", Doc: "d", Imports: []string{Module + "/bgp"}},
		{ImportPath: Module + "/felix/route", Doc: "d", Imports: []string{Module + "/felix/nft"}},
		{ImportPath: Module + "/pkg/kube", Doc: "d", Imports: []string{"github.com/osrg/gobgp/v4/api"}},
		{ImportPath: Module + "/cmd/agent/cniserver", Doc: "d", Imports: []string{"k8s.io/client-go/rest"}},
		{ImportPath: Module + "/cmd/controller", Doc: "d", Imports: []string{Module + "/cmd/agent/app"}},
		{ImportPath: Module + "/pkg/nodoc", GoFiles: []string{"a.go"}},
	}
	for _, p := range planted {
		if got := Check([]Package{p}); len(got) == 0 {
			t.Errorf("%s importing %q passes", p.ImportPath, p.Imports)
		}
	}
}

// TestNoGrabBags refuses package names that say nothing.
func TestNoGrabBags(t *testing.T) {
	for _, p := range list(t) {
		last := p.ImportPath[strings.LastIndexByte(p.ImportPath, '/')+1:]
		switch last {
		case "util", "utils", "common", "helper", "helpers", "manager", "constants", "misc":
			t.Errorf("%s: a package is named after what it holds", p.ImportPath)
		}
	}
}

// go install …@version refuses a module that replaces another, and what is not
// ours comes as a module, with at most patches of it here.
func TestDependenciesAreModules(t *testing.T) {
	root := filepath.Join("..", "..")
	out, err := exec.Command("go", "mod", "edit", "-json", filepath.Join(root, "go.mod")).Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct {
		Replace []struct{ Old struct{ Path string } }
	}
	if err := json.Unmarshal(out, &mod); err != nil || len(mod.Replace) > 0 {
		t.Errorf("go.mod replaces %v, %v", mod.Replace, err)
	}
	err = filepath.WalkDir(filepath.Join(root, "third_party"), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), "patched"): // made by hack/thirdparty, ignored by git
			return fs.SkipDir
		case strings.HasSuffix(path, ".go"):
			t.Errorf("%s: code that is not ours", path)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func list(t *testing.T) []Package {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Doc,Imports,GoFiles", Module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var pkgs []Package
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var p Package
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}
