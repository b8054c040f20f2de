// Command machine is the lab's own program inside its machines.
//
//	machine init SPEC             process 1: boot the machine of a spec file
//	machine exec PID NS,… ARGV…   run ARGV in namespaces of process PID
//	machine child ARGV…           inner half of exec
//
// It is not meant to be called by hand; use `lab`. It never returns from init.
package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/hack/lab/internal/boot"
)

// The main goroutine stays on one thread: exec moves that thread into other
// namespaces and starts the program from there.
func init() { runtime.LockOSThread() }

func main() {
	status, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "machine:", err)
	}
	os.Exit(status)
}

func run(args []string) (status int, err error) {
	switch {
	case len(args) == 2 && args[0] == "init":
		return 1, initMachine(args[1])
	case len(args) >= 4 && args[0] == "exec":
		return enterAndRun(args[1], strings.Split(args[2], ","), args[3:])
	case len(args) >= 2 && args[0] == "child":
		return 127, becomeChild(args[1:])
	}
	return 2, errors.New("usage: machine init SPEC | machine exec PID NS,… ARGV… | machine child ARGV…")
}

func initMachine(path string) error {
	spec, err := boot.ReadSpec(path)
	if err != nil {
		return err
	}
	return boot.Run(spec, slog.New(slog.NewTextHandler(os.Stderr, nil)))
}

// kinds are the namespaces exec can enter, in the order to do so: the mount
// namespace last, because it hides the /proc of the others.
var kinds = []struct {
	name string
	flag int
}{
	{"net", unix.CLONE_NEWNET}, {"uts", unix.CLONE_NEWUTS}, {"ipc", unix.CLONE_NEWIPC},
	{"pid", unix.CLONE_NEWPID}, {"mnt", unix.CLONE_NEWNS},
}

func enter(pid string, names []string) error {
	wanted := map[string]bool{}
	for _, name := range names {
		wanted[name] = true
	}
	// A thread that shares its root directory with others may not change its
	// mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare root directory: %w", err)
	}
	dir, err := unix.Open("/proc/"+pid+"/ns", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("find namespaces of process %s: %w", pid, err)
	}
	for _, kind := range kinds {
		if !wanted[kind.name] {
			continue
		}
		fd, err := unix.Openat(dir, kind.name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s namespace of process %s: %w", kind.name, pid, err)
		}
		if err := unix.Setns(fd, kind.flag); err != nil {
			return fmt.Errorf("enter %s namespace of process %s: %w", kind.name, pid, err)
		}
	}
	return nil
}

func enterAndRun(pid string, names, argv []string) (int, error) {
	if _, err := strconv.Atoi(pid); err != nil {
		return 2, fmt.Errorf("process id %q: %w", pid, err)
	}
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	if err := enter(pid, names); err != nil {
		return 1, err
	}
	child := exec.Command(self, append([]string{"child"}, argv...)...)
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := child.Start(); err != nil {
		return 1, err
	}
	go func() {
		for s := range signals {
			_ = child.Process.Signal(s) // it may have ended
		}
	}()
	err = child.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 1, err
	}
	if status, ok := child.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil // as a shell reports it
	}
	return child.ProcessState.ExitCode(), nil
}

// becomeChild ties this process to its parent, so that killing the outer half
// of exec ends what runs in the machine, and becomes argv. Go's own Pdeathsig
// cannot be used: it compares parent ids across PID namespaces.
func becomeChild(argv []string) error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("tie to parent: %w", err)
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	return fmt.Errorf("run %s: %w", path, unix.Exec(path, argv, os.Environ()))
}
