package machine

import (
	"context"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"

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
				return err
			}
			return s.Machine(name).waitBooted(ctx)
		})
	}
	return group.Wait()
}

// StateFile holds what a later process needs to know of a lab that is up.
func (s *Site) StateFile() string { return filepath.Join(s.Dir, "lab.json") }
