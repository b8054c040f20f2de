package cniinstall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Names of the files, and of the network that Calico's tools expect.
const (
	BinaryName     = "muslin"
	ConfigName     = "10-muslin.conflist"
	DefaultNetwork = "k8s-pod-network"

	temporary = ".muslin-new-"
	backup    = ".muslin-backup"
)

// Options say what is installed and where. The zero value of each has a
// meaning.
type Options struct {
	Source  string // the plugin's binary; default /usr/bin/muslin
	BinDir  string // as this process sees it; default /opt/cni/bin
	ConfDir string // as this process sees it; default /etc/cni/net.d

	Network    string // default DefaultNetwork; part of every allocation's handle
	CNIVersion string // default 1.0.0, the newest that containerd 1.6 knows
	MTU        int    // bytes; 0: the agent decides
	Socket     string // the agent's; empty: the plugin's default
	Spool      string // for DELs without an agent; empty: the plugin's default
}

func (o Options) withDefaults() Options {
	for field, value := range map[*string]string{
		&o.Source: "/usr/bin/muslin", &o.BinDir: "/opt/cni/bin", &o.ConfDir: "/etc/cni/net.d",
		&o.Network: DefaultNetwork, &o.CNIVersion: "1.0.0",
	} {
		if *field == "" {
			*field = value
		}
	}
	return o
}

// Binary copies the plugin into BinDir, mode 0755, and reports whether it had
// to: the same content with the same mode stays as it is. After an error the one
// that was there is as it was; Usable tells whether it will do.
func Binary(o Options) (changed bool, err error) {
	o = o.withDefaults()
	b, err := os.ReadFile(o.Source)
	if err != nil {
		return false, fmt.Errorf("read cni plugin: %w", err)
	}
	changed, err = put(filepath.Join(o.BinDir, BinaryName), b, 0o755)
	if err != nil {
		return false, fmt.Errorf("install cni plugin: %w", err)
	}
	return changed, nil
}

// Usable tells whether the plugin in BinDir is one of ours that runs here: nil
// if so. What plugin and agent say to each other has been the same since the
// first release, so any of them will do until this one can be written.
func Usable(ctx context.Context, o Options) error {
	path := filepath.Join(o.withDefaults().BinDir, BinaryName)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path) // without a verb it says what it is
	cmd.Env = []string{}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("run cni plugin: %w", err)
	}
	if !bytes.HasPrefix(out, []byte("CNI plugin "+BinaryName+" ")) {
		return fmt.Errorf("run cni plugin: %s is not Muslin's", path)
	}
	return nil
}

// Config writes the network configuration into ConfDir, mode 0644, and reports
// whether it had to. Plugins that others appended to it stay. Call it when the agent serves and not before. It fails when
// the plugin is not in BinDir: the node would be ready and no pod could start.
func Config(o Options) (changed bool, err error) {
	o = o.withDefaults()
	if !executable(filepath.Join(o.BinDir, BinaryName)) {
		return false, fmt.Errorf("write cni configuration: no plugin at %s", filepath.Join(o.BinDir, BinaryName))
	}
	path := filepath.Join(o.ConfDir, ConfigName)
	present, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("write cni configuration: %w", err)
	}
	b, err := Conflist(o, present, func(plugin string) bool { return executable(filepath.Join(o.BinDir, plugin)) })
	if err != nil {
		return false, err
	}
	changed, err = put(path, b, 0o644)
	if err != nil {
		return false, fmt.Errorf("write cni configuration: %w", err)
	}
	return changed, nil
}

// Uninstall takes both files away, the configuration first, puts back what was
// moved out of its way, and takes away what an interrupted installation may have
// left.
func Uninstall(o Options) error {
	o = o.withDefaults()
	return errors.Join(
		remove(o.ConfDir, ConfigName), putBack(o.ConfDir), remove(o.BinDir, BinaryName),
		sweep(o.ConfDir, 0), sweep(o.BinDir, 0))
}

func remove(dir, name string) error {
	if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("uninstall: %w", err)
	}
	return nil
}

func executable(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

// put makes path hold content with mode, durably, by way of a temporary file
// beside it.
func put(path string, content []byte, mode fs.FileMode) (changed bool, err error) {
	if holds(path, content, mode) {
		return false, nil
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, err
	}
	// Left by a process that was killed; one that is at work is younger.
	if err := sweep(dir, time.Hour); err != nil {
		return false, err
	}
	f, err := os.CreateTemp(dir, temporary)
	if err != nil {
		return false, err
	}
	defer os.Remove(f.Name()) // fails, as it should, after the rename
	_, err = io.Copy(f, bytes.NewReader(content))
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return false, err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return false, err
	}
	return true, syncDir(dir)
}

func holds(path string, content []byte, mode fs.FileMode) bool {
	st, err := os.Lstat(path)
	if err != nil || st.Mode() != mode || st.Size() != int64(len(content)) {
		return false
	}
	have, err := os.ReadFile(path)
	return err == nil && bytes.Equal(have, content)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// sweep removes our temporary files that are at least as old as age.
func sweep(dir string, age time.Duration) error {
	names, err := filepath.Glob(filepath.Join(dir, temporary+"*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		if st, err := os.Lstat(name); err != nil || time.Since(st.ModTime()) < age {
			continue
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
