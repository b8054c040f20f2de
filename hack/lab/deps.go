package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// dependencies are the programs of the host that a lab runs, with the Debian
// package of each.
var dependencies = []struct{ program, debian string }{
	{"bird", "bird2"}, {"birdc", "bird2"},
	{"/usr/lib/frr/zebra", "frr"}, {"/usr/lib/frr/bgpd", "frr"}, {"vtysh", "frr"},
	{"containerd", "containerd"}, {"ctr", "containerd"},
	{"runc", "runc"},
	{"/usr/lib/cni/loopback", "containernetworking-plugins"}, {"/usr/lib/cni/portmap", "containernetworking-plugins"},
	{"busybox", "busybox-static"},
	{"nft", "nftables"},
	{"ip", "iproute2"},
	{"tcpdump", "tcpdump"},
	{"pgrep", "procps"},
}

// CheckDeps tells which programs are missing on this host, and the command
// that installs them on Debian.
func CheckDeps() error {
	var missing, packages []string
	for _, dependency := range dependencies {
		if _, err := exec.LookPath(dependency.program); err == nil {
			continue
		}
		if _, err := os.Stat("/usr/sbin/" + dependency.program); err == nil {
			continue // Debian keeps /usr/sbin out of some PATHs; machines have it
		}
		missing = append(missing, dependency.program)
		if !slices.Contains(packages, dependency.debian) {
			packages = append(packages, dependency.debian)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return errors.Join(
		fmt.Errorf("programs are missing: %s", strings.Join(missing, ", ")),
		fmt.Errorf("install them: apt-get install -y --no-install-recommends %s", strings.Join(packages, " ")))
}

// inotifyInstances is what some labs side by side need: the kernel's default, 128 a user, is less than the kubelets and
// containerds of five.
const inotifyInstances = 1024

// raiseLimits lets the host's root have enough inotify instances. A host that refuses keeps what it has.
func (l *Lab) raiseLimits(context.Context) error {
	const path = "/proc/sys/fs/inotify/max_user_instances"
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read limits: %w", err)
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err != nil || n >= inotifyInstances {
		return err
	}
	if err := os.WriteFile(path, []byte(strconv.Itoa(inotifyInstances)), 0); err != nil {
		l.progress.note("fs.inotify.max_user_instances stays at %s: %v", strings.TrimSpace(string(text)), err)
	}
	return nil
}
