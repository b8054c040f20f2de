package pod

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/muslin-net/muslin/hack/lab/machine"
)

// machineExec lets libcni run plugins inside a machine.
type machineExec struct {
	version.PluginDecoder
	machine machine.Machine
}

var _ invoke.Exec = (*machineExec)(nil)

// ExecPlugin runs a plugin with the CNI variables of environ. The error of a
// plugin that says why it failed is that very CNI error.
func (e *machineExec) ExecPlugin(ctx context.Context, plugin string, stdin []byte, environ []string) ([]byte, error) {
	command := e.machine.Command(ctx, plugin)
	for _, entry := range environ {
		if bytes.HasPrefix([]byte(entry), []byte("CNI_")) {
			command.Env = append(command.Env, entry)
		}
	}
	command.Stdin = bytes.NewReader(stdin)
	out, err := machine.Output(command)
	if err != nil {
		return nil, fmt.Errorf("plugin %s: %w%s", filepath.Base(plugin), err, bytes.TrimSpace(out))
	}
	return out, nil
}

// FindInPath names the plugin as the machine sees it; whether it is there
// shows when it is run.
func (e *machineExec) FindInPath(plugin string, paths []string) (string, error) {
	return filepath.Join(paths[0], plugin), nil
}
