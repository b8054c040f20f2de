package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// What a start costs are pages that the kernel has to give (docs/cni.md, "The
// plugin's start"): a DEL is to take few more than a program that does nothing.
func TestDelTakesFewPages(t *testing.T) {
	const most = 30
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "empty")
	compile := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", empty, source)
	compile.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	nothing, del := pageFaults(t, empty, dir), pageFaults(t, build(t), dir)
	t.Logf("page faults: %d of a DEL, %d of a program that does nothing", del, nothing)
	if del > nothing+most {
		t.Errorf("a DEL takes %d more pages than a program that does nothing, at most %d are allowed", del-nothing, most)
	}
}

// pageFaults is the median of many runs.
func pageFaults(t *testing.T, bin, dir string) int64 {
	t.Helper()
	var counts []int64
	for range 31 {
		cmd := exec.Command(bin)
		cmd.Env = []string{"CNI_COMMAND=DEL", "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_PATH=/x"}
		cmd.Stdin = strings.NewReader(conf(dir, "1.0.0"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", bin, err, out)
		}
		counts = append(counts, cmd.ProcessState.SysUsage().(*syscall.Rusage).Minflt)
	}
	slices.Sort(counts)
	return counts[len(counts)/2]
}
