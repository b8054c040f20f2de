package machine

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// searchPath is the search path inside machines.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Kubeconfig is where the programs of a node find theirs.
const Kubeconfig = "/etc/kubernetes/kubeconfig"

// Command returns a command that runs in all namespaces of a machine: its
// network, root file system, host name and processes. Signals sent to the
// command reach the program inside, and killing it kills that program. The
// working directory is /; the environment holds PATH, HOME, LANG and TERM, on
// nodes also NODE_NAME and KUBECONFIG, and may be added to. A machine that is
// off gives a command that fails to start.
func (m Machine) Command(ctx context.Context, argv ...string) *exec.Cmd {
	return m.enter(ctx, "net,uts,ipc,pid,mnt", argv)
}

// CommandInNet is Command with the caller's own file system and processes: only
// the network and host name are the machine's.
func (m Machine) CommandInNet(ctx context.Context, argv ...string) *exec.Cmd {
	return m.enter(ctx, "net,uts", argv)
}

func (m Machine) enter(ctx context.Context, namespaces string, argv []string) *exec.Cmd {
	pid, err := m.PID()
	if unknown := m.site.Fabric.Topology.Check(m.Name); unknown != nil {
		err = unknown
	}
	command := exec.CommandContext(ctx, m.site.Program("machine"), append([]string{"exec", strconv.Itoa(pid), namespaces}, argv...)...)
	if err != nil {
		command.Err = err
	}
	command.Env = []string{"PATH=" + m.site.BinDir() + ":" + searchPath, "HOME=/root", "LANG=C.UTF-8", "TERM=" + os.Getenv("TERM")}
	if _, ok := m.Node(); ok {
		command.Env = append(command.Env, "NODE_NAME="+m.Name, "KUBECONFIG="+Kubeconfig)
	}
	// Programs get the chance to say their last words when the context ends.
	command.Cancel = func() error { return command.Process.Signal(unix.SIGTERM) }
	command.WaitDelay = 5 * time.Second
	return command
}

// Exec runs argv in a machine and returns its standard output. An error holds
// the end of its standard error.
func (m Machine) Exec(ctx context.Context, argv ...string) ([]byte, error) {
	out, err := Output(m.Command(ctx, argv...))
	if err != nil {
		return out, fmt.Errorf("run %q on %s: %w", strings.Join(argv, " "), m.Name, err)
	}
	return out, nil
}

// Output runs a command and returns its standard output. An error holds the end
// of its standard error.
func Output(command *exec.Cmd) ([]byte, error) {
	const limit = 1000
	var out, errOut bytes.Buffer
	command.Stdout, command.Stderr = &out, &errOut
	if err := command.Run(); err != nil {
		text := strings.TrimSpace(errOut.String())
		return out.Bytes(), fmt.Errorf("%w: %s", err, text[max(0, len(text)-limit):])
	}
	return out.Bytes(), nil
}
