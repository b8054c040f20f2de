// Package topology is the plan of a lab: racks, routers, nodes and all their
// addresses, cables and first routes, read from a file and checked. It is pure.
package topology

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// RouterKind is the routing program of a router.
type RouterKind string

// The routing programs a router may run.
const (
	BIRD RouterKind = "bird"
	FRR  RouterKind = "frr"
)

// NodeKind tells how much of Kubernetes runs on a node.
type NodeKind string

const (
	// Full nodes run kubelet, containerd, runc and kube-proxy.
	Full NodeKind = "full"
	// Light nodes run the agent alone; pods are plugged by hack/lab/pod.
	Light NodeKind = "light"
)

// Topology is a checked and completed topology file. Its names are unique over
// all machines, and every address is set.
type Topology struct {
	// Core is the subnet that joins routers, control plane and outside host.
	Core Subnet
	// NodeAS is the AS number nodes speak BGP with, in the eyes of routers.
	NodeAS uint32
	// HoldTime and the keepalive time, a third of it, of the routers' sessions.
	HoldTime time.Duration
	// BFD is the interval with which routers watch their peers; three missed
	// packets mean that a peer is gone. 0: they do not.
	BFD time.Duration
	// ControlPlane runs kube-apiserver, controller manager and scheduler.
	ControlPlane Host
	// Outside is a host outside the cluster; its default route is Outside.Via.
	Outside Host
	Racks   []Rack
	Routers []Router
	Nodes   []Node
}

// Subnet is one layer 2 segment: an IPv4 prefix, an IPv6 one, or both. The one that is
// absent is invalid.
type Subnet struct {
	V4, V6 netip.Prefix
}

// Address is a machine's address in a subnet; those of families that the subnet has
// not are invalid.
type Address struct {
	V4, V6 netip.Addr
}

// All returns the addresses there are, IPv4 first.
func (a Address) All() []netip.Addr {
	return slices.DeleteFunc([]netip.Addr{a.V4, a.V6}, func(x netip.Addr) bool { return !x.IsValid() })
}

// Main is the IPv4 address, where there is none the IPv6 one.
func (a Address) Main() netip.Addr {
	if a.V4.IsValid() {
		return a.V4
	}
	return a.V6
}

// Of returns the address of the other's family.
func (a Address) Of(other netip.Addr) netip.Addr {
	if other.Is4() {
		return a.V4
	}
	return a.V6
}

// Host is a machine in the core subnet that does not route.
type Host struct {
	Name    string
	Address Address
	// Via names the router of the default route.
	Via string
}

// Rack is one subnet with the router that is its gateway.
type Rack struct {
	Name   string
	Subnet Subnet
	Router string
	// Gateway is the router's address in this rack: the first of the subnet.
	Gateway Address
	// Second names another router of the rack, with the subnet's second
	// address; empty when there is one router only.
	Second        string
	SecondGateway Address
}

// Router is a machine that forwards between its racks and the core.
type Router struct {
	Name string
	Kind RouterKind
	AS   uint32
	// Core is the router's address in the core subnet.
	Core Address
}

// Node is one Kubernetes node.
type Node struct {
	Name    string
	Rack    string
	Kind    NodeKind
	Address Address
}

// file is a topology file as written. Unknown keys are errors.
type file struct {
	Core struct {
		Subnet  string `json:"subnet"`
		Subnet6 string `json:"subnet6"`
	} `json:"core"`
	NodeAS       uint32     `json:"nodeAS"`
	HoldTime     string     `json:"holdTime"`
	BFD          string     `json:"bfd"`
	ControlPlane fileHost   `json:"controlPlane"`
	Outside      fileHost   `json:"outside"`
	Racks        []fileRack `json:"racks"`
	Routers      []struct {
		Name string     `json:"name"`
		Kind RouterKind `json:"kind"`
		AS   uint32     `json:"as"`
		Host uint32     `json:"host"`
	} `json:"routers"`
	Nodes []fileNode `json:"nodes"`
}

type fileHost struct {
	Name string `json:"name"`
	Host uint32 `json:"host"`
	Via  string `json:"via"`
}

