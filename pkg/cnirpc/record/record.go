// Package record writes down a DEL, for the agent to do: one file for each
// attachment in a directory that survives a reboot. Package spool reads them.
//
// The plugin links it, so it does without os, fmt and encoding/json (see package
// flat): what those set up when the process starts takes longer than the write.
//
// Kernel footprint: files named <containerID>@<ifname>.json; both parts are
// checked by the plugin, and @ is in neither. While one is written it is named
// .new-<containerID>@<ifname>-<process>, which a later write of the same process
// number replaces and package spool sweeps.
package record

import (
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"syscall"

	"github.com/muslin-net/muslin/pkg/cnirpc/client"
	"github.com/muslin-net/muslin/pkg/cnirpc/fd"
	"github.com/muslin-net/muslin/pkg/cnirpc/flat"
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
	return strings.TrimRight(dir, "/") + "/" + containerID + "@" + ifname + Suffix
}

// Write records a DEL, in a directory that it makes if it has to. The record
// outlives the process, and not for certain a power cut: that leaves of a pod no
// more than its address, which the agent's own search for addresses without a pod
// finds. Writing a record again replaces it.
func Write(dir string, r client.Request) error {
	if strings.ContainsAny(r.ContainerID+r.IfName, "/@") || r.ContainerID == "" || r.IfName == "" {
		return errors.New("container " + strconv.Quote(r.ContainerID) + ", interface " + strconv.Quote(r.IfName) + ": cannot be a file name")
	}
	path := Path(dir, r.ContainerID, r.IfName)
	temporary := strings.TrimRight(dir, "/") + "/" + Unfinished + r.ContainerID + "@" + r.IfName + "-" + strconv.Itoa(syscall.Getpid())
	number, err := create(temporary)
	if errors.Is(err, syscall.ENOENT) {
		if err = makeAll(dir); err == nil {
			number, err = create(temporary)
		}
	}
	if err != nil {
		return &fd.Failure{Step: "make record " + temporary, Cause: err}
	}
	_, err = fd.FD(number).Write(encode(r))
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

// create makes a file, or empties the one that a killed process left.
func create(path string) (number int, err error) {
	const flags = syscall.O_WRONLY | syscall.O_CREAT | syscall.O_TRUNC | syscall.O_NOFOLLOW | syscall.O_CLOEXEC
	err = fd.Again(func() (err error) { number, err = syscall.Open(path, flags, 0o600); return err })
	return number, err
}

// makeAll makes a directory for root alone, and those above it for all to see.
func makeAll(dir string) error {
	dir = strings.TrimRight(dir, "/")
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

// encode writes what encoding/json makes of a client.Request; empty fields are
// left out.
func encode(r client.Request) []byte {
	b := []byte{'{'}
	for _, m := range []struct{ name, value string }{
		{"containerID", r.ContainerID}, {"netns", r.Netns}, {"ifname", r.IfName}, {"args", r.Args},
		{"config", base64.StdEncoding.EncodeToString(r.Config)},
	} {
		if m.value == "" {
			continue
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = flat.AppendString(b, m.name)
		b = flat.AppendString(append(b, ':'), m.value)
	}
	return append(b, '}')
}

// Decode reads what Write wrote.
func Decode(b []byte) (r client.Request, err error) {
	members, err := flat.Object(b)
	if err != nil {
		return r, err
	}
	var config string
	for name, place := range map[string]*string{
		"containerID": &r.ContainerID, "netns": &r.Netns, "ifname": &r.IfName, "args": &r.Args, "config": &config,
	} {
		m, ok := members[name]
		if ok && !m.String {
			return r, errors.New(name + ": not a string")
		}
		*place = m.Text
	}
	if config != "" {
		r.Config, err = base64.StdEncoding.DecodeString(config)
	}
	return r, err
}
