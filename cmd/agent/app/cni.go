package app

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/muslin-net/muslin/cmd/agent/cniserver"
	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/nodeaddr"
	"github.com/muslin-net/muslin/pkg/task"
	"google.golang.org/grpc"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// cniTasks are the CNI server and, after it answers, the node's CNI files.
func (a *agent) cniTasks() []task.Task {
	ineffective := newNoEffect(a.cfg.Node)
	server := cniserver.New(cniserver.Options{
		Added:     ineffective.added,
		Addresses: addresses{a.alloc, a.cluster, a.podCIDRs, a.freed, a.cfg.Node}, PodInterfaces: a.pods, Endpoints: a.endpoints, FormerOwners: formerOwners{a.policy, a.alloc, a.freed, a.relay, a.log}, Pods: pods{a.cluster},
		Node: a.cfg.Node, Socket: a.cfg.Socket, Spool: a.cfg.Spool, Logger: a.log, Status: a.cniStatus,
		Observe: a.metrics.observeCNI, Holder: a.holder,
		Register:        []func(*grpc.Server){func(*grpc.Server) { a.own.socket.set(nil) }}, // it listens by then
		InterfacePrefix: func() string { return felix.InterfacePrefix(a.cluster.Snapshot(), a.cfg.Node) },
		Admit:           func() error { return asCNI(a.alloc.Locked()) },
	})
	return []task.Task{
		cniServer{server, a},
		task.Func("cni socket", func(ctx context.Context, ready func()) error {
			a.gates.pass(gateSocket)
			ready()
			<-ctx.Done()
			return nil
		}),
		task.Func("cni config", a.installCNI),
		task.Func("what has no effect", func(ctx context.Context, ready func()) error {
			ready()
			ineffective.run(ctx, a.sendEvents)
			return nil
		}),
	}
}

// cniServer tries again when the socket cannot be had: pods that run need none.
type cniServer struct {
	*cniserver.Server
	a *agent
}

