// Package spec is what the host side and the guest side of a virtual machine
// tell each other: what to do, and how it ended. It does nothing itself and
// leaves no trace.
package spec

import (
	"encoding/json"
	"fmt"
	"os"
)

// Names that both sides know.
const (
	File       = "/spec.json"    // in the initial file system
	RootTag    = "root"          // 9p: the host's root file system
	OutputPort = "muslin.output" // virtio serial port: what the command prints
	ResultPort = "muslin.result" // virtio serial port: a Result
)

// Spec is what the guest has to do.
type Spec struct {
	Modules   []string // files of the initial file system, in the order to load them
	ModuleDir string   // the host's directory with the modules of the guest's kernel
	Release   string   // of the guest's kernel, as uname -r says it
	Argv      []string
	Env       []string // NAME=value
	Dir       string   // working directory
}

// Result is how the command ended.
type Result struct {
	Status int    // exit status; 128 and the signal's number if a signal ended it
	Error  string // what kept the command from running; empty: it ran
}

// Read reads a Spec from a file.
func Read(path string) (Spec, error) {
	var s Spec
	data, err := os.ReadFile(path)
	if err != nil {
		return s, fmt.Errorf("read spec: %w", err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("read spec %s: %w", path, err)
	}
	return s, nil
}
