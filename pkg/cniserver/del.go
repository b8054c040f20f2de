package cniserver

import (
	"context"
	"fmt"
	"os"

	"github.com/muslin-net/muslin/pkg/cnirpc"
	"github.com/muslin-net/muslin/pkg/cnirpc/client"
	"github.com/muslin-net/muslin/pkg/cnirpc/spool"
)

// del records the request and answers; Run does what is recorded. The runtime
// goes on without the 20 ms that the kernel takes to delete a link and whatever
// the API takes to give the address back, and neither can keep a pod in
// Terminating. Without a place to record, it does everything before it answers.
func (s *Server) del(ctx context.Context, r *cnirpc.Request) ([]byte, error) {
	a, err := s.parse(r)
	if err != nil {
		return nil, err
	}
	record, err := spool.WriteUnsynced(s.o.Spool, client.Request{
		ContainerID: a.containerID, Netns: a.netns, IfName: a.ifname, Args: r.GetArgs(), Config: r.GetConfig(),
	})
	if err == nil {
		s.drainer.add(record)
		select {
		case s.recorded <- record:
		default: // Run looks at the directory soon
		}
		return nil, nil
	}
	s.o.Logger.Warn("delete not recorded, done at once", "container", a.containerID, "error", err)
	return nil, s.delNow(ctx, a, "")
}

// delNow takes an attachment down. With the path of a record it does so only
// if the record is still there, and removes it.
func (s *Server) delNow(ctx context.Context, a attachment, record string) error {
	release, err := s.locks.acquire(ctx, a.keys()...)
	if err != nil {
		return fmt.Errorf("%s: wait for another call: %w", a, err)
	}
	defer release()
	if _, err := os.Lstat(record); record != "" && os.IsNotExist(err) {
		return nil // an ADD was here before, and saw to it
	}
	if err := s.takeDown(ctx, a); err != nil {
		return fmt.Errorf("%s: %w", a, err)
	}
	if record == "" {
		return nil
	}
	return spool.Remove(spool.Record{Path: record})
}

// vacate does the recorded DELs of other sandboxes in a network namespace before
// an ADD in it: their interface may have the same name. Runtimes make a namespace
// for each sandbox, people with cnitool do not. No lock is held.
func (s *Server) vacate(ctx context.Context, a attachment) error {
	for _, r := range s.drainer.in(a.netns) {
		if err := s.redo(ctx, r); err != nil {
			return fmt.Errorf("%s: finish the delete of %s: %w", a, r.Request.ContainerID, err)
		}
	}
	return nil
}

// finishDel does a recorded DEL of this very attachment before a new ADD. The
// attachment's locks are held.
func (s *Server) finishDel(ctx context.Context, a attachment) error {
	record := spool.Path(s.o.Spool, a.containerID, a.ifname)
	if !exists(record) {
		return nil
	}
	if err := s.takeDown(ctx, a); err != nil {
		return fmt.Errorf("finish the delete before: %w", err)
	}
	return spool.Remove(spool.Record{Path: record})
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
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
		a.hostInterface, a.withoutIPAM = ep.HostInterface, ep.WithoutIPAM != ""
	}
	return s.everything(a).run(ctx)
}
