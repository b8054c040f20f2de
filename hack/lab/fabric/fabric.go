// Package fabric is the network between a lab's machines: namespaces, switches,
// cables, addresses. It knows no processes and nothing of Kubernetes.
package fabric

import (
	"crypto/sha1"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/hack/lab/internal/netns"
	"github.com/muslin-net/muslin/hack/lab/topology"
)

// mtu of every interface of the lab, in bytes.
const mtu = 1500

// Fabric is the network of one lab, there or not.
type Fabric struct {
	// Lab is the prefix of all its namespaces.
	Lab      string
	Topology *topology.Topology
}

// Netns returns the name of a machine's network namespace, or of the switches'.
func (f Fabric) Netns(machine string) string { return f.Lab + "-" + machine }

// Build makes the namespace of the switches: one bridge for the core,
// one for each rack, without any address, so that nothing is routed there.
func (f Fabric) Build() error {
	name := f.Netns(topology.Fabric)
	if err := netns.Create(name); err != nil {
		return err
	}
	// A switch has no addresses, not even link-local ones.
	sysctls := map[string]string{"net/ipv6/conf/all/disable_ipv6": "1", "net/ipv6/conf/default/disable_ipv6": "1"}
	if err := writeSysctls(name, sysctls); err != nil {
		return err
	}
	handle, err := netns.Handle(name)
	if err != nil {
		return err
	}
	defer handle.Close()
	bridges := []string{topology.Core}
	for _, rack := range f.Topology.Racks {
		bridges = append(bridges, rack.Name)
	}
	for _, bridge := range bridges {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = bridge, mtu
		snooping := false
		device := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}
		if err := handle.LinkAdd(device); err != nil {
			return fmt.Errorf("add switch %s: %w", bridge, err)
		}
		if err := handle.LinkSetUp(device); err != nil {
			return fmt.Errorf("set switch %s up: %w", bridge, err)
		}
	}
	return nil
}

// Plug makes a machine's namespace with its interfaces, addresses and routes.
func (f Fabric) Plug(machine string) error {
	name := f.Netns(machine)
	if err := netns.Create(name); err != nil {
		return err
	}
	if err := writeSysctls(name, machineSysctls()); err != nil {
		return err
	}
	switches, err := netns.Handle(f.Netns(topology.Fabric))
	if err != nil {
		return err
	}
	defer switches.Close()
	handle, err := netns.Handle(name)
	if err != nil {
		return err
	}
	defer handle.Close()
	for _, cable := range f.Topology.Links(machine) {
		if err := connect(switches, name, machine, cable); err != nil {
			return fmt.Errorf("connect %s of %s to switch %s: %w", cable.Interface, machine, cable.Bridge, err)
		}
		if err := configure(handle, cable); err != nil {
			return fmt.Errorf("configure %s of %s: %w", cable.Interface, machine, err)
		}
	}
	for _, route := range f.Topology.Routes(machine) {
		err := handle.RouteAdd(&netlink.Route{Dst: ipNet(route.To), Gw: route.Via.AsSlice()})
		if err != nil {
			return fmt.Errorf("add route to %s via %s in %s: %w", route.To, route.Via, machine, err)
		}
	}
	return nil
}

// connect lays one cable: a veth pair with one end as a port of the switch.
func connect(switches *netlink.Handle, nsName, machine string, cable topology.Link) error {
	ns, err := os.Open(netns.Path(nsName))
	if err != nil {
		return err
	}
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = cable.Port, mtu
	bridge, err := switches.LinkByName(cable.Bridge)
	if err != nil {
		return fmt.Errorf("find switch: %w", err)
	}
	attrs.MasterIndex = bridge.Attrs().Index
	pair := &netlink.Veth{
		LinkAttrs: attrs, PeerName: cable.Interface, PeerMTU: mtu,
		PeerNamespace: netlink.NsFd(ns.Fd()), PeerHardwareAddr: hardwareAddr(machine, cable.Interface),
	}
	if err := switches.LinkAdd(pair); err != nil {
		return fmt.Errorf("add veth: %w", err)
	}
	return switches.LinkSetUp(pair)
}

func configure(handle *netlink.Handle, cable topology.Link) error {
	device, err := handle.LinkByName(cable.Interface)
	if err != nil {
		return err
	}
	if err := handle.LinkSetUp(device); err != nil {
		return err
	}
	var addresses []netip.Prefix
	if cable.Address.V4.IsValid() {
		addresses = append(addresses, netip.PrefixFrom(cable.Address.V4, cable.Subnet.V4.Bits()))
	}
	if cable.Address.V6.IsValid() {
		addresses = append(addresses, netip.PrefixFrom(cable.Address.V6, cable.Subnet.V6.Bits()))
	}
	for _, prefix := range addresses {
		address := &netlink.Addr{IPNet: ipNet(prefix)}
		if prefix.Addr().Is6() {
			address.Flags = unix.IFA_F_NODAD
		}
		if err := handle.AddrAdd(device, address); err != nil {
			return fmt.Errorf("add address %s: %w", prefix, err)
		}
	}
	return nil
}

