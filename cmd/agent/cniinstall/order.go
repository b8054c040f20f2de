package cniinstall

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// InPlace names the configurations that a runtime takes in place of ours, sorted:
// it uses the first file of the directory by name that ends in .conf, .conflist
// or .json (libcni ConfFiles). One that hands on to ours does not count, as
// Multus's.
func InPlace(o Options) ([]string, error) {
	o = o.withDefaults()
	entries, err := os.ReadDir(o.ConfDir) // sorted
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read cni configurations: %w", err)
	}
	var out []string
	for _, e := range entries {
		if e.Name() >= ConfigName {
			break
		}
		if !slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(e.Name())) || e.IsDir() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(o.ConfDir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) || err == nil && handsOn(text) {
			continue
		}
		out = append(out, e.Name()) // one that cannot be read stops some runtimes altogether
	}
	return out, nil
}

// handsOn tells whether a configuration calls our plugin, our file, or is of a
// plugin that calls others by itself.
func handsOn(text []byte) bool {
	var v any
	return json.Unmarshal(text, &v) == nil && mentions("", v)
}

func mentions(key string, v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for k, w := range v {
			if mentions(k, w) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, func(w any) bool { return mentions(key, w) })
	case string:
		return key == "type" && (v == BinaryName || strings.HasPrefix(v, "multus")) || filepath.Base(v) == ConfigName
	}
	return false
}

// MoveAway renames what stands in place of ours, so that no runtime reads it:
// NAME.muslin-backup. Uninstall puts it back. It returns what it moved.
func MoveAway(o Options) (moved []string, err error) {
	o = o.withDefaults()
	names, err := InPlace(o)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		path := filepath.Join(o.ConfDir, name)
		if err := os.Rename(path, path+backup); err != nil {
			return moved, fmt.Errorf("move cni configuration away: %w", err)
		}
		moved = append(moved, name)
	}
	return moved, nil
}

// putBack undoes MoveAway. A file that is there again by now stays.
func putBack(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*"+backup))
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		old := strings.TrimSuffix(name, backup)
		if _, err := os.Lstat(old); err == nil {
			continue
		}
		if err := os.Rename(name, old); err != nil {
			errs = append(errs, fmt.Errorf("put cni configuration back: %w", err))
		}
	}
	return errors.Join(errs...)
}
