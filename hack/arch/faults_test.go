package arch

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestFaultsNameTests: each test that the tables of faults name is there.
func TestFaultsNameTests(t *testing.T) {
	for file, least := range map[string]int{"docs/faults.md": 40, "docs/operations.md": 15} {
		table, err := os.ReadFile("../../" + file)
		if err != nil {
			t.Fatal(err)
		}
		named := regexp.MustCompile("`([a-z0-9/]+)\\.(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(string(table), -1)
		if len(named) < least {
			t.Fatalf("%s names %d tests", file, len(named))
		}
		for _, m := range named {
			out, err := exec.Command("git", "-C", "../..", "grep", "-lE", "^func "+m[2]+"\\(", "--", m[1]+"/*_test.go").CombinedOutput()
			if err != nil || strings.TrimSpace(string(out)) == "" {
				t.Errorf("%s.%s is in %s, and not in the source", m[1], m[2], file)
			}
		}
	}
}
