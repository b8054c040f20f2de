package cniserver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sync/errgroup"

	"github.com/muslin-net/muslin/pkg/cnirpc"
	"github.com/muslin-net/muslin/pkg/model"
)

func (s *Server) add(ctx context.Context, r *cnirpc.Request) ([]byte, error) {
	a, err := s.parse(r)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(Versions, a.version) {
		return nil, types.NewError(types.ErrIncompatibleCNIVersion,
			fmt.Sprintf("network configuration: cniVersion %q: want one of %v", a.version, Versions), "")
	}
	if a.netns == "" {
		return nil, types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_NETNS is missing", "")
	}
	if err := s.o.Admit(); err != nil {
		return nil, fmt.Errorf("%s: %w", a, err)
	}
	if err := s.vacate(ctx, a); err != nil {
		return nil, err
	}
	release, err := s.locks.acquire(ctx, a.keys()...)
	if err != nil {
		return nil, fmt.Errorf("%s: wait for another call: %w", a, err)
	}
	defer release()
	if err := s.finishDel(ctx, a); err != nil {
		return nil, fmt.Errorf("%s: %w", a, err)
	}
	stands, err := s.makeRoom(ctx, a)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a, err)
	}
	w, info, err := s.requested(ctx, a)
	if err == nil {
		err = s.standsAs(&a, &w)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a, err)
	}
	var back undo
	out, err := s.steps(ctx, a, w, info, &back)
	if err == nil {
		if a.pod != "" {
			s.o.Added(a.namespace, a.pod, info, r.GetConfig())
		}
		return out, nil
	}
	if !stands {
		err = errors.Join(err, s.goBack(ctx, back))
	}
	return nil, fmt.Errorf("%s: %w", a, err)
}

// steps goes forward and notes each step in back before it begins it, so that a
// step that failed halfway is undone too.
func (s *Server) steps(ctx context.Context, a attachment, w requested, info PodInfo, back *undo) ([]byte, error) {
	*back = append(*back, s.undoAddress(a), s.undoInterface(a))
	spec := a.iface()
	spec.SourcePrefixes, spec.FloatingIPs, spec.MAC = w.sourcePrefixes, w.floating, w.mac
	if a.withoutIPAM {
		spec.WithoutIPAM = a.network
	}
	addrs, iface, err := s.address(ctx, a, w, info, spec)
	if err != nil {
		return nil, err
	}
	*back = append(*back, s.undoEndpoint(a))
	revision := s.o.Endpoints.Put(model.Endpoint{
		ContainerID: a.containerID, Interface: a.ifname, Namespace: a.namespace, Pod: a.pod,
		HostInterface: a.hostInterface, Addresses: addrs, SourcePrefixes: w.sourcePrefixes, MAC: iface.MAC,
		FloatingIPs: w.floating, WithoutIPAM: spec.WithoutIPAM, MTU: spec.MTU,
	})
	if err := s.settle(ctx, a, addrs, revision); err != nil {
		return nil, err
	}
	return result(a, addrs, iface)
}

// settle waits for this node and the others to know the attachment.
func (s *Server) settle(ctx context.Context, a attachment, addrs []netip.Addr, revision uint64) error {
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error {
		if err := s.o.Endpoints.Settled(ctx, revision); err != nil {
			return s.stepError("settle endpoint", types.ErrTryAgainLater, err)
		}
		return nil
	})
	both.Go(func() error {
		if err := s.o.FormerOwners.HandOver(ctx, a.namespace, a.pod, addrs); err != nil {
			return s.stepError("hand over address", types.ErrTryAgainLater, err)
		}
		return nil
	})
	return both.Wait()
}

// standsAs decides whether IPAM gives the addresses. An attachment that stands
// keeps those that it has, whatever its pod's annotations say now. Addresses
// without IPAM must be nobody's as far as this node knows; on other nodes that is
// for whoever chose them to see to.
func (s *Server) standsAs(a *attachment, w *requested) error {
	ep, stands := s.endpoint(*a)
	if stands {
		if w.given = nil; ep.WithoutIPAM != "" {
			w.given = ep.Addresses
		}
	}
	a.withoutIPAM = len(w.given) > 0
	if !stands {
		if err := s.nobodys(w.given); err != nil {
			return err
		}
	}
	for _, ep := range s.o.Endpoints.List() {
		for _, addr := range w.given {
			if ep.ContainerID != a.containerID && slices.Contains(ep.Addresses, addr) {
				return types.NewError(types.ErrTryAgainLater, fmt.Sprintf("metadata.annotations[%s]: %s is the address of pod %s/%s on this node",
					annotationAddrsNoIPAM, addr, ep.Namespace, ep.Pod), "choose another address, or delete that pod")
			}
		}
	}
	return nil
}

// nobodys refuses addresses that somebody else has.
func (s *Server) nobodys(given []netip.Addr) error {
	for _, addr := range given {
		if whose := s.o.Holder(addr); whose != "" {
			return types.NewError(types.ErrTryAgainLater, fmt.Sprintf("metadata.annotations[%s]: %s is %s",
				annotationAddrsNoIPAM, addr, whose), "choose another address")
		}
	}
	return nil
}

// address gives the attachment its addresses and its wire.
func (s *Server) address(ctx context.Context, a attachment, w requested, info PodInfo, spec InterfaceSpec) ([]netip.Addr, InterfaceResult, error) {
	if !a.withoutIPAM {
		return s.assignAndAttach(ctx, s.addressRequest(a, w, info), spec)
	}
	spec.Addresses = w.given
	iface, err := s.attach(ctx, spec)
	return w.given, iface, err
}

