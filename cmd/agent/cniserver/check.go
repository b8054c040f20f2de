package cniserver

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/muslin-net/muslin/pkg/cnirpc"
	"github.com/muslin-net/muslin/pkg/model"
)

// check compares what ADD answered with the block, the data plane's set and the
// kernel. It changes nothing.
func (s *Server) check(ctx context.Context, r *cnirpc.Request) ([]byte, error) {
	a, err := s.parse(r)
	if err != nil {
		return nil, err
	}
	release, err := s.locks.acquire(ctx, a.keys()...)
	if err != nil {
		return nil, fmt.Errorf("%s: wait for another call: %w", a, err)
	}
	defer release()
	if err := s.compare(ctx, a); err != nil {
		return nil, fmt.Errorf("%s: %w", a, err)
	}
	return nil, nil
}

func (s *Server) compare(ctx context.Context, a attachment) error {
	if a.previous == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "network configuration: prevResult: is missing", "")
	}
	ep, ok := s.endpoint(a)
	if !ok {
		return types.NewError(types.ErrUnknownContainer, "is not attached", "")
	}
	if err := same("prevResult", sorted(addressesOf(a.previous, a.ifname)), ep.Addresses); err != nil {
		return err
	}
	if err := s.compareAllocation(ctx, a, ep); err != nil {
		return err
	}
	spec := a.iface()
	spec.HostInterface, spec.Addresses, spec.SourcePrefixes = ep.HostInterface, ep.Addresses, ep.SourcePrefixes
	spec.WithoutIPAM = ep.WithoutIPAM
	if err := s.o.PodInterfaces.Check(ctx, spec); err != nil {
		return s.stepError("check wire", cnirpc.CodeCheck, err)
	}
	return nil
}

// compareAllocation has nothing to compare when IPAM did not give the addresses.
func (s *Server) compareAllocation(ctx context.Context, a attachment, ep model.Endpoint) error {
	if ep.WithoutIPAM != "" {
		return nil
	}
	held, err := s.o.Addresses.Lookup(ctx, a.handle())
	if err != nil {
		return s.stepError("look up address", types.ErrTryAgainLater, err)
	}
	return same("allocation "+a.handle(), held, ep.Addresses)
}

func (s *Server) endpoint(a attachment) (model.Endpoint, bool) {
	for _, ep := range s.o.Endpoints.List() {
		if ep.ContainerID == a.containerID && ep.Interface == a.ifname {
			return ep, true
		}
	}
	return model.Endpoint{}, false
}

// same demands that two places name the same addresses, in any order.
func same(place string, got, want []netip.Addr) error {
	got, want = sorted(got), sorted(want)
	if slices.Equal(got, want) {
		return nil
	}
	return types.NewError(cnirpc.CodeCheck, fmt.Sprintf("%s has addresses %v, the data plane %v", place, got, want), "")
}

func sorted(addrs []netip.Addr) []netip.Addr {
	return slices.Compact(slices.SortedFunc(slices.Values(addrs), netip.Addr.Compare))
}
