package vm

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
)

// Link is what a network device of the guest is joined to. The guest finds the
// device down and without an address.
type Link struct{ netdev string }

// HostAddress is what a guest calls 127.0.0.1 of Options.Netns, if it has the
// link Loopback and an address in 10.0.2.0/24.
const HostAddress = "10.0.2.2"

// Loopback lets the guest connect to what listens on 127.0.0.1 in Options.Netns,
// at HostAddress.
func Loopback() Link { return Link{"user,ipv6=off,net=10.0.2.0/24,host=" + HostAddress} }

// Cable joins two guests that run at the same time. Each end is a Unix socket,
// named by its path: the other guest has them the other way round.
func Cable(here, there string) Link {
	return Link{"dgram,local.type=unix,local.path=" + here + ",remote.type=unix,remote.path=" + there}
}

// links are qemu's arguments. Each device has a MAC address of its own.
func (o Options) links() (args []string) {
	for i, l := range o.Links {
		mac := rand.Uint32()
		args = append(args, "-netdev", fmt.Sprintf("%s,id=link%d", l.netdev, i),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=link%d,romfile=,mac=52:54:%02x:%02x:%02x:%02x",
				i, mac>>24, mac>>16&0xff, mac>>8&0xff, mac&0xff))
	}
	return args
}

// bootModules are what the guest needs before it sees the host's files: its
// ports and its root, and devices that nothing asks for. Everything else comes
// by modprobe.
func (o Options) bootModules() []string {
	modules := []string{"virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"}
	if len(o.Links) > 0 {
		modules = append(modules, "virtio_net")
	}
	return modules
}

// command is a command in the namespace of the machine that the options name.
func (o Options) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	if o.Netns == "" {
		return exec.CommandContext(ctx, name, args...)
	}
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=/run/netns/" + o.Netns, "--", name}, args...)...)
}
