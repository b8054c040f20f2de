package lab

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/hack/lab/internal/netns"
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
	if unknown := l.known(machine); unknown != nil {
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
	return l.DialFrom(ctx, l.topology.ControlPlane.Name, network, address)
}

// DialFrom is DialContext from a machine's network, where its loopback answers.
func (l *Lab) DialFrom(ctx context.Context, machine, network, address string) (net.Conn, error) {
	return netns.Dial(ctx, l.netnsName(machine), network, address)
}

// Netns returns the path of a machine's network namespace.
func (l *Lab) Netns(machine string) string { return netns.Path(l.netnsName(machine)) }

// Route is one unicast route of a machine's main table.
type Route struct {
	To       netip.Prefix
	Via      netip.Addr // invalid for routes without next hop
	Device   string
	Protocol int
}

// Routes reads the IPv4 and IPv6 main tables of a machine.
func (l *Lab) Routes(machine string) ([]Route, error) {
	handle, err := netns.Handle(l.netnsName(machine))
	if err != nil {
		return nil, fmt.Errorf("read routes of %s: %w", machine, err)
	}
	defer handle.Close()
	var all []netlink.Route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netns.Dump(func() ([]netlink.Route, error) {
			return handle.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, fmt.Errorf("read routes of %s: %w", machine, err)
		}
		all = append(all, routes...)
	}
	devices := map[int]string{}
	links, err := netns.Dump(handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("read links of %s: %w", machine, err)
	}
	for _, device := range links {
		devices[device.Attrs().Index] = device.Attrs().Name
	}
	routes := make([]Route, 0, len(all))
	for _, one := range all {
		routes = append(routes, readRoute(one, devices))
	}
	return routes, nil
}

func readRoute(from netlink.Route, devices map[int]string) Route {
	route := Route{Device: devices[from.LinkIndex], Protocol: int(from.Protocol)}
	if from.Dst != nil {
		if address, ok := netip.AddrFromSlice(from.Dst.IP); ok {
			bits, _ := from.Dst.Mask.Size()
			route.To = netip.PrefixFrom(address.Unmap(), bits)
		}
	}
	if address, ok := netip.AddrFromSlice(from.Gw); ok {
		route.Via = address.Unmap()
	}
	return route
}
