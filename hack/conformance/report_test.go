package conformance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A report passes if it has cases and none of them failed.
func TestReadReport(t *testing.T) {
	for text, want := range map[string]string{
		`<testsuite><testcase name="a"></testcase></testsuite>`:                                                                "",
		`<testsuite failures="1"><testcase name="a"/><testcase name="b"><failure message=""></failure></testcase></testsuite>`: `case "b" failed`,
		`<testsuite></testsuite>`: "no case",
		`<testsuite>`:             "EOF",
	} {
		path := filepath.Join(t.TempDir(), "report.xml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := readReport(path)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
