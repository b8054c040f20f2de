package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// cache is the directory with kernels and the guest's init. While it is open no
// other process changes it.
type cache struct {
	dir     string
	release string // of Debian, whose kernels are used; empty: this machine's
	lock    *os.File
	notes   io.Writer
}

func openCache(dir, release string, notes io.Writer) (*cache, error) {
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("find cache directory: %w", err)
		}
		dir = filepath.Join(user, "muslin", "vm")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find cache directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make cache directory: %w", err)
	}
	lock, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("lock cache: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		lock.Close()
		return nil, fmt.Errorf("lock cache %s: %w", dir, err)
	}
	if notes == nil {
		notes = io.Discard
	}
	return &cache{dir: dir, release: release, lock: lock, notes: notes}, nil
}

func (c *cache) close() { c.lock.Close() }

// guest builds the guest's init. The go command sees for itself whether there
// is anything to do.
func (c *cache) guest(ctx context.Context) (string, error) {
	const pkg = "github.com/muslin-net/muslin/hack/vm/cmd/guest"
	file := filepath.Join(c.dir, "guest")
	command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", file, pkg)
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOWORK=off")
	if out, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: %s", pkg, err, out)
	}
	return file, nil
}

// kernel is an unpacked kernel package.
type kernel struct {
	dir     string
	release string // as uname -r says it
}

func (k kernel) packed() string    { return filepath.Join(k.dir, "boot", "vmlinuz-"+k.release) }
func (k kernel) image() string     { return filepath.Join(k.dir, "boot", "vmlinux-"+k.release) }
func (k kernel) moduleDir() string { return filepath.Join(k.dir, "lib", "modules", k.release) }

// unpack makes the kernel's image from the packed one, once. The kernel would
// unpack itself, with instructions that qemu translates: that is most of a boot.
func (k kernel) unpack(ctx context.Context) error {
	if _, err := os.Stat(k.image()); err == nil {
		return nil
	}
	packed, err := os.ReadFile(k.packed())
	if err != nil {
		return err
	}
	start := bytes.Index(packed, []byte("\xfd7zXZ\x00"))
	if start < 0 {
		return fmt.Errorf("unpack %s: it is not packed with xz", k.packed())
	}
	c := exec.CommandContext(ctx, "xz", "--decompress", "--stdout", "--single-stream")
	c.Stdin = bytes.NewReader(packed[start:])
	var complaint bytes.Buffer
	c.Stderr = &complaint
	image, err := c.Output()
	if err != nil {
		return fmt.Errorf("unpack %s: %w: %s (Debian: apt-get install xz-utils)", k.packed(), err, complaint.Bytes())
	}
	whole := k.image() + ".part"
	if err := os.WriteFile(whole, image, 0o644); err != nil {
		return err
	}
	return os.Rename(whole, k.image())
}

// kernel returns the kernel of the cache, the newest if there are several, and
// fetches one if there is none.
func (c *cache) kernel(ctx context.Context) (kernel, error) {
	k, ok, err := c.newest()
	if err == nil && !ok {
		fmt.Fprintln(c.notes, "vm: fetching a Debian kernel into", c.kernels(), "(once, 70 MB)")
		if err = c.fetch(ctx); err == nil {
			k, ok, err = c.newest()
		}
		if err == nil && !ok {
			err = errors.New("the kernel package holds no kernel")
		}
	}
	if err != nil {
		return kernel{}, err
	}
	return k, k.unpack(ctx)
}

// kernels is where those of the release are.
func (c *cache) kernels() string { return filepath.Join(c.dir, c.release) }

// newest finds the kernel whose files were made last. What a broken fetch left
// does not end in kernelSuffix.
func (c *cache) newest() (k kernel, ok bool, err error) {
	images, err := filepath.Glob(filepath.Join(c.kernels(), "*"+kernelSuffix, "boot", "vmlinuz-*"))
	if err != nil || len(images) == 0 {
		return kernel{}, false, err
	}
	found := map[string]int64{}
	for _, image := range images {
		info, err := os.Stat(image)
		if err != nil {
			return kernel{}, false, err
		}
		found[image] = info.ModTime().UnixNano()
	}
	image := slices.MaxFunc(images, func(a, b string) int { return int(found[a] - found[b]) })
	_, release, _ := strings.Cut(filepath.Base(image), "-")
	return kernel{dir: filepath.Dir(filepath.Dir(image)), release: release}, true, nil
}

const kernelSuffix = ".kernel"

// fetch downloads the kernel's package, whose origin apt verifies, and unpacks
// it. It is not installed.
func (c *cache) fetch(ctx context.Context) error {
	if err := os.MkdirAll(c.kernels(), 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(c.kernels(), "fetch-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	if err := c.download(ctx, work); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("apt-get download left %d packages", len(debs))
	}
	root := filepath.Join(work, "root")
	if err := command(ctx, work, "dpkg", "-x", debs[0], root); err != nil {
		return err
	}
	// Modules find one another, inside the guest, too, by what depmod writes.
	if err := command(ctx, work, "depmod", "-b", root, releaseOf(root)); err != nil {
		return err
	}
	name := strings.TrimSuffix(filepath.Base(debs[0]), ".deb") + kernelSuffix
	return os.Rename(root, filepath.Join(c.kernels(), name))
}

func releaseOf(root string) string {
	dirs, _ := filepath.Glob(filepath.Join(root, "lib", "modules", "*")) // the pattern is good
	if len(dirs) != 1 {
		return ""
	}
	return filepath.Base(dirs[0])
}

func command(ctx context.Context, dir, name string, args ...string) error {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
