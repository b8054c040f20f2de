// Package spoolentry writes down a DEL, for the agent to do: one file for each
// attachment in a directory that survives a reboot. Package spool reads them.
//
// The plugin links it, so it does without os, fmt and encoding/… (see package
// jsonscan): what those set up when the process starts takes longer than the write.
//
// Kernel footprint: files named <containerID>@<ifname>.json; both parts are
// checked by the plugin, and @ is in neither. While one is written it is named
// .new-<containerID>@<ifname>-<process>, which a later write of the same process
// number replaces and package spool sweeps.
package spoolentry

import (
	"errors"
	"strconv"
	"syscall"

	"github.com/muslin-net/muslin/pkg/cnirpc/client"
	"github.com/muslin-net/muslin/pkg/cnirpc/fd"
	"github.com/muslin-net/muslin/pkg/cnirpc/jsonscan"
)

// DefaultDir is where the plugin records when its configuration names no other
// directory.
const DefaultDir = "/var/lib/muslin/cni-spool"

// Suffix ends the names of records, Unfinished begins those of files that are
// being written.
const (
	Suffix     = ".json"
	Unfinished = ".new-"
)

// Path is where the record of an attachment is, if there is one.
func Path(dir, containerID, ifname string) string {
	return plain(dir) + "/" + containerID + "@" + ifname + Suffix
}

// plain is a directory's path without slashes at its end.
func plain(dir string) string {
	for len(dir) > 0 && dir[len(dir)-1] == '/' {
		dir = dir[:len(dir)-1]
	}
	return dir
}

// Write records a DEL, in a directory that it makes if it has to. The record
// outlives the process, and not for certain a power cut: that leaves of a pod no
// more than its address, which the agent's own search for addresses without a pod
// finds. Writing a record again replaces it. The text is put together in buffer,
// if that is large enough.
func Write(dir string, r client.Request, buffer []byte) error {
	if !isFileName(r.ContainerID) || !isFileName(r.IfName) {
		return errors.New("container " + strconv.Quote(r.ContainerID) + ", interface " + strconv.Quote(r.IfName) + ": cannot be a file name")
	}
	path := Path(dir, r.ContainerID, r.IfName)
	temporary := plain(dir) + "/" + Unfinished + r.ContainerID + "@" + r.IfName + "-" + strconv.Itoa(syscall.Getpid())
	number, err := create(temporary)
	if errors.Is(err, syscall.ENOENT) {
		if err = makeAll(dir); err == nil {
			number, err = create(temporary)
		}
	}
	if err != nil {
		return &fd.Failure{Step: "make record " + temporary, Cause: err}
	}
	_, err = fd.FD(number).Write(encode(buffer[:0], r))
	err = errors.Join(err, syscall.Close(number))
	if err == nil {
		err = syscall.Rename(temporary, path)
	}
	if err != nil {
		_ = syscall.Unlink(temporary)
		return &fd.Failure{Step: "write record " + path, Cause: err}
	}
	return nil
}

// isFileName: can be a part of a record's name.
func isFileName(s string) bool {
	for i := range len(s) {
		if s[i] == '/' || s[i] == '@' {
			return false
		}
	}
	return s != ""
}

// create makes a file, or empties the one that a killed process left.
func create(path string) (number int, err error) {
	const flags = syscall.O_WRONLY | syscall.O_CREAT | syscall.O_TRUNC | syscall.O_NOFOLLOW | syscall.O_CLOEXEC
	err = fd.Again(func() (err error) { number, err = syscall.Open(path, flags, 0o600); return err })
	return number, err
}

// makeAll makes a directory for root alone, and those above it for all to see.
func makeAll(dir string) error {
	dir = plain(dir)
	for i := 1; i < len(dir); i++ {
		if dir[i] == '/' {
			if err := makeOne(dir[:i], 0o755); err != nil {
				return err
			}
		}
	}
	return makeOne(dir, 0o700)
}

func makeOne(dir string, mode uint32) error {
	if err := syscall.Mkdir(dir, mode); err != nil && !errors.Is(err, syscall.EEXIST) {
		return &fd.Failure{Step: "make directory " + dir, Cause: err}
	}
	return nil
}

// encode appends a request as JSON; empty fields are left out. The configuration,
// which is an object, stays as it came.
func encode(b []byte, r client.Request) []byte {
	b = append(b, '{')
	b = member(b, "containerID", r.ContainerID)
	b = member(b, "netns", r.Netns)
	b = member(b, "ifname", r.IfName)
	b = member(b, "args", r.Args)
	if len(r.Config) > 0 {
		b = append(named(b, "config"), r.Config...)
	}
	return append(b, '}')
}

func member(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return jsonscan.AppendString(named(b, name), value)
}

// named begins a member.
func named(b []byte, name string) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	return append(jsonscan.AppendString(b, name), ':')
}
