// Package spool keeps the DELs that are answered and not yet done: one file for
// each attachment in a directory that survives a reboot. The agent writes, for
// the runtime need not wait while the kernel takes 20 ms to delete a link; the
// plugin writes when no agent answers. The agent does what is recorded, and
// removes the record after it.
//
// A runtime that gets an error for DEL keeps the pod in Terminating and tries
// again for ever; a recorded DEL lets it go on. DEL may be done twice, so a
// record that is read although its DEL has been done does no harm. A new ADD of
// the same attachment comes after its record.
//
// Kernel footprint: files named <containerID>@<ifname>.json in the directory;
// both parts are checked by the plugin's CNI skeleton, and @ is in neither. A
// fresh process recognises its own by that name; files with another one are
// left alone. Never reads the network configuration inside a record.
//
// The plugin links it: it does without fmt and encoding/json (see package flat).
package spool

import (
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/muslin-net/muslin/pkg/cnirpc/client"
	"github.com/muslin-net/muslin/pkg/cnirpc/flat"
)

// DefaultDir is where the plugin records when its configuration names no other
// directory.
const DefaultDir = "/var/lib/muslin/cni-spool"

const suffix = ".json"

// Write records a DEL. When it returns nil the record outlives a power cut.
func Write(dir string, r client.Request) (Record, error) { return write(dir, r, true) }

// WriteUnsynced records a DEL that outlives the process, and not for certain a
// power cut. That is enough where the record is done within the second: what a
// power cut leaves of a pod is its address, which the agent's own search for
// addresses without a pod finds.
func WriteUnsynced(dir string, r client.Request) (Record, error) { return write(dir, r, false) }

func write(dir string, r client.Request, sync bool) (Record, error) {
	record := Record{Path: Path(dir, r.ContainerID, r.IfName), Request: r}
	if strings.ContainsAny(r.ContainerID+r.IfName, "/@") || r.ContainerID == "" || r.IfName == "" {
		return record, errors.New("container " + strconv.Quote(r.ContainerID) + ", interface " + strconv.Quote(r.IfName) + ": cannot be a file name")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return record, &failure{"make spool " + dir, err}
	}
	if err := replace(record.Path, encode(r), sync); err != nil {
		return record, &failure{"write record " + record.Path, err}
	}
	return record, nil
}

// failure says what was tried.
type failure struct {
	text  string
	cause error
}

func (f *failure) Error() string { return f.text + ": " + f.cause.Error() }
func (f *failure) Unwrap() error { return f.cause }

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

func decode(b []byte) (r client.Request, err error) {
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

// Path is where the record of an attachment is, if there is one.
func Path(dir, containerID, ifname string) string {
	return filepath.Join(dir, containerID+"@"+ifname+suffix)
}

// replace writes path by way of a temporary file and, if asked, makes content and
// name durable.
func replace(path string, b []byte, sync bool) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails, as it should, after the rename
	_, err = f.Write(b)
	if sync && err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil || !sync {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Record is one recorded DEL.
type Record struct {
	Path    string
	Request client.Request
	Err     error // the file cannot be read as a record
}

// List reads the records; a missing directory has none. A file that cannot be
// read is a record with an Err, so that one does not hide the others.
func List(dir string) ([]Record, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &failure{"read spool " + dir, err}
	}
	var records []Record
	for _, e := range entries {
		id, ifname, ok := strings.Cut(strings.TrimSuffix(e.Name(), suffix), "@")
		if !ok || !strings.HasSuffix(e.Name(), suffix) || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		r := Record{Path: filepath.Join(dir, e.Name())}
		b, err := os.ReadFile(r.Path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			r.Request, err = decode(b)
		}
		if err == nil && (r.Request.ContainerID != id || r.Request.IfName != ifname) {
			err = errors.New("holds container " + strconv.Quote(r.Request.ContainerID) + ", interface " + strconv.Quote(r.Request.IfName))
		}
		if err != nil {
			r.Err = &failure{"record " + r.Path, err}
		}
		records = append(records, r)
	}
	return records, nil
}

// Remove deletes a record whose DEL has been done; a missing one is success.
func Remove(r Record) error {
	if err := os.Remove(r.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &failure{"remove record", err}
	}
	return nil
}
