package pod

import (
	"crypto/sha1"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/pkg/model"
)

// Spec is how a pod is to be plugged in.
type Spec struct {
	ContainerID   string // the sandbox
	Interface     string // name inside the pod, e.g. eth0
	NetNS         string // path of the pod's network namespace
	Namespace     string
	Pod           string
	HostInterface string       // cali…, at most 15 bytes; see HostInterface
	Addresses     []netip.Addr // at least one
	// SourcePrefixes may be used as source beside Addresses.
	SourcePrefixes []netip.Prefix
	FloatingIPs    []netip.Addr // lead to the pod, too
	WithoutIPAM    string       // CNI network that gave Addresses; empty: IPAM gave them
	MAC            string       // of the pod's end; empty: derived from ContainerID and Interface
	MTU            int          // bytes; 0: the kernel's default
	FixedMTU       bool         // MTU stays when the node's changes
	Queues         int          // transmit and receive queues; 0: the kernel's default
	// Forwarding lets the pod route (Calico container_settings.allow_ip_forwarding).
	Forwarding bool
}

// The gateways of every pod (Calico's).
var (
	Gateway4 = netip.MustParseAddr("169.254.1.1")
	Gateway6 = felix.PodGateway6
)

// HostMAC is the address of the node's end of every pod's veth (Calico's).
var HostMAC = net.HardwareAddr{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}

const (
	aliasPrefix = "muslin:"
	aliasMax    = 255 // bytes, IFALIASZ less the end
	nameMax     = 15  // bytes, IFNAMSIZ less the end
	cut         = "~" // ends an alias that did not fit; no name of a pod has it
)

// HostInterface is Calico's name for the node's end of a pod's veth.
func HostInterface(namespace, pod string) string {
	sum := sha1.Sum([]byte(namespace + "." + pod))
	return fmt.Sprintf("cali%x", sum)[:nameMax]
}

func (s Spec) String() string {
	return s.Namespace + "/" + s.Pod + " (" + s.ContainerID + "/" + s.Interface + ")"
}

// valid checks what the kernel would refuse with a riddle.
func (s Spec) valid() error {
	var errs []error
	bad := func(ok bool, text string) {
		if !ok {
			errs = append(errs, errors.New(text))
		}
	}
	clean := func(t string) bool { return t != "" && !strings.ContainsAny(t, "/ \t\n") }
	bad(clean(s.ContainerID), "container id is empty or has a slash or a space")
	bad(clean(s.Interface) && len(s.Interface) <= nameMax, "interface name must have 1 to 15 bytes without slash or space")
	bad(clean(s.HostInterface) && len(s.HostInterface) <= nameMax, "host interface name must have 1 to 15 bytes without slash or space")
	bad(s.NetNS != "", "path of the network namespace is empty")
	bad(len(s.Addresses) > 0, "no address")
	for _, a := range s.Addresses {
		bad(a.IsValid() && a.Zone() == "" && !a.Is4In6(), "address "+a.String()+" cannot be a pod's")
	}
	bad(s.WithoutIPAM == "" || clean(s.WithoutIPAM), "name of the CNI network has a slash or a space")
	if s.MAC != "" {
		mac, err := net.ParseMAC(s.MAC)
		bad(err == nil && len(mac) == 6, "hardware address "+s.MAC+" is not 6 bytes")
	}
	_, err := s.alias()
	errs = append(errs, err)
	return errors.Join(errs...)
}

// mac is the pod's hardware address: the one asked for, or one that a later
// process can work out again.
func (s Spec) mac() net.HardwareAddr {
	if m, err := net.ParseMAC(s.MAC); err == nil {
		return m
	}
	return derivedMAC(s.ContainerID, s.Interface)
}

func derivedMAC(container, iface string) net.HardwareAddr {
	sum := sha1.Sum([]byte(container + "/" + iface))
	return net.HardwareAddr{0x02, sum[0], sum[1], sum[2], sum[3], sum[4]} // locally administered, unicast
}

