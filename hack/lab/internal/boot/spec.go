package boot

import (
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// Spec says what a machine is made of. The lab writes it as JSON, process 1 of
// the machine reads it.
type Spec struct {
	// Hostname of the machine.
	Hostname string `json:"hostname"`
	// Cgroup is the machine's cgroup below the root of each hierarchy, as in
	// "muslin-n1". Process 1 and its services run in its child "system";
	// the kubelet makes its own children beside that.
	Cgroup string `json:"cgroup"`
	// Disk is the directory with the machine's own files; it outlives a power
	// cut. Its children are upper, work and root (the mount point).
	Disk string `json:"disk"`
	// Share lists host paths seen in the machine at the same place.
	Share []string `json:"share,omitempty"`
	// Bind maps host directories to places in the machine; they are for what
	// cannot live on an overlay, such as containerd's snapshots.
	Bind map[string]string `json:"bind,omitempty"`
	// Sysctls are shown in /proc/sys with these values, without being set: for
	// programs that insist on machine-wide values.
	Sysctls map[string]string `json:"sysctls,omitempty"`
	// Logs is the host directory for the services' output.
	Logs string `json:"logs"`
	// Services are started in this order, each after the one before is ready.
	Services []Service `json:"services,omitempty"`
}

// Service is one program of a machine.
type Service struct {
	Name string   `json:"name"`
	Argv []string `json:"argv"`
	Env  []string `json:"env,omitempty"`
	// Socket, when set, is a unix socket path: the service is ready when it
	// accepts a connection. Without it the service is ready when started.
	Socket string `json:"socket,omitempty"`
	// Once marks a program that must end by itself, with status 0, before
	// the next service is started. Others are started again when they end.
	Once bool `json:"once,omitempty"`
}

// ServiceTimeout bounds the wait for one service to become ready.
const ServiceTimeout = 2 * time.Minute

// BootedFile is made in the machine when the last service is ready.
const BootedFile = "/run/booted"

// ReadSpec reads a Spec written by Write.
func ReadSpec(path string) (Spec, error) {
	var spec Spec
	data, err := os.ReadFile(path)
	if err != nil {
		return spec, fmt.Errorf("read machine spec: %w", err)
	}
	if err := json.Unmarshal(data, &spec); err != nil {
		return spec, fmt.Errorf("read machine spec %s: %w", path, err)
	}
	return spec, nil
}

// Write stores the spec at path.
func (s Spec) Write(path string) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("write machine spec %s: %w", path, err)
	}
	return os.WriteFile(path, data, 0o600)
}
