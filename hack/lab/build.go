package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/muslin-net/muslin/hack/lab/internal/copyfile"
	"github.com/muslin-net/muslin/hack/lab/kube"
	"github.com/muslin-net/muslin/hack/lab/kubelab"
)

// buildKubelab builds the Kubernetes programs unless they are there.
func (l *Lab) buildKubelab(ctx context.Context) error {
	_, err := kubelab.Build(ctx, l.source, l.site.BinDir(), l.progress.note)
	return err
}

// buildPrograms builds the lab's own programs and the archive with the images
// that every full node needs.
func (l *Lab) buildPrograms(ctx context.Context) error {
	unlock, err := kubelab.Lock(l.site.BinDir())
	if err != nil {
		return err
	}
	defer unlock()
	for name, pkg := range map[string]string{
		"machine": "./hack/lab/cmd/machine", "probe": "./hack/lab/probe", "lab": "./hack/lab/cmd/lab",
	} {
		fresh := filepath.Join(l.site.BinDir(), "fresh", name)
		if err := kubelab.GoBuild(ctx, l.source, l.progress.note, "-ldflags", "-s -w", "-o", fresh, pkg); err != nil {
			return fmt.Errorf("build %s: %w", name, err)
		}
		if err := install(fresh, l.site.Program(name)); err != nil {
			return fmt.Errorf("build %s: %w", name, err)
		}
	}
	return kube.WriteToolImages(l.site.BinDir())
}

// install puts a program in its place at once: other labs may be running it,
// and go build would leave a moment without.
func install(fresh, program string) error {
	built, err := os.ReadFile(fresh)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(program); err == nil && bytes.Equal(old, built) {
		return nil
	}
	return copyfile.Copy(fresh, program, 0o755)
}
