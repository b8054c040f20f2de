package arch

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestFaultsNameTests: each test that docs/faults.md names is there.
func TestFaultsNameTests(t *testing.T) {
	table, err := os.ReadFile("../../docs/faults.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`([a-z0-9/]+)\\.(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(string(table), -1)
	if len(named) < 40 {
		t.Fatalf("docs/faults.md names %d tests", len(named))
	}
	for _, m := range named {
		out, err := exec.Command("git", "-C", "../..", "grep", "-lE", "^func "+m[2]+"\\(", "--", m[1]+"/*_test.go").CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) == "" {
			t.Errorf("%s.%s is in docs/faults.md, and not in the source", m[1], m[2])
		}
	}
}
