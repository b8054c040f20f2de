package arch

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// Room is a folder of the house that holds together: one of pkg or cmd, or a top-level one.
type Room struct {
	Name    string
	Lines   int // of Go, without tests
	Imports map[string]bool
}

// floors are the floors of the house from the ground up: what stands on one may import
// those below it and its neighbours. docs/architecture.md has the same table.
var floors = [][]string{
	{"pkg/model", "pkg/selector", "pkg/task", "pkg/reconcile", "pkg/nodeaddr", "pkg/compat", "pkg/validate", "pkg/cnirpc", "pkg/kube", "pkg/metricsserver"},
	{"bgp", "ipam", "felix"},
	{"cmd/agent", "cmd/controller", "cmd/muslinctl", "cmd/cni"},
}

// Rooms sorts packages of the product into rooms; lines counts those of a package.
func Rooms(pkgs []Package, lines func(Package) int) map[string]*Room {
	out := map[string]*Room{}
	for _, p := range pkgs {
		name := roomOf(local(p.ImportPath))
		if name == "hack" || name == "manifests" || strings.HasSuffix(p.ImportPath, "test") { // what tests alone import
			continue
		}
		r := out[name]
		if r == nil {
			r = &Room{Name: name, Imports: map[string]bool{}}
			out[name] = r
		}
		r.Lines += lines(p)
		for _, imp := range p.Imports {
			if to := roomOf(local(imp)); strings.HasPrefix(imp, Module+"/") && to != name {
				r.Imports[to] = true
			}
		}
	}
	return out
}

func roomOf(path string) string {
	parts := strings.SplitN(path, "/", 3)
	if (parts[0] == "pkg" || parts[0] == "cmd") && len(parts) > 1 {
		return parts[0] + "/" + parts[1]
	}
	return parts[0]
}

// floorOf is len(floors) for a room that stands on none.
func floorOf(room string) int {
	i := slices.IndexFunc(floors, func(f []string) bool { return slices.Contains(f, room) })
	if i < 0 {
		return len(floors)
	}
	return i
}

// Table shows rooms, the arrows between them, those that lead back up, and the
// biggest room.
func Table(rooms map[string]*Room) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ROOM\tFLOOR\tLINES\tIMPORTS\tBACK UP")
	arrows, back, all := 0, 0, 0
	biggest := &Room{}
	byFloor := func(a, c string) int { return cmp.Or(floorOf(a)-floorOf(c), strings.Compare(a, c)) }
	for _, name := range slices.SortedFunc(maps.Keys(rooms), byFloor) {
		r := rooms[name]
		up := slices.DeleteFunc(slices.Sorted(maps.Keys(r.Imports)), func(to string) bool { return floorOf(to) <= floorOf(name) })
		arrows, back, all = arrows+len(r.Imports), back+len(up), all+r.Lines
		if r.Lines > biggest.Lines {
			biggest = r
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\n", name, floorOf(name), r.Lines, len(r.Imports), strings.Join(up, " "))
	}
	_ = w.Flush() // into memory
	fmt.Fprintf(&b, "%d rooms, %d arrows, %d back up; the biggest is %s with %d %% of %d lines\n",
		len(rooms), arrows, back, biggest.Name, 100*biggest.Lines/max(all, 1), all)
	return b.String()
}