// endpoint is what is known of a pod once it is plugged in.
func (s Spec) endpoint() model.Endpoint {
	fixed := 0
	if s.FixedMTU {
		fixed = s.MTU
	}
	return model.Endpoint{
		MTU: fixed, ContainerID: s.ContainerID, Interface: s.Interface, Namespace: s.Namespace, Pod: s.Pod,
		HostInterface: s.HostInterface, Addresses: s.Addresses, SourcePrefixes: s.SourcePrefixes,
		FloatingIPs: s.FloatingIPs, WithoutIPAM: s.WithoutIPAM,
		MAC: s.mac().String(),
	}
}

// alias has everything that a fresh process has to know. The name of the pod
// comes last: it is for people, and cut when it does not fit.
func (s Spec) alias() (string, error) {
	var b strings.Builder
	b.WriteString(aliasPrefix + s.ContainerID + "/" + s.Interface + " ")
	for i, a := range s.Addresses {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(a.String())
	}
	if s.MAC != "" {
		b.WriteString(" mac=" + s.mac().String())
	}
	if s.FixedMTU {
		fmt.Fprintf(&b, " mtu=%d", s.MTU)
	}
	if s.WithoutIPAM != "" {
		b.WriteString(" noipam=" + s.WithoutIPAM)
	}
	for i, a := range s.FloatingIPs {
		b.WriteString([]string{" fip=", ","}[min(i, 1)] + a.String())
	}
	for i, p := range s.SourcePrefixes {
		if i == 0 {
			b.WriteString(" src=")
		} else {
			b.WriteByte(',')
		}
		b.WriteString(p.String())
	}
	if b.Len() > aliasMax {
		return "", fmt.Errorf("addresses, floating addresses and source prefixes need %d bytes of the link's alias, which has %d", b.Len(), aliasMax)
	}
	out := b.String() + " " + s.Namespace + "/" + s.Pod
	if len(out) > aliasMax {
		out = out[:aliasMax-len(cut)] + cut
	}
	return out, nil
}

// parseAlias reads what alias wrote; false for a link that is not ours.
func parseAlias(alias, hostInterface string) (model.Endpoint, bool) {
	rest, ours := strings.CutPrefix(alias, aliasPrefix)
	fields := strings.Fields(rest)
	if !ours || len(fields) < 2 {
		return model.Endpoint{}, false
	}
	e := model.Endpoint{HostInterface: hostInterface}
	var ok bool
	if e.ContainerID, e.Interface, ok = strings.Cut(fields[0], "/"); !ok {
		return model.Endpoint{}, false
	}
	e.MAC = derivedMAC(e.ContainerID, e.Interface).String()
	for _, t := range strings.Split(fields[1], ",") {
		a, err := netip.ParseAddr(t)
		if err != nil {
			return model.Endpoint{}, false
		}
		e.Addresses = append(e.Addresses, a)
	}
	for _, f := range fields[2:] {
		if mac, ok := strings.CutPrefix(f, "mac="); ok {
			e.MAC = mac
		} else if mtu, ok := strings.CutPrefix(f, "mtu="); ok {
			e.MTU, _ = strconv.Atoi(mtu) // written by us; 0 means that it follows the node's
		} else if network, ok := strings.CutPrefix(f, "noipam="); ok {
			e.WithoutIPAM = network
		} else if floating, ok := strings.CutPrefix(f, "fip="); ok {
			for _, t := range strings.Split(floating, ",") {
				if a, err := netip.ParseAddr(t); err == nil {
					e.FloatingIPs = append(e.FloatingIPs, a)
				}
			}
		} else if src, ok := strings.CutPrefix(f, "src="); ok {
			for _, t := range strings.Split(src, ",") {
				if p, err := netip.ParsePrefix(t); err == nil {
					e.SourcePrefixes = append(e.SourcePrefixes, p)
				}
			}
		} else {
			e.Namespace, e.Pod, _ = strings.Cut(f, "/")
		}
	}
	return e, true
}
