package lab

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Command returns a command that runs in all namespaces of a machine: its
// network, root file system, host name and processes. Signals sent to the
// command reach the program inside, and killing it kills that program. The
// working directory is /; the environment holds PATH, HOME, LANG and TERM, on
// nodes also NODE_NAME and KUBECONFIG, and may be added to. A machine that is
// off gives a command that fails to start.
func (l *Lab) Command(ctx context.Context, machine string, argv ...string) *exec.Cmd {
	return l.enter(ctx, machine, "net,uts,ipc,pid,mnt", argv)
}

// CommandInNet is Command with the caller's own file system and processes: only
// the network and host name are the machine's.
func (l *Lab) CommandInNet(ctx context.Context, machine string, argv ...string) *exec.Cmd {
	return l.enter(ctx, machine, "net,uts", argv)
}

func (l *Lab) enter(ctx context.Context, machine, namespaces string, argv []string) *exec.Cmd {
	pid, err := l.initPID(machine)
	if unknown := l.topology.Check(machine); unknown != nil {
		err = unknown
	}
	command := exec.CommandContext(ctx, l.program("machine"), append([]string{"exec", strconv.Itoa(pid), namespaces}, argv...)...)
	if err != nil {
		command.Err = err
	}
	command.Env = []string{"PATH=" + l.binDir() + ":" + machinePath, "HOME=/root", "LANG=C.UTF-8", "TERM=" + os.Getenv("TERM")}
	if _, ok := l.topology.Node(machine); ok {
		command.Env = append(command.Env, "NODE_NAME="+machine, "KUBECONFIG="+kubeconfigFile)
	}
	// Programs get the chance to say their last words when the context ends.
	command.Cancel = func() error { return command.Process.Signal(unix.SIGTERM) }
	command.WaitDelay = 5 * time.Second
	return command
}

// Exec runs argv in a machine and returns its standard output. An error holds
// the end of its standard error.
func (l *Lab) Exec(ctx context.Context, machine string, argv ...string) ([]byte, error) {
	command := l.Command(ctx, machine, argv...)
	var out, errOut bytes.Buffer
	command.Stdout, command.Stderr = &out, &errOut
	if err := command.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("run %q on %s: %w: %s", strings.Join(argv, " "), machine, err, tail(errOut.String()))
	}
	return out.Bytes(), nil
}

func tail(text string) string {
	const limit = 1000
	text = strings.TrimSpace(text)
	return text[max(0, len(text)-limit):]
}

// KubectlCommand returns a kubectl command with the administrator's rights. It
// sees the caller's files and working directory.
func (l *Lab) KubectlCommand(ctx context.Context, args ...string) *exec.Cmd {
	command := l.CommandInNet(ctx, l.topology.ControlPlane.Name, append([]string{l.program("kubectl")}, args...)...)
	// Less garbage collection is a third of what a kubectl costs.
	command.Env = append(command.Env, "KUBECONFIG="+l.Kubeconfig(), "GOGC=400")
	return command
}

// Kubectl runs kubectl with stdin, which may be empty, and returns its standard
// output.
func (l *Lab) Kubectl(ctx context.Context, stdin string, args ...string) ([]byte, error) {
	command := l.KubectlCommand(ctx, args...)
	var out, errOut bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = strings.NewReader(stdin), &out, &errOut
	if err := command.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, tail(errOut.String()))
	}
	return out.Bytes(), nil
}

// DialContext connects from the control plane's network, where the API server,
// nodes and pods can be reached; it fits rest.Config.Dial. The host of the
// address must be an IP address.
func (l *Lab) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return l.Fabric.Dial(ctx, l.topology.ControlPlane.Name, network, address)
}
