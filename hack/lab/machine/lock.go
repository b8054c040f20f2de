package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

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
