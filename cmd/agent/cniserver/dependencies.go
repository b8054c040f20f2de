package cniserver

import (
	"context"
	"errors"
	"net/netip"

	"github.com/muslin-net/muslin/pkg/model"
)

// Addresses gives out the addresses of pods. An implementation may answer with
// a *types.Error (CNI) of its own code anywhere in an error's chain.
type Addresses interface {
	// Assign returns the addresses of the request's handle, the same ones when
	// requested again. When it returns they survive a crash.
	Assign(ctx context.Context, r AddressRequest) ([]netip.Addr, error)
	// Release gives back all addresses of a handle; an unknown one is success.
	Release(ctx context.Context, handle string) error
	// Lookup returns the addresses of a handle, none for an unknown one.
	Lookup(ctx context.Context, handle string) ([]netip.Addr, error)
	// Handles returns the handles that hold an address on this node.
	Handles(ctx context.Context) ([]string, error)
}

// Need says whether an address of a family is wanted.
type Need int

// The values of Need.
const (
	NeedAuto Need = iota // one if this node has a pool of the family
	NeedYes
	NeedNo
)

// AddressRequest asks for the addresses of one attachment.
type AddressRequest struct {
	Handle string // <network>.<containerID>
	// Attributes are kept with the allocation under Calico's names:
	// namespace, node, pod, timestamp.
	Attributes       map[string]string
	IPv4, IPv6       Need
	PoolsV4, PoolsV6 []string     // names or prefixes of pools; none: any that fits
	Addresses        []netip.Addr // exactly these; the fields above but Handle and Attributes do not count then
	NamespaceLabels  map[string]string
	PodCIDRs         bool // from node.spec.podCIDRs; pools do not count then

	// Chosen, if set, may be called with the addresses as soon as they are
	// chosen and before they survive a crash, from any goroutine and more than
	// once, but not after Assign has returned. It does not block. What Assign
	// returns is what counts.
	Chosen func([]netip.Addr)
}

// PodInterfaces makes and removes the links of pods. A wire is recognised by its
// sandbox and interface, whatever its host interface is called.
type PodInterfaces interface {
	// Attach makes the wire as described, or completes one that is there; one
	// with other addresses is replaced. It fails when the network namespace is
	// not there or is the node's own.
	Attach(ctx context.Context, w InterfaceSpec) (InterfaceResult, error)
	// Detach removes the wire of the sandbox and interface, in any state, also
	// when the network namespace is gone; the absent is success. When it
	// returns, no packet of the pod's addresses passes. It leaves alone a host
	// interface of the same name that is another sandbox's. Addresses are not
	// set; HostInterface is a hint.
	Detach(ctx context.Context, w InterfaceSpec) error
	// Check compares the kernel with the description: links, addresses, routes
	// in the pod and the host's routes to it.
	Check(ctx context.Context, w InterfaceSpec) error
	// List returns every wire on this node.
	List(ctx context.Context) ([]model.Endpoint, error)
}

// InterfaceSpec describes a pod's wire.
type InterfaceSpec struct {
	ContainerID, Interface string // the sandbox, and the name inside the pod
	Netns                  string // path; may be empty or gone in Detach
	Namespace, Pod         string // empty: not a Kubernetes pod
	HostInterface          string
	Addresses              []netip.Addr
	SourcePrefixes         []netip.Prefix // may be used as source beside Addresses
	FloatingIPs            []netip.Addr   // lead to the pod, too
	WithoutIPAM            string         // network that gave Addresses; empty: IPAM gave them
	MTU                    int            // bytes; 0: the node's
	Queues                 int            // transmit and receive queues; 0: the kernel's default
	MAC                    string         // of the pod's side; empty: any
	Forwarding             bool           // the pod may forward (container_settings.allow_ip_forwarding)
}

// InterfaceResult is what the kernel made of a InterfaceSpec.
type InterfaceResult struct {
	HostMAC, MAC string
	MTU          int // bytes
}

// Endpoints is the set of attachments that the data plane serves.
type Endpoints interface {
	// Put adds or replaces an endpoint; the revision says when it counts.
	Put(ep model.Endpoint) (revision uint64)
	// Delete forgets an endpoint; the absent is success.
	Delete(containerID, ifname string) (revision uint64)
	// Settled waits until the kernel has the revision: host route and policy.
	Settled(ctx context.Context, revision uint64) error
	List() []model.Endpoint
}

// FormerOwners are those who had an address before.
type FormerOwners interface {
	// Disconnect ends what the kernel has of their connections. No route leads to the
	// addresses meanwhile, so none comes back.
	Disconnect(ctx context.Context, addrs []netip.Addr) error
	// HandOver waits until other nodes know that addresses are a pod's, if somebody had
	// them a short while ago, and no longer than that. An error is that ctx ended.
	HandOver(ctx context.Context, namespace, pod string, addrs []netip.Addr) error
}

// Pods knows the pods of this node.
type Pods interface {
	// Pod returns a pod, ErrNoPod when the API has none of that name, or another
	// one by its UID; an empty UID is any. It may wait for a cache that is behind,
	// as long as ctx lasts.
	Pod(ctx context.Context, namespace, name, uid string) (PodInfo, error)
}

// PodInfo is what counts of a pod and its namespace.
type PodInfo struct {
	UID                  string
	Labels               map[string]string
	Annotations          map[string]string
	NamespaceLabels      map[string]string
	NamespaceAnnotations map[string]string
}

// ErrNoPod says that the API has no such pod.
var ErrNoPod = errors.New("no such pod")

// attributes of an allocation, with Calico's names and time format.
func (s *Server) attributes(a attachment) map[string]string {
	m := map[string]string{
		"node": string(s.o.Node),
		// Without the monotonic reading, which String would print.
		"timestamp": s.now().UTC().Round(0).String(),
	}
	if a.isPod() {
		m["namespace"], m["pod"] = a.namespace, a.pod
	}
	return m
}
