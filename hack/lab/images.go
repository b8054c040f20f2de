package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/muslin-net/muslin/hack/image"
	"github.com/muslin-net/muslin/hack/lab/topology"
)

// Images that every full node has. Both hold the program of hack/lab/probe.
const (
	// PauseImage is the pod sandbox.
	PauseImage = "muslin.test/pause:1"
	// ProbeImage serves and measures: its entry point is probe, without
	// arguments it is a server (see hack/lab/probe).
	ProbeImage = "muslin.test/probe:1"
)

// toolArchives are the archives of the lab's own images.
func toolArchives(dir string) []string {
	return []string{filepath.Join(dir, "pause.tar"), filepath.Join(dir, "probe.tar")}
}

// writeToolImages makes the lab's own images from the probe program in dir.
func writeToolImages(dir string) error {
	for i, tool := range []struct {
		ref     string
		command []string
	}{{PauseImage, []string{"pause"}}, {ProbeImage, []string{"serve"}}} {
		spec := image.Spec{
			Ref:        tool.ref,
			Entrypoint: []string{"/bin/probe"}, Cmd: tool.command,
			Env:         []string{"PATH=/bin"},
			Files:       []image.File{{Path: "/bin/probe", Source: filepath.Join(dir, "probe")}},
			Compression: image.None,
		}
		if _, err := image.WriteFile(toolArchives(dir)[i], spec); err != nil {
			return fmt.Errorf("write image %s: %w", tool.ref, err)
		}
	}
	return nil
}

// storeImages copies archives to where full nodes look for them at each boot.
func (l *Lab) storeImages(archives []string) error {
	for _, archive := range archives {
		if !strings.HasSuffix(archive, ".tar") {
			return fmt.Errorf("store image %s: want an OCI archive called .tar", archive)
		}
		if err := copyFile(archive, filepath.Join(l.imageDir(), filepath.Base(archive)), 0o644); err != nil {
			return fmt.Errorf("store image %s: %w", archive, err)
		}
	}
	return nil
}

// Load imports an OCI archive into the containerd of the named full nodes, of
// all that are on when none is named. It is imported again whenever a full
// node boots.
func (l *Lab) Load(ctx context.Context, archive string, nodes ...string) error {
	if err := l.storeImages([]string{archive}); err != nil {
		return err
	}
	if len(nodes) == 0 {
		for _, node := range l.topology.NodesOf(topology.Full) {
			if _, err := l.initPID(node.Name); err == nil {
				nodes = append(nodes, node.Name)
			}
		}
	}
	stored := filepath.Join(l.imageDir(), filepath.Base(archive))
	var errs []error
	for _, node := range nodes {
		if _, err := l.Exec(ctx, node, "ctr", "-n", "k8s.io", "images", "import", stored); err != nil {
			errs = append(errs, fmt.Errorf("load image %s: %w", archive, err))
		}
	}
	return errors.Join(errs...)
}

// copyFile makes or replaces a file at once, never leaving half of it.
func copyFile(from, to string, mode os.FileMode) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.CreateTemp(filepath.Dir(to), ".copy-*")
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	err = errors.Join(err, target.Chmod(mode), target.Close())
	if err == nil {
		err = os.Rename(target.Name(), to)
	}
	if err != nil {
		return errors.Join(err, os.Remove(target.Name()))
	}
	return nil
}
