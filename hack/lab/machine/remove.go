package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/hack/lab/internal/cgroup"
	"github.com/muslin-net/muslin/hack/lab/internal/netns"
	"github.com/muslin-net/muslin/hack/lab/internal/wait"
	"github.com/muslin-net/muslin/pkg/task"
)

// Leftovers names what is there of a lab: namespaces, cgroups, state.
func (s *Site) Leftovers() ([]string, error) {
	prefix := s.Fabric.Lab + "-"
	spaces, err := netns.List(prefix)
	if err != nil {
		return nil, err
	}
	groups, err := cgroup.List(prefix)
	if err != nil {
		return nil, err
	}
	var left []string
	for _, name := range spaces {
		left = append(left, "network namespace "+name)
	}
	for _, name := range groups {
		left = append(left, "cgroup "+name)
	}
	if _, err := os.Stat(s.StateFile()); err == nil {
		left = append(left, s.StateFile())
	}
	return left, nil
}

// Remove ends every process of the lab and removes its namespaces, cgroups,
// mounts and files, by the lab's name alone. It goes on after an error.
func (s *Site) Remove(ctx context.Context) error {
	prefix := s.Fabric.Lab + "-"
	var errs []error
	spaces, err := netns.List(prefix)
	errs = append(errs, err)
	groups, err := cgroup.List(prefix)
	errs = append(errs, err)
	errs = append(errs, task.Each(Parallel, groups, cgroup.Remove))
	errs = append(errs, task.Each(Parallel, spaces, func(name string) error {
		return errors.Join(killInNetns(ctx, name), netns.Delete(name))
	}))
	errs = append(errs, s.killRecorded(), os.RemoveAll(s.Dir))
	s.keepers.Wait()
	return errors.Join(errs...)
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
		if err := wait.Sleep(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("end processes in %s: %d left: %w", name, found, err)
		}
	}
}

// killRecorded ends machines that died half-born, between the start of process
// 1 and its entry into the cgroup.
func (s *Site) killRecorded() error {
	files, err := filepath.Glob(filepath.Join(s.Dir, "machines", "*", "pid"))
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
