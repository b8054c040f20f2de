package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// cache is the directory with kernels and the guest's init. While it is open no
// other process changes it.
type cache struct {
	dir   string
	lock  *os.File
	notes io.Writer
}

func openCache(dir string, notes io.Writer) (*cache, error) {
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
	return &cache{dir: dir, lock: lock, notes: notes}, nil
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

func (k kernel) image() string     { return filepath.Join(k.dir, "boot", "vmlinuz-"+k.release) }
func (k kernel) moduleDir() string { return filepath.Join(k.dir, "lib", "modules", k.release) }

// metaPackage depends on the release's generic kernel. (The cloud flavour has
// no 9p.)
const metaPackage = "linux-image-amd64"

// kernel returns the kernel of the cache, the newest if there are several, and
// fetches one if there is none.
func (c *cache) kernel(ctx context.Context) (kernel, error) {
	if k, ok, err := c.newest(); ok || err != nil {
		return k, err
	}
	fmt.Fprintln(c.notes, "vm: fetching a Debian kernel into", c.dir, "(once, 70 MB)")
	err := c.fetch(ctx)
	if err != nil {
		// A fresh machine has no package lists, and old lists name packages
		// that are gone.
		if out, update := exec.CommandContext(ctx, "apt-get", "update", "-qq").CombinedOutput(); update != nil {
			return kernel{}, errors.Join(err, fmt.Errorf("apt-get update: %w: %s", update, out))
		}
		err = c.fetch(ctx)
	}
	if err != nil {
		return kernel{}, err
	}
	k, ok, err := c.newest()
	if err == nil && !ok {
		err = errors.New("the kernel package holds no kernel")
	}
	return k, err
}

// newest finds the kernel whose files were made last. What a broken fetch left
// does not end in kernelSuffix.
func (c *cache) newest() (k kernel, ok bool, err error) {
	images, err := filepath.Glob(filepath.Join(c.dir, "*"+kernelSuffix, "boot", "vmlinuz-*"))
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

var kernelPackage = regexp.MustCompile(`(?m)^ *Depends: (linux-image-[0-9]\S*)$`)

// fetch downloads the kernel's package, whose origin apt verifies, and unpacks
// it. It is not installed.
func (c *cache) fetch(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "apt-cache", "depends", metaPackage).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ask apt for %s: %w: %s", metaPackage, err, out)
	}
	match := kernelPackage.FindSubmatch(out)
	if match == nil {
		return fmt.Errorf("ask apt for %s: it depends on no kernel: %s", metaPackage, out)
	}
	work, err := os.MkdirTemp(c.dir, "fetch-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	if err := command(ctx, work, "apt-get", "download", "-q", string(match[1])); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("apt-get download %s left %d packages", match[1], len(debs))
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
	return os.Rename(root, filepath.Join(c.dir, name))
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
