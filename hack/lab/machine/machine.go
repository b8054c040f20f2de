// Package machine is the computers of a lab: each a set of namespaces with a disk
// of its own, a process 1 that starts its services, and a power switch. What the
// services are is for others to say.
package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/hack/lab/internal/boot"
	"github.com/muslin-net/muslin/hack/lab/topology"
)

// Machine is one machine of a site, on or off.
type Machine struct {
	Name string
	site *Site
}

// Node returns what the topology says of the node that the machine is, and whether it is one.
func (m Machine) Node() (topology.Node, bool) { return m.site.Fabric.Topology.Node(m.Name) }

// LogDir returns where the logs of the machine's services are.
func (m Machine) LogDir() string { return filepath.Join(m.site.Dir, "logs", m.Name) }

func (m Machine) netns() string { return m.site.Fabric.Netns(m.Name) }

// Dir holds what belongs to one machine: its spec, pid and disk.
func (m Machine) Dir() string { return filepath.Join(m.site.Dir, "machines", m.Name) }

// Disk is the upper layer of the machine's root: its own files.
func (m Machine) Disk() string { return filepath.Join(m.Dir(), "disk", "upper") }

// WriteDisk puts files, by their path in the machine, on the disk of a machine that is off. A directory in
// fresh hides what the host has there, so that the machine finds it empty.
func (m Machine) WriteDisk(fresh []string, files map[string]string) error {
	for _, dir := range fresh {
		dir = m.Disk() + dir
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("write disk of %s: %w", m.Name, err)
		}
		if err := unix.Setxattr(dir, "trusted.overlay.opaque", []byte("y"), 0); err != nil {
			return fmt.Errorf("write disk of %s: hide the host's %s: %w", m.Name, dir, err)
		}
	}
	for path, data := range files {
		path = m.Disk() + path
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(data), 0o644)); err != nil {
			return fmt.Errorf("write disk of %s: %w", m.Name, err)
		}
	}
	return nil
}

// Spec returns the spec of a machine without services.
func (m Machine) Spec() boot.Spec {
	return boot.Spec{
		Hostname: m.Name,
		Cgroup:   m.netns(),
		Disk:     filepath.Join(m.Dir(), "disk"),
		Share:    append([]string{m.site.BinDir(), m.site.ImageDir()}, m.site.Share...),
		Logs:     m.LogDir(),
	}
}

// Make stores the spec, makes the directories it names, and lets the machine find the others by name.
func (m Machine) Make(spec boot.Spec) error {
	dirs := []string{spec.Disk, spec.Logs}
	for from := range spec.Bind {
		dirs = append(dirs, from)
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make machine %s: %w", m.Name, err)
		}
	}
	if err := m.WriteDisk(nil, map[string]string{"/etc/hosts": m.site.Fabric.Topology.HostsFile()}); err != nil {
		return err
	}
	return spec.Write(m.file(specFile))
}

// Files in Dir.
const (
	specFile = "spec.json"
	pidFile  = "pid"
)

func (m Machine) file(name string) string { return filepath.Join(m.Dir(), name) }
