package cniserver

import (
	"context"
	"fmt"

	"github.com/muslin-net/muslin/pkg/cnirpc"
)

func (s *Server) del(ctx context.Context, r *cnirpc.Request) ([]byte, error) {
	a, err := s.parse(r)
	if err != nil {
		return nil, err
	}
	release, err := s.locks.acquire(ctx, a.keys()...)
	if err != nil {
		return nil, fmt.Errorf("%s: wait for another call: %w", a, err)
	}
	defer release()
	if err := s.takeDown(ctx, a); err != nil {
		return nil, fmt.Errorf("%s: %w", a, err)
	}
	return nil, nil
}

// takeDown undoes everything of an attachment. A sandbox that stands with
// another interface keeps its address, which hangs on the sandbox.
func (s *Server) takeDown(ctx context.Context, a attachment) error {
	for _, ep := range s.o.Endpoints.List() {
		if ep.ContainerID != a.containerID {
			continue
		}
		if ep.Interface != a.ifname {
			return nil
		}
		a.hostInterface = ep.HostInterface
	}
	return s.everything(a).run(ctx)
}
