package kube

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/muslin-net/muslin/hack/image"
	"github.com/muslin-net/muslin/hack/lab/internal/copyfile"
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

// ToolArchives are the archives of the lab's own images.
func ToolArchives(dir string) []string {
	return []string{filepath.Join(dir, "pause.tar"), filepath.Join(dir, "probe.tar")}
}

// WriteToolImages makes the lab's own images from the probe program in dir.
func WriteToolImages(dir string) error {
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
		if _, err := image.WriteFile(ToolArchives(dir)[i], spec); err != nil {
			return fmt.Errorf("write image %s: %w", tool.ref, err)
		}
	}
	return nil
}

// StoreImages copies archives to where full nodes look for them at each boot.
func (c *Cluster) StoreImages(archives []string) error {
	for _, archive := range archives {
		if !strings.HasSuffix(archive, ".tar") {
			return fmt.Errorf("store image %s: want an OCI archive called .tar", archive)
		}
		if err := copyfile.Copy(archive, filepath.Join(c.site.ImageDir(), filepath.Base(archive)), 0o644); err != nil {
			return fmt.Errorf("store image %s: %w", archive, err)
		}
	}
	return nil
}

// Load imports an OCI archive into the containerd of the named full nodes, of
// all that are on when none is named. It is imported again whenever a full
// node boots.
func (c *Cluster) Load(ctx context.Context, archive string, nodes ...string) error {
	if err := c.StoreImages([]string{archive}); err != nil {
		return err
	}
	if len(nodes) == 0 {
		for _, node := range c.site.Fabric.Topology.NodesOf(topology.Full) {
			if _, err := c.site.Machine(node).PID(); err == nil {
				nodes = append(nodes, node)
			}
		}
	}
	stored := filepath.Join(c.site.ImageDir(), filepath.Base(archive))
	var errs []error
	for _, node := range nodes {
		if _, err := c.site.Machine(node).Exec(ctx, "ctr", "-n", "k8s.io", "images", "import", stored); err != nil {
			errs = append(errs, fmt.Errorf("load image %s: %w", archive, err))
		}
	}
	return errors.Join(errs...)
}
