package machine

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
	"github.com/muslin-net/muslin/hack/lab/internal/wait"
)

// PowerOff is a power cut: all processes of the machine end at once, unheard,
// and its network is gone. The disk stays.
func (m Machine) PowerOff(ctx context.Context) error {
	return m.alone("off", func() error { return m.powerOff(ctx) })
}

// PowerOn boots a machine that is off and waits until its services are ready.
// What was not on its disk is gone: routes, rules, devices, /run and /tmp.
func (m Machine) PowerOn(ctx context.Context) error {
	return m.alone("on", func() error {
		if _, err := m.PID(); err == nil {
			return errors.New("it is on")
		}
		// After a crash rather than a power cut something may be left.
		if err := m.powerOff(ctx); err != nil {
			return err
		}
		return m.site.Start(ctx, []string{m.Name})
	})
}

// alone switches a machine while nobody else changes the lab.
func (m Machine) alone(power string, do func() error) error {
	if err := m.site.Fabric.Topology.Check(m.Name); err != nil {
		return err
	}
	unlock, err := m.site.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := do(); err != nil {
		return fmt.Errorf("power %s %s: %w", power, m.Name, err)
	}
	return nil
}

// powerOn makes the machine's network and cgroup and starts its process 1. It
// does not wait for the services.
func (m Machine) powerOn() error {
	if err := m.site.Fabric.Plug(m.Name); err != nil {
		return err
	}
	if err := cgroup.Create(m.netns()); err != nil {
		return err
	}
	logFile, err := os.OpenFile(filepath.Join(m.LogDir(), "init.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer logFile.Close()
	command := exec.Command(m.site.Program("machine"), "init", m.file(specFile))
	command.Env = []string{"PATH=" + searchPath, "HOME=/root", "LANG=C.UTF-8"}
	command.Dir = "/"
	command.Stdout, command.Stderr = logFile, logFile
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID,
		Setsid:     true,
	}
	if err := netns.Do(m.netns(), command.Start); err != nil {
		return err
	}
	m.site.keepers.Go(func() { _ = command.Wait() }) // killed one day; only the zombie matters
	return os.WriteFile(m.file(pidFile), []byte(strconv.Itoa(command.Process.Pid)), 0o644)
}

// powerOff is a power cut: every process of the machine dies at once, its
// network namespace and cgroup go, its disk stays.
func (m Machine) powerOff(ctx context.Context) error {
	return errors.Join(
		// The cables first: nothing the dying processes say is heard.
		m.site.Fabric.Cut(m.Name),
		cgroup.Remove(m.netns()),
		killInNetns(ctx, m.netns()),
		m.site.Fabric.Unplug(m.Name),
		os.RemoveAll(m.file(pidFile)),
	)
}

// waitBooted waits until the machine's last service is ready. It fails at once
// when process 1 has ended, with the end of its log.
func (m Machine) waitBooted(ctx context.Context) error {
	for {
		pid, err := m.PID()
		if err != nil {
			return fmt.Errorf("boot %s: process 1 has ended: %s", m.Name, m.LogTail("init.log"))
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/root%s", pid, boot.BootedFile)); err == nil {
			return nil
		}
		if err := wait.Sleep(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("boot %s: %w: %s", m.Name, err, m.LogTail("init.log"))
		}
	}
}

// PID returns the id of the machine's process 1, or an error when the
// machine is off. A recycled id is told by its network namespace.
func (m Machine) PID() (int, error) {
	data, err := os.ReadFile(m.file(pidFile))
	if err != nil {
		return 0, fmt.Errorf("machine %s is off", m.Name)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || !inNetns(pid, m.netns()) {
		return 0, fmt.Errorf("machine %s is off", m.Name)
	}
	return pid, nil
}

// LogTail returns the last lines of a log, for error messages.
func (m Machine) LogTail(file string) string {
	const lines = 5
	data, err := os.ReadFile(filepath.Join(m.LogDir(), file))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
