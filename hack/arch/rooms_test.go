package arch

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestNoArrowBackUp prints the rooms of the house, with -v, and has none import what
// stands above it.
func TestNoArrowBackUp(t *testing.T) {
	rooms := Rooms(list(t), func(p Package) (n int) {
		for _, f := range p.GoFiles {
			text, err := os.ReadFile(filepath.Join("..", "..", local(p.ImportPath), f))
			if err != nil {
				t.Fatal(err)
			}
			n += bytes.Count(text, []byte("\n"))
		}
		return n
	})
	for name := range rooms {
		if floorOf(name) == len(floors) {
			t.Errorf("%s stands on no floor: say on which in floors and in docs/architecture.md", name)
		}
	}
	table := Table(rooms)
	t.Log("\n" + table)
	if !strings.Contains(table, " 0 back up;") {
		t.Errorf("a room imports one above it:\n%s", table)
	}
}

// TestArrowsBite plants an arrow that leads up, one between neighbours and one down.
func TestArrowsBite(t *testing.T) {
	for to, want := range map[string]string{"cmd/muslinctl/api": "1 arrows, 1 back up;", "ipam": "1 arrows, 0 back up;", "pkg/model": "1 arrows, 0 back up;"} {
		rooms := Rooms([]Package{{ImportPath: Module + "/felix/route", Imports: []string{"os", Module + "/" + to, Module + "/felix"}}},
			func(Package) int { return 1 })
		if table := Table(rooms); !strings.Contains(table, want) {
			t.Errorf("felix/route imports %s: want %q:\n%s", to, want, table)
		}
	}
}

// TestFloorsAreDocumented: docs/architecture.md has the floors of this package.
func TestFloorsAreDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range floors {
		row := regexp.MustCompile(fmt.Sprintf(`(?m)^\| %d, [^|]*\| (.*) \|$`, i)).FindStringSubmatch(string(text))
		if row == nil {
			t.Errorf("docs/architecture.md has no floor %d", i)
			continue
		}
		if got := strings.Split(strings.ReplaceAll(row[1], "`", ""), ", "); !slices.Equal(got, want) {
			t.Errorf("floor %d is %v in docs/architecture.md, %v here", i, got, want)
		}
	}
}
