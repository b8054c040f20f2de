package conformance

import (
	"os/exec"
	"strings"
	"testing"
)

// agnhost has SCTP of hack/sctp where the kernel has none, and the module that opens the
// kernel's sockets where it has.
func TestAgnhostModfile(t *testing.T) {
	for kernel, want := range map[bool]string{false: "../sctp", true: ""} {
		modfile, err := agnhostModfile(t.Context(), "../..", t.TempDir(), kernel)
		if err != nil {
			t.Fatal(err)
		}
		list := exec.CommandContext(t.Context(), "go", "list", "-C", "../e2e", "-modfile="+modfile, "-mod=readonly", "-m", "-f", "{{with .Replace}}{{.Path}}{{end}}", "github.com/ishidawataru/sctp")
		list.Env = append(list.Environ(), "GOFLAGS=", "GOWORK=off")
		out, err := list.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("kernel with SCTP %v: agnhost's SCTP is replaced by %q, %v, want %q", kernel, got, err, want)
		}
	}
}
