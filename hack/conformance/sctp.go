package conformance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// kernelHasSCTP tells whether programs of this machine can open SCTP sockets; asking loads
// the module where there is one.
func kernelHasSCTP() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
	if err != nil {
		return false
	}
	_ = unix.Close(fd)
	return true
}

// agnhostModfile names the go.mod that agnhost is built with: none is hack/e2e's own, which
// puts hack/sctp in the place of the kernel's sockets. Where the kernel has them, it would
// answer beside hack/sctp, so agnhost gets the module that opens them.
func agnhostModfile(ctx context.Context, source, dir string, kernelSCTP bool) (string, error) {
	if !kernelSCTP {
		return "", nil
	}
	modfile := filepath.Join(dir, "agnhost.mod")
	for name, to := range map[string]string{"go.mod": modfile, "go.sum": filepath.Join(dir, "agnhost.sum")} {
		data, err := os.ReadFile(filepath.Join(source, "hack/e2e", name))
		if err := errors.Join(err, os.WriteFile(to, data, 0o644)); err != nil {
			return "", fmt.Errorf("agnhost on the kernel's SCTP: %w", err)
		}
	}
	if out, err := exec.CommandContext(ctx, "go", "mod", "edit", "-dropreplace=github.com/ishidawataru/sctp", modfile).CombinedOutput(); err != nil {
		return "", fmt.Errorf("agnhost on the kernel's SCTP: %w: %s", err, out)
	}
	return modfile, nil
}
