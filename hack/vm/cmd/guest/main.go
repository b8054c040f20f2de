// Command guest is process 1 of a virtual machine: it mounts the host's root
// file system under an overlay in memory, runs the command of /spec.json,
// reports how it ended and powers off.
//
// It is not meant to be called by hand; use `vm`. It refuses to be anything but
// process 1.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/hack/vm/internal/spec"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest: this is the init of a virtual machine; use vm")
		os.Exit(2)
	}
	status, err := boot()
	result := spec.Result{Status: status}
	if err != nil {
		result.Error = err.Error()
		fmt.Println("guest:", err) // on the console, in case the port is not there
	}
	if err := report(result); err != nil {
		fmt.Println("guest:", err)
	}
	unix.Sync()
	fmt.Println("guest: power off:", unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
}

func boot() (status int, err error) {
	s, err := spec.Read(spec.File)
	if err != nil {
		return 0, err
	}
	if err := loadModules(s.Modules); err != nil {
		return 0, err
	}
	if err := mountRoot(); err != nil {
		return 0, err
	}
	if err := mountRest(s); err != nil {
		return 0, err
	}
	return run(s)
}

func loadModules(files []string) error {
	for _, name := range files {
		file, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("load module: %w", err)
		}
		err = unix.FinitModule(int(file.Fd()), "", 0)
		file.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load module %s: %w", name, err)
		}
	}
	return nil
}

type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

func mountAll(mounts []mount) error {
	for _, m := range mounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err)
		}
	}
	return nil
}

// mountRoot makes the overlay and moves to it. Process 1 shares its root with
// the kernel's own threads, so that what they start (modprobe, when a kind of
// device is asked for the first time) is found there, too.
func mountRoot() error {
	err := mountAll([]mount{
		// The size of a message is what the kernel's virtio transport can take.
		{spec.RootTag, "/lower", "9p", unix.MS_RDONLY, "trans=virtio,version=9p2000.L,msize=512000,cache=loose"},
		{"tmpfs", "/upper", "tmpfs", 0, ""},
	})
	if err != nil {
		return err
	}
	for _, dir := range []string{"/upper/data", "/upper/work"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("make overlay: %w", err)
		}
	}
	err = mountAll([]mount{{"overlay", "/root", "overlay", 0, "lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work"}})
	if err != nil {
		return err
	}
	if err := os.Chdir("/root"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	return os.Chdir("/")
}

// mountRest covers what the host has running below its root. /tmp stays the
// host's: it may hold the program to run.
func mountRest(s spec.Spec) error {
	return mountAll([]mount{
		{"proc", "/proc", "proc", 0, ""},
		{"sysfs", "/sys", "sysfs", 0, ""},
		{"devtmpfs", "/dev", "devtmpfs", 0, ""},
		{"devpts", "/dev/pts", "devpts", 0, ""},
		{"tmpfs", "/dev/shm", "tmpfs", 0, ""},
		{"tmpfs", "/run", "tmpfs", 0, "mode=755"},
		{s.ModuleDir, "/lib/modules/" + s.Release, "", unix.MS_BIND, ""},
	})
}

func run(s spec.Spec) (status int, err error) {
	if err := unix.Sethostname([]byte("vm")); err != nil {
		return 0, fmt.Errorf("set host name: %w", err)
	}
	for _, variable := range s.Env { // also for looking up the program
		name, value, _ := strings.Cut(variable, "=")
		if err := os.Setenv(name, value); err != nil {
			return 0, fmt.Errorf("set environment %s: %w", name, err)
		}
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return 0, fmt.Errorf("set lo up: %w: %s", err, out)
	}
	output, err := openPort(spec.OutputPort)
	if err != nil {
		return 0, err
	}
	defer output.Close()
	command := exec.Command(s.Argv[0], s.Argv[1:]...)
	command.Dir, command.Stdout, command.Stderr = s.Dir, output, output
	err = command.Run()
	var exit *exec.ExitError
	switch {
	case !errors.As(err, &exit):
		return 0, err
	case exit.ExitCode() >= 0:
		return exit.ExitCode(), nil
	}
	state := exit.Sys().(syscall.WaitStatus)
	return 128 + int(state.Signal()), nil
}

func report(r spec.Result) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	port, err := openPort(spec.ResultPort)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	defer port.Close()
	if _, err := port.Write(data); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// openPort opens a serial port by its name. The host tells the names some time
// after the driver is there.
func openPort(name string) (*os.File, error) {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		files, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if have, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(have)) == name {
				return os.OpenFile(filepath.Join("/dev", filepath.Base(filepath.Dir(file))), os.O_WRONLY, 0)
			}
		}
	}
	return nil, fmt.Errorf("there is no port %s", name)
}