func (s cniServer) Run(ctx context.Context) error {
	for {
		err := s.Server.Run(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		s.a.own.socket.setOne(err, nodeProblem(s.a.cfg.Node, "MUSLIN_SOCKET", "SocketNotOpen", err.Error()+": no pod can start on this node until it can be opened"))
		s.a.gates.waitFirst(gateSocket, err.Error())
		pause(ctx, retryAfter)
	}
}

// holder says whose an address is, as far as this node knows: somebody's of the
// network, or one that IPAM gave out.
func (a *agent) holder(addr netip.Addr) string {
	in := a.in.gather()
	if whose := felix.Holder(felix.Input{Self: a.cfg.Node, Snapshot: in.snapshot, Host: in.host}, addr); whose != "" {
		return whose
	}
	for _, al := range a.alloc.Allocations() {
		if al.Addr == addr {
			return strings.TrimSpace("allocated by IPAM " + strings.Trim(al.Owner["namespace"]+"/"+al.Owner["pod"], "/"))
		}
	}
	return ""
}

// cniStatus answers CNI's STATUS: could an ADD succeed now?
func (a *agent) cniStatus(context.Context) error {
	if waiting := a.gates.waiting(gateCluster, gateKernel); len(waiting) > 0 {
		return fmt.Errorf("the agent waits: %v", waiting)
	}
	return a.inPlace()
}

// addresses gives the CNI server what the allocators have.
type addresses struct {
	alloc    *alloc.Allocator
	cluster  *kube.Cluster
	podCIDRs *podCIDRs
	freed    *freed
	node     model.NodeName
}

func (d addresses) Assign(ctx context.Context, r cniserver.AddressRequest) ([]netip.Addr, error) {
	if r.PodCIDRs {
		got, err := d.podCIDRs.assign(r)
		return got, asCNI(err)
	}
	v4, v6 := d.count(r.IPv4, model.IPv4), d.count(r.IPv6, model.IPv6)
	if v4+v6+len(r.Addresses) == 0 && (r.IPv4 == cniserver.NeedAuto || r.IPv6 == cniserver.NeedAuto) {
		return nil, asCNI(&ipam.Error{
			Code: ipam.CodeNoPool, Object: model.Ref{Kind: "Node", Name: string(d.node)}, Detail: "has no address of a family that there are pools of",
			Hint: "give kubelet a --node-ip of the pools' family, or make an IPPool of the node's",
		})
	}
	got, err := d.alloc.Assign(ctx, alloc.Request{
		Handle: r.Handle, Attrs: r.Attributes, V4: v4, V6: v6,
		PoolsV4: r.PoolsV4, PoolsV6: r.PoolsV6,
		NamespaceLabels: r.NamespaceLabels, Addrs: r.Addresses, Chosen: r.Chosen,
	})
	return got, asCNI(err)
}

// count is how many addresses of a family to ask for: with NeedAuto one if
// there is any pool of the family, and the node can be reached by that family.
func (d addresses) count(n cniserver.Need, f model.Family) int {
	switch n {
	case cniserver.NeedYes:
		return 1
	case cniserver.NeedNo:
		return 0
	}
	s := d.cluster.Snapshot()
	if self, ok := s.Node(d.node); ok && nodeaddr.Unreachable(self, f) {
		return 0
	}
	for _, p := range s.Pools {
		if f.Has(p.CIDR.Addr()) && !p.Disabled && !p.Deleting && p.Allocatable {
			return 1
		}
	}
	if f == model.IPv4 { // nothing at all: let the allocator say what is missing
		return 1
	}
	return 0
}

// Release asks the API server only for what did not come from the node's
// prefixes.
func (d addresses) Release(ctx context.Context, handle string) error {
	fromPrefixes := len(d.podCIDRs.Addresses(handle)) > 0 && len(d.alloc.Addresses(handle)) == 0
	d.podCIDRs.Release(handle)
	if fromPrefixes {
		return nil
	}
	given := d.alloc.Addresses(handle)
	err := d.alloc.Release(ctx, handle)
	if err == nil {
		d.freed.add(given, time.Now())
	}
	return asCNI(err)
}

func (d addresses) Lookup(_ context.Context, handle string) ([]netip.Addr, error) {
	out := d.podCIDRs.Addresses(handle)
	for _, al := range d.alloc.Allocations() {
		if al.Handle == handle && !slices.Contains(out, al.Addr) {
			out = append(out, al.Addr)
		}
	}
	return out, nil
}

func (d addresses) Handles(context.Context) ([]string, error) {
	out := d.podCIDRs.Handles()
	for _, al := range d.alloc.Allocations() {
		if al.Owner["pod"] != "" && !slices.Contains(out, al.Handle) {
			out = append(out, al.Handle)
		}
	}
	return out, nil
}

// asCNI gives an allocator's error the code that CNI's specification has for
// it: a configuration error is final, a lack of addresses may pass.
func asCNI(err error) error {
	if err == nil {
		return nil
	}
	code := types.ErrTryAgainLater
	switch ipam.CodeOf(err) {
	case ipam.CodeBadRequest, ipam.CodePoolNotFound, ipam.CodeOutsidePools, ipam.CodeForeignBlock:
		code = types.ErrInvalidNetworkConfig
	}
	return fmt.Errorf("%w", types.NewError(code, err.Error(), ""))
}

// pods gives the CNI server what the cluster says of a pod.
type pods struct{ cluster *kube.Cluster }

func (p pods) Pod(ctx context.Context, namespace, name, uid string) (cniserver.PodInfo, error) {
	pod, err := p.cluster.Pod(ctx, namespace, name, uid)
	if apierrors.IsNotFound(err) {
		return cniserver.PodInfo{}, cniserver.ErrNoPod
	} else if err != nil {
		return cniserver.PodInfo{}, err
	}
	ns, err := p.cluster.NamespaceOf(ctx, namespace)
	if err != nil {
		return cniserver.PodInfo{}, err
	}
	if err := p.cluster.AwaitPolicies(ctx, pod); err != nil {
		return cniserver.PodInfo{}, err
	}
	return cniserver.PodInfo{
		UID: pod.UID, Labels: pod.Labels, Annotations: pod.Annotations,
		NamespaceLabels: ns.Labels, NamespaceAnnotations: ns.Annotations,
	}, nil
}