type fileRack struct {
	Name    string `json:"name"`
	Subnet  string `json:"subnet"`
	Subnet6 string `json:"subnet6"`
	Router  string `json:"router"`
	Second  string `json:"second"`
}

type fileNode struct {
	Name string   `json:"name"`
	Rack string   `json:"rack"`
	Kind NodeKind `json:"kind"`
	Host uint32   `json:"host"`
	// Count makes that many nodes, called Name1, Name2, and so on.
	Count int `json:"count"`
}

// Host numbers that a topology file may leave out.
const (
	gatewayHost      = 1
	secondHost       = 2
	controlPlaneHost = 10
	outsideHost      = 20
	firstNodeHost    = 11
)

// Bounds of the routers' hold time: the protocol allows none below 3 s (RFC
// 4271, section 4.2).
const (
	defaultHoldTime = 15 * time.Second
	minHoldTime     = 3 * time.Second
	maxHoldTime     = 10 * time.Minute
)

// Bounds of the routers' BFD interval: what both routing programs take.
const (
	minBFD = 50 * time.Millisecond
	maxBFD = time.Minute
)

// Read reads and checks a topology file.
func Read(path string) (*Topology, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read topology: %w", err)
	}
	t, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("read topology %s: %w", path, err)
	}
	return t, nil
}

// Parse reads, completes and checks a topology. All that is wrong is
// reported at once, each with the name of what it is about.
func Parse(data []byte) (*Topology, error) {
	var raw file
	if err := yaml.UnmarshalStrict(data, &raw); err != nil {
		return nil, err
	}
	p := &parser{names: map[string]bool{}, racks: map[string]Rack{}, used: map[netip.Addr]string{}}
	t := p.parse(raw)
	if err := errors.Join(p.errs...); err != nil {
		return nil, err
	}
	return t, nil
}

// Machines returns the names of all machines: control plane, outside host,
// routers, nodes, in this order.
func (t *Topology) Machines() []string {
	names := []string{t.ControlPlane.Name, t.Outside.Name}
	for _, router := range t.Routers {
		names = append(names, router.Name)
	}
	for _, node := range t.Nodes {
		names = append(names, node.Name)
	}
	return names
}

// Check refuses a name that no machine has.
func (t *Topology) Check(machine string) error {
	if names := t.Machines(); !slices.Contains(names, machine) {
		return fmt.Errorf("no machine %q in this lab: there are %s", machine, strings.Join(names, ", "))
	}
	return nil
}

// Rack returns the rack called name, which must be one of the topology's.
func (t *Topology) Rack(name string) Rack {
	return find(t.Racks, func(r Rack) bool { return r.Name == name })
}

// Router returns the router called name, which must be one of the topology's.
func (t *Topology) Router(name string) Router {
	return find(t.Routers, func(r Router) bool { return r.Name == name })
}

// Node returns the node called name, and whether there is one.
func (t *Topology) Node(name string) (Node, bool) {
	node := find(t.Nodes, func(n Node) bool { return n.Name == name })
	return node, node.Name != ""
}

// RacksOf returns the racks that the router called name stands in, each with the
// address that router has there as Gateway.
func (t *Topology) RacksOf(router string) []Rack {
	var racks []Rack
	for _, rack := range t.Racks {
		switch router {
		case rack.Router:
			racks = append(racks, rack)
		case rack.Second:
			rack.Gateway = rack.SecondGateway
			racks = append(racks, rack)
		}
	}
	return racks
}

// NodesOf returns the names of the nodes of one kind.
func (t *Topology) NodesOf(kind NodeKind) []string {
	var names []string
	for _, node := range t.Nodes {
		if node.Kind == kind {
			names = append(names, node.Name)
		}
	}
	return names
}

func find[T any](all []T, is func(T) bool) T {
	for _, one := range all {
		if is(one) {
			return one
		}
	}
	var none T
	return none
}

// namePattern keeps names fit for interfaces (15 bytes, NAME-core), host names
// and Kubernetes objects.
var namePattern = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,8}[a-z0-9])?$`)
