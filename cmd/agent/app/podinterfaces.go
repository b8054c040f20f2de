package app

import (
	"context"
	"errors"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/muslin-net/muslin/cmd/agent/cniserver"
	"github.com/muslin-net/muslin/felix/pod"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/pkg/model"
)

// podInterfaces gives the CNI server what felix/pod does.
type podInterfaces struct {
	*pod.Plugger
	mtu func() int // of pods, in bytes; 0: not known yet
}

func (w podInterfaces) Attach(ctx context.Context, s cniserver.InterfaceSpec) (cniserver.InterfaceResult, error) {
	spec := w.spec(s)
	ep, err := w.Plugger.Attach(ctx, spec)
	if errors.Is(err, pod.ErrNameTaken) {
		err = types.NewError(types.ErrTryAgainLater, err.Error(), "give the pod another name, or run it on another node")
	}
	if err != nil {
		return cniserver.InterfaceResult{}, err
	}
	return cniserver.InterfaceResult{HostMAC: pod.HostMAC.String(), MAC: ep.MAC, MTU: spec.MTU}, nil
}

func (w podInterfaces) Detach(ctx context.Context, s cniserver.InterfaceSpec) error {
	return w.Plugger.Detach(ctx, s.ContainerID, s.Interface, s.HostInterface)
}

func (w podInterfaces) Check(ctx context.Context, s cniserver.InterfaceSpec) error {
	return w.Plugger.Check(ctx, w.spec(s))
}

func (w podInterfaces) spec(s cniserver.InterfaceSpec) pod.Spec {
	spec := pod.Spec{
		ContainerID: s.ContainerID, Interface: s.Interface, NetNS: s.Netns,
		Namespace: s.Namespace, Pod: s.Pod, HostInterface: s.HostInterface,
		Addresses: s.Addresses, SourcePrefixes: s.SourcePrefixes, FloatingIPs: s.FloatingIPs,
		WithoutIPAM: s.WithoutIPAM,
		MAC:         s.MAC, MTU: s.MTU, FixedMTU: s.MTU > 0, Queues: s.Queues, Forwarding: s.Forwarding,
	}
	if spec.MTU == 0 {
		spec.MTU = w.mtu()
	}
	return spec
}

// adoptEndpoints reads the pods that an earlier process wired.
func (a *agent) adoptEndpoints() (*endpoints, error) {
	plugger, err := pod.New(pod.Options{ProcSys: a.cfg.ProcSys, Logger: a.log})
	if err != nil {
		return nil, err
	}
	a.pods = podInterfaces{plugger, func() int { return a.dataplane.podMTU() }}
	adopted, err := plugger.List(context.Background())
	if err != nil {
		return nil, err
	}
	a.log.Info("pods adopted", "count", len(adopted))
	for _, ep := range alloc.ByIPAM(adopted) {
		a.podCIDRs.Adopt(model.HandlePrefix+ep.ContainerID, ep.Addresses)
	}
	return newEndpoints(adopted), nil
}
