package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestWalksExist: each function in the walks of docs/architecture.md exists.
func TestWalksExist(t *testing.T) {
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, walks, _ := strings.Cut(string(text), "## Three walks")
	walks, _, _ = strings.Cut(walks, "\n## ")
	names := regexp.MustCompile("`([a-z0-9/]+)\\.([A-Za-z0-9_.]+)`").FindAllStringSubmatch(walks, -1)
	if len(names) < 30 {
		t.Errorf("%d functions are named; are the walks read as they should be?", len(names))
	}
	known := map[string]map[string]bool{}
	for _, n := range names {
		if known[n[1]] == nil {
			known[n[1]] = functions(t, filepath.Join(root, n[1]))
		}
		if !known[n[1]][n[2]] {
			t.Errorf("docs/architecture.md walks by %s.%s, which does not exist", n[1], n[2])
		}
	}
}

// functions are those of a package, methods as Type.Method.
func functions(t *testing.T, dir string) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				out[receiver(fn)+fn.Name.Name] = true
			}
		}
	}
	return out
}

func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return ""
	}
	e := fn.Recv.List[0].Type
	if p, ok := e.(*ast.StarExpr); ok {
		e = p.X
	}
	switch g := e.(type) {
	case *ast.IndexExpr:
		e = g.X
	case *ast.IndexListExpr:
		e = g.X
	}
	return e.(*ast.Ident).Name + "."
}
