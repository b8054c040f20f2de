package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/hack/lab/internal/boot"
	"github.com/muslin-net/muslin/hack/lab/internal/cgroup"
	"github.com/muslin-net/muslin/hack/lab/internal/netns"
)

// parallel bounds how many machines are started or stopped at a time.
const parallel = 8

// machineDir holds what belongs to one machine: its spec, pid and disk.
func (l *Lab) machineDir(machine string) string { return filepath.Join(l.dir, "machines", machine) }

// diskDir is the upper layer of the machine's root: its own files.
func (l *Lab) diskDir(machine string) string {
	return filepath.Join(l.machineDir(machine), "disk", "upper")
}

// binDir holds the programs the lab has built, shared between labs.
func (l *Lab) binDir() string { return filepath.Join(filepath.Dir(l.dir), "bin") }

func (l *Lab) program(name string) string { return filepath.Join(l.binDir(), name) }

// content is a file to be put on a machine's disk before it boots.
type content struct {
	path string // absolute, as the machine sees it
	data string
}

// writeDisk puts files on the disk of a machine that is off. A directory in
// fresh hides what the host has there, so that the machine finds it empty.
func (l *Lab) writeDisk(machine string, fresh []string, files []content) error {
	disk := l.diskDir(machine)
	for _, dir := range fresh {
		if err := os.MkdirAll(disk+dir, 0o755); err != nil {
			return fmt.Errorf("write disk of %s: %w", machine, err)
		}
		if err := unix.Setxattr(disk+dir, "trusted.overlay.opaque", []byte("y"), 0); err != nil {
			return fmt.Errorf("write disk of %s: hide %s of the host: %w", machine, dir, err)
		}
	}
	for _, file := range files {
		if err := os.MkdirAll(filepath.Dir(disk+file.path), 0o755); err != nil {
			return fmt.Errorf("write disk of %s: %w", machine, err)
		}
		if err := os.WriteFile(disk+file.path, []byte(file.data), 0o644); err != nil {
			return fmt.Errorf("write disk of %s: %w", machine, err)
		}
	}
	return nil
}

// newSpec returns the spec of a machine without services.
func (l *Lab) newSpec(machine string) boot.Spec {
	return boot.Spec{
		Hostname: machine,
		Cgroup:   l.Fabric.Netns(machine),
		Disk:     filepath.Join(l.machineDir(machine), "disk"),
		Share:    append([]string{l.binDir(), l.imageDir()}, l.options.Share...),
		Logs:     l.LogDir(machine),
	}
}

// writeSpec stores the spec and makes the directories it names.
func (l *Lab) writeSpec(machine string, spec boot.Spec) error {
	dirs := []string{spec.Disk, spec.Logs}
	for from := range spec.Bind {
		dirs = append(dirs, from)
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make machine %s: %w", machine, err)
		}
	}
	return spec.Write(l.specFile(machine))
}

func (l *Lab) specFile(machine string) string {
	return filepath.Join(l.machineDir(machine), "spec.json")
}
func (l *Lab) pidFile(machine string) string { return filepath.Join(l.machineDir(machine), "pid") }

// powerOn makes the machine's network and cgroup and starts its process 1. It
// does not wait for the services.
func (l *Lab) powerOn(machine string) error {
	if err := l.Fabric.Plug(machine); err != nil {
		return fmt.Errorf("start %s: %w", machine, err)
	}
	if err := cgroup.Create(l.Fabric.Netns(machine)); err != nil {
		return fmt.Errorf("start %s: %w", machine, err)
	}
	logFile, err := os.OpenFile(filepath.Join(l.LogDir(machine), "init.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: %w", machine, err)
	}
	defer logFile.Close()
	command := exec.Command(l.program("machine"), "init", l.specFile(machine))
	command.Env = []string{"PATH=" + machinePath, "HOME=/root", "LANG=C.UTF-8"}
	command.Dir = "/"
	command.Stdout, command.Stderr = logFile, logFile
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID,
		Setsid:     true,
	}
	if err := netns.Do(l.Fabric.Netns(machine), command.Start); err != nil {
		return fmt.Errorf("start %s: %w", machine, err)
	}
	l.keepers.Go(func() { _ = command.Wait() }) // killed one day; only the zombie matters
	if err := os.WriteFile(l.pidFile(machine), []byte(strconv.Itoa(command.Process.Pid)), 0o644); err != nil {
		return fmt.Errorf("start %s: %w", machine, err)
	}
	return nil
}

// machinePath is the search path inside machines.
const machinePath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// powerOff is a power cut: every process of the machine dies at once, its
// network namespace and cgroup go, its disk stays.
func (l *Lab) powerOff(ctx context.Context, machine string) error {
	return errors.Join(
		// The cables first: nothing the dying processes say is heard.
		l.Fabric.Cut(machine),
		cgroup.Remove(l.Fabric.Netns(machine)),
		killInNetns(ctx, l.Fabric.Netns(machine)),
		l.Fabric.Unplug(machine),
		removeIfThere(l.pidFile(machine)),
	)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// waitBooted waits until the machine's last service is ready. It fails at once
// when process 1 has ended, with the end of its log.
func (l *Lab) waitBooted(ctx context.Context, machine string) error {
	for {
		pid, err := l.initPID(machine)
		if err != nil {
			return fmt.Errorf("boot %s: process 1 has ended: %s", machine, l.logTail(machine, "init.log"))
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/root%s", pid, boot.BootedFile)); err == nil {
			return nil
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("boot %s: %w: %s", machine, err, l.logTail(machine, "init.log"))
		}
	}
}

// initPID returns the id of the machine's process 1, or an error when the
// machine is off. A recycled id is told by its network namespace.
func (l *Lab) initPID(machine string) (int, error) {
	data, err := os.ReadFile(l.pidFile(machine))
	if err != nil {
		return 0, fmt.Errorf("machine %s is off", machine)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || !inNetns(pid, l.Fabric.Netns(machine)) {
		return 0, fmt.Errorf("machine %s is off", machine)
	}
	return pid, nil
}

// logTail returns the last lines of a log, for error messages.
func (l *Lab) logTail(machine, file string) string {
	const lines = 5
	data, err := os.ReadFile(filepath.Join(l.LogDir(machine), file))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// inNetns tells whether process pid lives in the named network namespace.
func inNetns(pid int, name string) bool {
	var process, named unix.Stat_t
	if unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &process) != nil || unix.Stat(netns.Path(name), &named) != nil {
		return false
	}
	return process.Ino == named.Ino && process.Dev == named.Dev
}

// killInNetns ends every process of a network namespace and waits until they
// are gone: for those that no cgroup and no pid file tells of.
func killInNetns(ctx context.Context, name string) error {
	if !netns.Exists(name) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		found := 0
		for _, pid := range processes() {
			if pid != os.Getpid() && inNetns(pid, name) {
				found++
				_ = unix.Kill(pid, unix.SIGKILL) // it may have ended by itself
			}
		}
		if found == 0 {
			return nil
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("end processes in %s: %d left: %w", name, found, err)
		}
	}
}

// killRecorded ends machines that died half-born, between the start of process
// 1 and its entry into the cgroup.
func (l *Lab) killRecorded() error {
	files, err := filepath.Glob(filepath.Join(l.dir, "machines", "*", "pid"))
	if err != nil {
		return err
	}
	for _, file := range files {
		data, _ := os.ReadFile(file)
		pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
		if err != nil {
			continue
		}
		command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if strings.Contains(string(command), filepath.Dir(file)) {
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended by itself
		}
	}
	return nil
}

// processes lists all process ids of the host.
func processes() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// sleep waits, or returns the context's error.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
