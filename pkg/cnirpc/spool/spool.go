// Package spool keeps the DELs that are answered and not yet done: one file for
// each attachment in a directory that survives a reboot. The plugin writes, and
// with that a DEL is answered: the runtime waits neither for an agent, nor while
// the kernel takes 20 ms to delete a link. The agent sees the file appear, does
// what is recorded, and removes the record after it.
//
// A runtime that gets an error for DEL keeps the pod in Terminating and tries
// again for ever; a recorded DEL lets it go on. DEL may be done twice, so a
// spoolentry that is read although its DEL has been done does no harm. A new ADD of
// the same attachment comes after its record.
//
// Kernel footprint: the files of package record in the directory. A fresh process
// recognises them by their names; others are left alone. Never reads the network
// configuration inside a record.
package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/muslin-net/muslin/pkg/cnirpc/client"
	"github.com/muslin-net/muslin/pkg/cnirpc/spoolentry"
)

// Record is one recorded DEL.
type Record struct {
	Path    string
	Request client.Request
	Err     error // the file cannot be read as a record
}

// List reads the records, but those whose path is known already, if known is
// given; a missing directory has none. A file that cannot be read is a record
// with an Err, so that one does not hide the others.
func List(dir string, known func(path string) bool) ([]Record, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read spool %s: %w", dir, err)
	}
	var records []Record
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if known != nil && known(path) {
			continue
		}
		if r, ok := Read(path); ok {
			records = append(records, r)
		}
	}
	return records, nil
}

// Names reports whether a path is named as a record.
func Names(path string) bool {
	_, _, ok := parts(path)
	return ok
}

// parts are what the name of a record is made of.
func parts(path string) (containerID, ifname string, ok bool) {
	name, named := strings.CutSuffix(filepath.Base(path), spoolentry.Suffix)
	containerID, ifname, whole := strings.Cut(name, "@")
	return containerID, ifname, named && whole && !strings.HasPrefix(name, ".")
}

// Read reads one record, as List does. There is none if the path is not named as
// a record, or is gone.
func Read(path string) (r Record, ok bool) {
	id, ifname, ok := parts(path)
	if !ok {
		return r, false
	}
	r.Path = path
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, false
	}
	if err == nil {
		r.Request, err = decode(b)
	}
	if err == nil && (r.Request.ContainerID != id || r.Request.IfName != ifname) {
		err = errors.New("holds container " + strconv.Quote(r.Request.ContainerID) + ", interface " + strconv.Quote(r.Request.IfName))
	}
	if err != nil {
		r.Err = fmt.Errorf("record %s: %w", path, err)
	}
	return r, true
}

// Sweep removes what a writer left that was killed at it more than age ago.
func Sweep(dir string, age time.Duration) error {
	paths, err := filepath.Glob(filepath.Join(dir, spoolentry.Unfinished+"*"))
	if err != nil {
		return fmt.Errorf("sweep spool %s: %w", dir, err)
	}
	for _, path := range paths {
		st, statErr := os.Lstat(path)
		if statErr == nil && time.Since(st.ModTime()) > age {
			err = errors.Join(err, os.Remove(path))
		}
	}
	return err
}

// Remove deletes a record whose DEL has been done; a missing one is success.
func Remove(r Record) error {
	if err := os.Remove(r.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove record: %w", err)
	}
	return nil
}
