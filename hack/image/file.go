package image

import (
	"fmt"
	"os"
	"path/filepath"
)

// WriteFile writes the archive to path and replaces what was there only once
// the whole archive is written.
func WriteFile(path string, s Spec) (Report, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return Report{}, fmt.Errorf("create archive %s: %w", path, err)
	}
	defer os.Remove(f.Name()) // fails, as it should, after the rename
	r, err := Write(f, s)
	if err != nil {
		f.Close()
		return Report{}, err
	}
	if err := f.Chmod(0o644); err != nil {
		f.Close()
		return Report{}, fmt.Errorf("archive %s: %w", path, err)
	}
	if err := f.Close(); err != nil {
		return Report{}, fmt.Errorf("close archive %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return Report{}, fmt.Errorf("replace archive %s: %w", path, err)
	}
	return r, nil
}
