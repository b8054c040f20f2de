package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/hack/lab/fabric"
)

// Parallel bounds how many machines are started or stopped at a time.
const Parallel = 8

// Site is the place of a lab's machines: its directory, its network, its lock.
type Site struct {
	// Dir is the lab's state directory.
	Dir string
	// Share lists host directories that every machine sees at the same path.
	Share  []string
	Fabric fabric.Fabric

	// keepers are the children of this process that are process 1 of a
	// machine; they are waited for, so that none stays a zombie.
	keepers sync.WaitGroup
}

// Machine returns the machine called name. One that is not in the topology gives
// commands that fail to start.
func (s *Site) Machine(name string) Machine { return Machine{name, s} }

// BinDir holds the programs the lab has built, shared between labs.
func (s *Site) BinDir() string { return filepath.Join(filepath.Dir(s.Dir), "bin") }

// Program returns the path of one of them, the same in every machine.
func (s *Site) Program(name string) string { return filepath.Join(s.BinDir(), name) }

// ImageDir holds the OCI archives that full nodes import at each boot.
func (s *Site) ImageDir() string { return filepath.Join(s.Dir, "images") }

// Start starts machines side by side and waits for their services.
func (s *Site) Start(ctx context.Context, names []string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(Parallel)
	for _, name := range names {
		group.Go(func() error {
			if err := s.Machine(name).powerOn(); err != nil {
				return fmt.Errorf("start %s: %w", name, err)
			}
			return s.Machine(name).waitBooted(ctx)
		})
	}
	return group.Wait()
}

// StateFile holds what a later process needs to know of a lab that is up.
func (s *Site) StateFile() string { return filepath.Join(s.Dir, "lab.json") }

// Lock keeps two processes from changing the same lab at once.
func (s *Site) Lock() (unlock func(), err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("the lab needs root: it makes namespaces, mounts and cgroups")
	}
	path := s.Dir + ".lock"
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("lock lab %s: %w", s.Fabric.Lab, err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock lab %s: %w", s.Fabric.Lab, err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		return nil, fmt.Errorf("lock lab %s: another process is changing it: %w", s.Fabric.Lab, err)
	}
	if info, err := os.Stat(path); err != nil || !sameFile(file, info) {
		file.Close() // its holder has just removed it
		return nil, fmt.Errorf("lock lab %s: another process is changing it", s.Fabric.Lab)
	}
	return func() {
		_ = os.Remove(path) // while held, so that nobody's new lock is removed
		file.Close()
	}, nil
}

func sameFile(file *os.File, info os.FileInfo) bool {
	own, err := file.Stat()
	return err == nil && os.SameFile(own, info)
}
