package kubetest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
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
	return path, build(path)
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
