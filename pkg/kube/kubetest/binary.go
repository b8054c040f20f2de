package kubetest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// labBinary is where the lab keeps its kubelab.
const labBinary = "/var/lib/muslin-lab/bin/kubelab"

// Binary gives the path of kubelab, and builds it when there is none. The first
// build of a machine takes minutes.
func Binary() (string, error) {
	if path := os.Getenv("MUSLIN_KUBELAB"); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("MUSLIN_KUBELAB: %w", err)
		}
		return path, nil
	}
	if _, err := os.Stat(labBinary); err == nil {
		return labBinary, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "muslin", "kubelab")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	return path, buildOnce(path)
}

// buildOnce builds kubelab unless it is there by the time that nobody else
// builds it: the tests of several packages run at once.
func buildOnce(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("build kubelab: %w", err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("build kubelab: %w", err)
	}
	defer dir.Close() // and with it the lock
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("build kubelab: lock %s: %w", dir.Name(), err)
	}
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := build(path + ".new"); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func build(path string) error {
	cmd := exec.CommandContext(context.Background(), "go", "build", "-mod=readonly", "-trimpath", "-ldflags",
		"-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36",
		"-o", path, ".")
	cmd.Dir = filepath.Join(Root(), "hack", "kubelab")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build kubelab in %s: %w: %s", cmd.Dir, err, out)
	}
	return nil
}

// Root is the root of the repository.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..")
}
