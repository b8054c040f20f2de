package boot

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// mountRoot makes the machine's root file system and moves into it.
func mountRoot(spec Spec) error {
	// Private first: nothing mounted here may reach the host. Then forget the
	// host's named network namespaces, or this machine would keep them alive.
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := forgetNetns(); err != nil {
		return err
	}
	root := filepath.Join(spec.Disk, "root")
	for _, dir := range []string{"upper", "work", "root"} {
		if err := os.MkdirAll(filepath.Join(spec.Disk, dir), 0o755); err != nil {
			return err
		}
	}
	layers := fmt.Sprintf("lowerdir=/,upperdir=%s/upper,workdir=%s/work", spec.Disk, spec.Disk)
	if err := mount("overlay", root, "overlay", 0, layers); err != nil {
		return err
	}
	if err := mountKernel(root); err != nil {
		return err
	}
	for _, dir := range []string{"/run", "/tmp"} {
		if err := mount("tmpfs", root+dir, "tmpfs", 0, "mode=1777"); err != nil {
			return err
		}
	}
	if err := mountShares(root, spec); err != nil {
		return err
	}
	return pivot(root)
}

func forgetNetns() error {
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	lines := strings.Split(string(table), "\n")
	for i := len(lines) - 1; i >= 0; i-- { // last mounted first
		fields := strings.Fields(lines[i])
		if len(fields) > 1 && (fields[1] == "/run/netns" || strings.HasPrefix(fields[1], "/run/netns/")) {
			// One may have gone meanwhile, on the host's side it is another mount.
			_ = unix.Unmount(fields[1], unix.MNT_DETACH)
		}
	}
	return nil
}

// mountKernel gives root a /proc of this PID namespace, a /sys of this network
// namespace with the host's cgroups in it, and the host's /dev.
func mountKernel(root string) error {
	if err := mount("proc", root+"/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	if err := mount("sysfs", root+"/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	if err := mount("/sys/fs/cgroup", root+"/sys/fs/cgroup", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	return mount("/dev", root+"/dev", "", unix.MS_BIND|unix.MS_REC, "")
}

func mountShares(root string, spec Spec) error {
	binds := map[string]string{}
	for _, path := range spec.Share {
		binds[path] = path
	}
	for from, to := range spec.Bind {
		binds[from] = to
	}
	from := make([]string, 0, len(binds))
	for path := range binds {
		from = append(from, path)
	}
	sort.Strings(from)
	for _, path := range from {
		if err := bind(path, root+binds[path]); err != nil {
			return err
		}
	}
	fakes := filepath.Join(spec.Disk, "sysctl")
	if err := os.MkdirAll(fakes, 0o755); err != nil {
		return err
	}
	for key, value := range spec.Sysctls {
		file := filepath.Join(fakes, strings.ReplaceAll(key, "/", "_"))
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := mount(file, root+"/proc/sys/"+key, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}

func bind(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = os.MkdirAll(to, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(to), 0o755); err == nil {
		var file *os.File
		if file, err = os.OpenFile(to, os.O_CREATE, 0o644); err == nil {
			err = file.Close()
		}
	}
	if err != nil {
		return err
	}
	return mount(from, to, "", unix.MS_BIND|unix.MS_REC, "")
}

func pivot(root string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot to %s: %w", root, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the host's root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	// The kubelet wants / shared, for mounts that propagate between pods and node.
	return mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	return nil
}
