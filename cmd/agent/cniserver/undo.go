package cniserver

import (
	"context"
	"fmt"
)

// undo is a list of steps back, in the order of the steps forward.
type undo []back

type back struct {
	name string
	run  func(ctx context.Context) error
}

// run goes back in reverse order and stops at the first step that fails: what
// comes before it in the list may still be in use. Running it again is safe.
func (u undo) run(ctx context.Context) error {
	for i := len(u) - 1; i >= 0; i-- {
		if err := u[i].run(ctx); err != nil {
			return fmt.Errorf("%s: %w", u[i].name, err)
		}
	}
	return nil
}

func (s *Server) undoAddress(a attachment) back {
	return back{"release address", func(ctx context.Context) error {
		if a.withoutIPAM {
			return nil
		}
		return s.o.Addresses.Release(ctx, a.handle())
	}}
}

func (s *Server) undoInterface(a attachment) back {
	return back{"detach wire", func(ctx context.Context) error {
		return s.o.PodInterfaces.Detach(ctx, a.iface())
	}}
}

func (s *Server) undoEndpoint(a attachment) back {
	return back{"delete endpoint", func(context.Context) error {
		s.o.Endpoints.Delete(a.containerID, a.ifname)
		return nil
	}}
}

// everything is what DEL undoes.
func (s *Server) everything(a attachment) undo {
	return undo{s.undoAddress(a), s.undoInterface(a), s.undoEndpoint(a)}
}
