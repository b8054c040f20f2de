package vm_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/hack/vm"
)

// TestRun asks one guest for everything that Run promises, since a boot is dear.
func TestRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "here"), []byte("the host's"), 0o644); err != nil {
		t.Fatal(err)
	}
	script := `set -e
uname -r; id -u; pwd; cat here; echo; echo "$WORD"
echo guest > here; echo guest > /etc/muslin-vm-test; cat here /etc/muslin-vm-test
echo complaint >&2
ip netns add one; ip netns add two
ip -n one link add tunl0 type ipip 2>/dev/null || ip -n one -br link show tunl0
ip -n one link add e0 type veth peer name e0 netns two
seq 20000
exit 42`
	var seen bytes.Buffer
	out, status, err := vm.Run(t.Context(), vm.Options{Dir: dir, Env: []string{"WORD=a 'b' \"c\""}, Output: &seen}, "bash", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	if status != 42 {
		t.Errorf("exit status %d", status)
	}
	if !bytes.Equal(out, seen.Bytes()) {
		t.Errorf("Options.Output got something else")
	}
	lines := strings.Split(string(out), "\n")
	host, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	if lines[0] == strings.TrimSpace(string(host)) || !strings.Contains(lines[0], "-amd64") {
		t.Errorf("kernel %s, here %s", lines[0], host)
	}
	want := []string{"0", dir, "the host's", "a 'b' \"c\"", "guest", "guest", "complaint"}
	if got := strings.Join(lines[1:8], "\n"); got != strings.Join(want, "\n") {
		t.Errorf("printed:\n%s", got)
	}
	if !strings.HasPrefix(lines[8], "tunl0") {
		t.Errorf("no IPIP device: %s", lines[8])
	}
	if !strings.HasSuffix(string(out), "\n19999\n20000\n") || len(lines) != 9+20000+1 {
		t.Errorf("%d lines, ending in %q", len(lines), lines[len(lines)-2:])
	}
	if here, err := os.ReadFile(filepath.Join(dir, "here")); err != nil || string(here) != "the host's" {
		t.Errorf("the guest wrote to the host: %s, %v", here, err)
	}
	if _, err := os.Stat("/etc/muslin-vm-test"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the guest wrote to the host: %v", err)
	}
}

// TestNoProgram wants the guest's own words, not a status.
func TestNoProgram(t *testing.T) {
	t.Parallel()
	_, _, err := vm.Run(t.Context(), vm.Options{}, "no-such-program")
	if err == nil || !strings.Contains(err.Error(), `"no-such-program": executable file not found`) {
		t.Errorf("error: %v", err)
	}
}

// TestCancel switches a running machine off.
func TestCancel(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, _, err := vm.Run(ctx, vm.Options{Output: onWrite(cancel)}, "sh", "-c", "echo begun; sleep 1000")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error: %v", err)
	}
	if string(out) != "begun\n" {
		t.Errorf("output %q", out)
	}
}

// onWrite calls a function for each write.
type onWrite func()

func (f onWrite) Write(b []byte) (int, error) {
	f()
	return len(b), nil
}
