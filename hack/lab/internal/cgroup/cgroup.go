// Package cgroup makes, joins and removes one cgroup in every hierarchy of
// this machine, be it cgroup v1, v2 alone, or both beside each other.
//
// A cgroup is named by its path below the root of each hierarchy. Processes
// live in the child System, so that the cgroup itself may hand controllers
// down to other children, which cgroup v2 refuses to cgroups with processes.
// It never touches a cgroup outside the name it was given, but for enabling
// controllers at the root of a pure v2 hierarchy.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// System is the child cgroup that holds a machine's own processes.
const System = "system"

// root is where the cgroup hierarchies are mounted.
const root = "/sys/fs/cgroup"

type hierarchy struct {
	dir string
	v2  bool
}

func hierarchies() ([]hierarchy, error) {
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, fmt.Errorf("find cgroup hierarchies: %w", err)
	}
	var found []hierarchy
	for _, line := range strings.Split(string(table), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 3 || !strings.HasPrefix(fields[1], root) {
			continue
		}
		if fields[2] == "cgroup" || fields[2] == "cgroup2" {
			found = append(found, hierarchy{dir: fields[1], v2: fields[2] == "cgroup2"})
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("find cgroup hierarchies: none mounted under %s", root)
	}
	return found, nil
}

// Create makes the cgroup called name with its child System.
func Create(name string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		if err := h.create(name); err != nil {
			return fmt.Errorf("create cgroup %s in %s: %w", name, h.dir, err)
		}
	}
	return nil
}

func (h hierarchy) create(name string) error {
	parent := h.dir
	for _, child := range []string{name, System} {
		dir := filepath.Join(parent, child)
		if h.v2 {
			if err := delegate(parent); err != nil {
				return err
			}
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := inheritCPUSet(parent, dir); err != nil {
			return err
		}
		// Old kernels only; newer ones have it always on and may lack the file.
		_ = os.WriteFile(filepath.Join(dir, "memory.use_hierarchy"), []byte("1"), 0)
		parent = dir
	}
	return nil
}

// needed are the controllers that kubelet and runc use, of those the machine
// has.
var needed = []string{"cpu", "cpuset", "io", "memory", "pids", "hugetlb"}

// delegate hands the needed controllers of a v2 cgroup down to its children.
func delegate(dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	var errs []error
	for _, controller := range strings.Fields(string(data)) {
		if !slices.Contains(needed, controller) {
			continue
		}
		file := filepath.Join(dir, "cgroup.subtree_control")
		if err := os.WriteFile(file, []byte("+"+controller), 0); err != nil {
			errs = append(errs, fmt.Errorf("delegate controller %s: %w", controller, err))
		}
	}
	return errors.Join(errs...)
}

// inheritCPUSet fills what cgroup v1 leaves empty and needs before a process
// may enter.
func inheritCPUSet(parent, dir string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		data, err := os.ReadFile(filepath.Join(parent, file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if len(strings.TrimSpace(string(data))) == 0 {
			continue // v2: empty means inherited
		}
		if err := os.WriteFile(filepath.Join(dir, file), data, 0); err != nil {
			return err
		}
	}
	return nil
}

// Join moves the calling process into the child System of the cgroup.
func Join(name string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		file := filepath.Join(h.dir, name, System, "cgroup.procs")
		if err := os.WriteFile(file, []byte("0"), 0); err != nil {
			return fmt.Errorf("join cgroup %s: %w", name, err)
		}
	}
	return nil
}

// List returns the sorted names of the top cgroups that begin with prefix, in
// any hierarchy.
func List(prefix string) ([]string, error) {
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, h := range all {
		entries, err := os.ReadDir(h.dir)
		if err != nil {
			return nil, fmt.Errorf("list cgroups: %w", err)
		}
		for _, entry := range entries {
			if entry.IsDir() && strings.HasPrefix(entry.Name(), prefix) {
				seen[entry.Name()] = true
			}
		}
	}
	names := make([]string, 0, len(seen))
	for name := range seen {
		names = append(names, name)
	}
	sort.Strings(names)
	return names, nil
}

// Processes returns the ids of all processes in the cgroup and below it.
func Processes(name string) ([]int, error) {
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}
	seen := map[int]bool{}
	for _, h := range all {
		for _, dir := range subtree(filepath.Join(h.dir, name)) {
			data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			if err != nil {
				continue // it went away meanwhile
			}
			for _, word := range strings.Fields(string(data)) {
				if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
					seen[pid] = true
				}
			}
		}
	}
	pids := make([]int, 0, len(seen))
	for pid := range seen {
		pids = append(pids, pid)
	}
	sort.Ints(pids)
	return pids, nil
}

// Remove kills every process in the cgroup and below it, and removes them
// all. Removing an absent cgroup is success.
func Remove(name string) error {
	const patience = 20 * time.Second
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		pids, err := Processes(name)
		if err != nil {
			return err
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended by itself
		}
		left, err := removeOnce(name)
		if err != nil {
			return err
		}
		if left == "" {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("remove cgroup %s: still there after %s, processes %v", left, patience, pids)
		}
	}
}

func removeOnce(name string) (left string, err error) {
	all, err := hierarchies()
	if err != nil {
		return "", err
	}
	for _, h := range all {
		top := filepath.Join(h.dir, name)
		dirs := subtree(top)
		for i := len(dirs) - 1; i >= 0; i-- {
			_ = unix.Rmdir(dirs[i]) // busy ones are tried again
		}
		if _, err := os.Stat(top); err == nil {
			left = top
		}
	}
	return left, nil
}

// subtree lists dir and all directories below it, parents first.
func subtree(dir string) []string {
	var dirs []string
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return fs.SkipDir // it went away meanwhile
		}
		if entry.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	return dirs
}
