package cniserver

import (
	"context"
	"errors"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/muslin-net/muslin/pkg/cnirpc"
	"github.com/muslin-net/muslin/pkg/cnirpc/spool"
)

// drain does the DELs that the plugin recorded. One that cannot be read, or
// that can never succeed, is dropped with an error in the log; one that fails
// otherwise stays for the next time.
func (s *Server) drain(ctx context.Context) error {
	records, err := spool.List(s.o.Spool)
	if err != nil {
		return err
	}
	return each(records, func(r spool.Record) error {
		if r.Err == nil {
			ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
			defer cancel()
			_, r.Err = s.del(ctx, &cnirpc.Request{
				ContainerId: r.Request.ContainerID, Netns: r.Request.Netns, Ifname: r.Request.IfName,
				Args: r.Request.Args, Config: r.Request.Config,
			})
			if r.Err != nil && !hopeless(r.Err) {
				return r.Err
			}
		}
		if r.Err != nil {
			s.o.Logger.Error("recorded delete dropped", "record", r.Path, "error", r.Err)
		} else {
			s.o.Logger.Info("recorded delete done", "record", r.Path)
		}
		return spool.Remove(r)
	})
}

// hopeless tells errors of the request itself from those of the moment.
func hopeless(err error) bool {
	var e *types.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case types.ErrDecodingFailure, types.ErrInvalidNetworkConfig, types.ErrInvalidEnvironmentVariables:
		return true
	}
	return false
}