// attach makes the wire, and has it inherit nothing: both before a route leads to it.
func (s *Server) attach(ctx context.Context, spec InterfaceSpec) (iface InterfaceResult, err error) {
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error {
		if err := s.o.FormerOwners.Disconnect(ctx, spec.Addresses); err != nil {
			return s.stepError("end connections of former owners", types.ErrTryAgainLater, err)
		}
		return nil
	})
	both.Go(func() (err error) {
		if iface, err = s.o.PodInterfaces.Attach(ctx, spec); err != nil {
			return s.stepError("attach wire", cnirpc.CodeInterface, err)
		}
		return nil
	})
	err = both.Wait()
	return iface, err
}

// assignAndAttach makes the wire while its addresses are still being stored. No
// packet finds it before the host route is there, which comes last. An error of
// one ends the other's context; both have returned when it returns.
func (s *Server) assignAndAttach(ctx context.Context, r AddressRequest, spec InterfaceSpec) ([]netip.Addr, InterfaceResult, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	attach := func(addrs []netip.Addr) (iface InterfaceResult) {
		spec := spec
		spec.Addresses = addrs
		iface, err := s.attach(ctx, spec)
		if err != nil {
			cancel(err)
		}
		return iface
	}
	chosen := make(chan []netip.Addr, 1)
	r.Chosen = func(addrs []netip.Addr) {
		select {
		case chosen <- addrs:
		default: // the first choice is being wired; if it does not hold, the wire is made anew
		}
	}
	var early []netip.Addr
	var iface InterfaceResult
	var ahead sync.WaitGroup
	ahead.Go(func() {
		if early = <-chosen; early != nil {
			iface = attach(early)
		}
	})
	addrs, err := s.o.Addresses.Assign(ctx, r)
	switch {
	case err != nil:
		cancel(s.stepError("assign address", cnirpc.CodeAddress, err))
	case len(addrs) == 0:
		cancel(s.stepError("assign address", cnirpc.CodeAddress, errors.New("no pool gives this pod an address")))
	}
	close(chosen)
	ahead.Wait()
	if context.Cause(ctx) == nil && !slices.Equal(early, addrs) {
		iface = attach(addrs)
	}
	return addrs, iface, context.Cause(ctx)
}

func (s *Server) stepError(step string, code uint, err error) error {
	e := cnirpc.AsCNI(err, code)
	return types.NewError(e.Code, step+": "+e.Msg, e.Details)
}

// goBack undoes on a context of its own: that of the call may have ended, which
// may be why the ADD failed.
func (s *Server) goBack(ctx context.Context, back undo) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.o.UndoTimeout)
	defer cancel()
	if err := back.run(ctx); err != nil {
		return fmt.Errorf("undo, to be finished by DEL: %w", err)
	}
	return nil
}

// makeRoom looks at what stands already: it reports whether this very
// attachment does, refuses a second interface in the same sandbox and a host
// interface that another pod has, and takes down older sandboxes of the same pod.
func (s *Server) makeRoom(ctx context.Context, a attachment) (stands bool, err error) {
	for _, ep := range s.o.Endpoints.List() {
		switch {
		case ep.ContainerID == a.containerID && ep.Interface == a.ifname:
			stands = true
		case ep.ContainerID == a.containerID:
			return false, types.NewError(types.ErrInvalidNetworkConfig,
				fmt.Sprintf("sandbox already has interface %s: one interface for each sandbox", ep.Interface), "")
		case a.isPod() && ep.Namespace == a.namespace && ep.Pod == a.pod:
			if err := s.replaceOld(ctx, of(a.network, ep)); err != nil {
				return false, err
			}
		case ep.HostInterface == a.hostInterface:
			return false, types.NewError(types.ErrTryAgainLater, fmt.Sprintf("host interface name %s collides with that of %s",
				ep.HostInterface, of(a.network, ep)), "give the pod another name, or run it on another node")
		}
	}
	return stands, nil
}

// replaceOld takes down an older sandbox of the pod; its own DEL, which may
// still come, finds nothing to do. The pod's lock is held.
func (s *Server) replaceOld(ctx context.Context, old attachment) error {
	release, err := s.locks.acquire(ctx, "sandbox/"+old.containerID)
	if err != nil {
		return fmt.Errorf("wait for older sandbox %s: %w", old.containerID, err)
	}
	defer release()
	if err := s.everything(old).run(ctx); err != nil {
		return fmt.Errorf("older sandbox %s: %w", old.containerID, err)
	}
	s.o.Logger.Info("older sandbox replaced", "pod", old.namespace+"/"+old.pod, "container", old.containerID)
	return nil
}

func (s *Server) requested(ctx context.Context, a attachment) (requested, PodInfo, error) {
	var info PodInfo
	if a.isPod() {
		var err error
		if info, err = s.o.Pods.Pod(ctx, a.namespace, a.pod, a.uid); err != nil {
			code := types.ErrTryAgainLater
			if errors.Is(err, ErrNoPod) {
				code = cnirpc.CodePodUnknown
			}
			return requested{}, info, s.stepError("read pod", code, err)
		}
	}
	w, err := requestedBy(a, info)
	return w, info, err
}

func (s *Server) addressRequest(a attachment, w requested, info PodInfo) AddressRequest {
	return AddressRequest{
		Handle: a.handle(), Attributes: s.attributes(a),
		IPv4: w.ipv4, IPv6: w.ipv6, PoolsV4: w.poolsV4, PoolsV6: w.poolsV6, Addresses: w.addresses,
		NamespaceLabels: info.NamespaceLabels, PodCIDRs: a.podCIDRs,
	}
}