// Unplug removes a machine's namespace and its cables. What is absent already
// is success.
func (f Fabric) Unplug(machine string) error {
	return errors.Join(f.Cut(machine), netns.Delete(f.Netns(machine)))
}

// Cut takes the cables off the switches. The kernel would do so as well once
// the last process of the namespace is gone, but later.
func (f Fabric) Cut(machine string) error {
	if !netns.Exists(f.Netns(topology.Fabric)) {
		return nil
	}
	switches, err := netns.Handle(f.Netns(topology.Fabric))
	if err != nil {
		return err
	}
	defer switches.Close()
	for _, cable := range f.Topology.Links(machine) {
		port, err := switches.LinkByName(cable.Port)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			continue
		}
		if err == nil {
			err = switches.LinkDel(port)
		}
		if err != nil {
			return fmt.Errorf("cut cable %s: %w", cable.Port, err)
		}
	}
	return nil
}

// LinkDown pulls all network cables of a machine: its interfaces lose their
// carrier and keep their configuration.
func (f Fabric) LinkDown(machine string) error { return f.setLink(machine, false) }

// LinkUp plugs the cables in again.
func (f Fabric) LinkUp(machine string) error { return f.setLink(machine, true) }

func (f Fabric) setLink(machine string, up bool) error {
	if err := f.Topology.Check(machine); err != nil {
		return err
	}
	if err := f.setCarrier(machine, up); err != nil {
		return fmt.Errorf("set link of %s: %w", machine, err)
	}
	return nil
}

// setCarrier pulls or plugs all cables of a machine at the switch, as good as at
// once, those to the core last: a router must not have the time to tell its rack.
// The machine sees its carrier go, and keeps its configuration.
func (f Fabric) setCarrier(machine string, up bool) error {
	switches, err := netns.Handle(f.Netns(topology.Fabric))
	if err != nil {
		return err
	}
	defer switches.Close()
	set := switches.LinkSetDown
	if up {
		set = switches.LinkSetUp
	}
	var ports []netlink.Link
	for _, cable := range f.Topology.Links(machine) {
		port, err := switches.LinkByName(cable.Port)
		if err != nil {
			return fmt.Errorf("find cable %s: %w", cable.Port, err)
		}
		ports = append(ports, port)
	}
	for _, port := range slices.Backward(ports) {
		if err := set(port); err != nil {
			return fmt.Errorf("set cable %s: %w", port.Attrs().Name, err)
		}
	}
	return f.waitCarrier(machine, up)
}

// waitCarrier waits until the machine has seen what setCarrier did: the kernel
// tells it up to a second later.
func (f Fabric) waitCarrier(machine string, up bool) error {
	const patience = 10 * time.Second
	handle, err := netns.Handle(f.Netns(machine))
	if err != nil {
		return err
	}
	defer handle.Close()
	deadline := time.Now().Add(patience)
	for _, cable := range f.Topology.Links(machine) {
		for {
			device, err := handle.LinkByName(cable.Interface)
			if err != nil {
				return fmt.Errorf("find %s: %w", cable.Interface, err)
			}
			if (device.Attrs().OperState == netlink.OperUp) == up {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s of %s: carrier does not follow after %s", cable.Interface, machine, patience)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return nil
}

// machineSysctls are those of a plain server that forwards. Redirects are off
// because two routers share the core; ICMP errors are not rate limited, so
// that a traceroute shows every hop.
func machineSysctls() map[string]string {
	return map[string]string{
		"net/ipv4/ip_forward":                  "1",
		"net/ipv6/conf/all/forwarding":         "1",
		"net/ipv6/conf/default/accept_dad":     "0",
		"net/ipv4/conf/all/rp_filter":          "0",
		"net/ipv4/conf/default/rp_filter":      "0",
		"net/ipv4/conf/all/send_redirects":     "0",
		"net/ipv4/conf/default/send_redirects": "0",
		"net/ipv4/icmp_ratelimit":              "0",
		"net/ipv6/icmp/ratelimit":              "0",
		"net/ipv4/ping_group_range":            "0 2147483647",
	}
}

// writeSysctls sets sysctls of a network namespace.
func writeSysctls(nsName string, values map[string]string) error {
	return netns.Do(nsName, func() error {
		var errs []error
		for key, value := range values {
			if err := os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0); err != nil {
				errs = append(errs, fmt.Errorf("set sysctl in %s: %w", nsName, err))
			}
		}
		return errors.Join(errs...)
	})
}

// hardwareAddr derives a stable, locally administered address, so that a
// machine keeps it over a power cut.
func hardwareAddr(machine, iface string) net.HardwareAddr {
	sum := sha1.Sum([]byte(machine + "/" + iface))
	return net.HardwareAddr{0x02, sum[0], sum[1], sum[2], sum[3], sum[4]}
}

func ipNet(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
}
