package netns

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// freshRun marks the child that plays a machine where nothing has made a
// network namespace yet.
const freshRun = "MUSLIN_NETNS_FRESH"

// TestNamesOutliveIproute2 plays a fresh machine: the first `ip netns add`
// after ours must not hide our names, or they could not be removed again.
func TestNamesOutliveIproute2(t *testing.T) {
	if os.Getenv(freshRun) != "" {
		playFreshMachine(t)
		return
	}
	child := exec.Command(os.Args[0], "-test.run", "^TestNamesOutliveIproute2$", "-test.v")
	child.Env = append(os.Environ(), freshRun+"=1")
	child.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// playFreshMachine has a /run of its own: the child's mounts are its own.
func playFreshMachine(t *testing.T) {
	if err := unix.Mount("none", "/run", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := Create("ours"); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"add", "del"} {
		if out, err := exec.Command("ip", "netns", verb, "theirs").CombinedOutput(); err != nil {
			t.Fatalf("ip netns %s: %v\n%s", verb, err, out)
		}
	}
	if err := Delete("ours"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(Path("ours")); !os.IsNotExist(err) {
		t.Fatalf("%s is still there: %v", Path("ours"), err)
	}
}
