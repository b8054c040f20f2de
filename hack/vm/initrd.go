package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cavaliergopher/cpio"

	"github.com/muslin-net/muslin/hack/vm/internal/spec"
)

// modules are the files of modules and all they need, in the order to load them.
func (k kernel) modules(ctx context.Context, names []string) ([]string, error) {
	var files []string
	for _, name := range names {
		c := exec.CommandContext(ctx, modprobe(), "-d", k.dir, "-S", k.release, "--show-depends", name)
		var complaint bytes.Buffer
		c.Stderr = &complaint
		out, err := c.Output()
		if err != nil {
			return nil, fmt.Errorf("order modules: modprobe %s: %w: %s (Debian: apt-get install kmod)", name, err, complaint.Bytes())
		}
		for line := range strings.Lines(string(out)) {
			word, file, _ := strings.Cut(strings.TrimSpace(line), " ")
			if word == "insmod" && !slices.Contains(files, file) { // else "builtin"
				files = append(files, file)
			}
		}
	}
	return files, nil
}

// modprobe is in /sbin, which some PATHs lack.
func modprobe() string {
	if path, err := exec.LookPath("modprobe"); err == nil {
		return path
	}
	return "/sbin/modprobe"
}

// writeInitrd writes the file system that the kernel starts with: the guest as
// /init, the modules, and the spec, with s.Modules filled in. /dev/console,
// which process 1 writes to, is in the one inside the kernel's image.
func writeInitrd(path, guest string, modules []string, s spec.Spec) error {
	for _, m := range modules {
		s.Modules = append(s.Modules, "/"+filepath.Base(m))
	}
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	w := archive{cpio.NewWriter(file)}
	if err := w.copy("init", guest); err != nil {
		return err
	}
	if err := w.add(strings.TrimPrefix(spec.File, "/"), text); err != nil {
		return err
	}
	for i, m := range modules {
		if err := w.copy(strings.TrimPrefix(s.Modules[i], "/"), m); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return file.Close()
}

type archive struct{ *cpio.Writer }

func (a archive) copy(name, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return a.add(name, data)
}

func (a archive) add(name string, data []byte) error {
	err := a.WriteHeader(&cpio.Header{Name: name, Mode: cpio.TypeReg | 0o755, Links: 1, Size: int64(len(data))})
	if err != nil {
		return fmt.Errorf("add %s: %w", name, err)
	}
	if _, err := a.Write(data); err != nil {
		return fmt.Errorf("add %s: %w", name, err)
	}
	return nil
}
