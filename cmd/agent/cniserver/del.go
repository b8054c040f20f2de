package cniserver

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/muslin-net/muslin/pkg/cnirpc"
	"github.com/muslin-net/muslin/pkg/cnirpc/client"
	"github.com/muslin-net/muslin/pkg/cnirpc/spool"
	"github.com/muslin-net/muslin/pkg/cnirpc/spoolentry"
)

// del records the request and answers, for a plugin that could not record it
// itself; Run does what is recorded. Without a place to record, it does
// everything before it answers.
func (s *Server) del(ctx context.Context, r *cnirpc.Request) ([]byte, error) {
	a, err := s.parse(r)
	if err != nil {
		return nil, err
	}
	err = spoolentry.Write(s.o.Spool, client.Request{
		ContainerID: a.containerID, Netns: a.netns, IfName: a.ifname, Args: r.GetArgs(), Config: r.GetConfig(),
	}, nil)
	if err == nil {
		return nil, nil
	}
	s.o.Logger.Warn("delete not recorded, done at once", "container", a.containerID, "error", err)
	start := time.Now()
	err = s.delNow(ctx, a, "")
	if err == nil { // a failure is the call's
		s.observe("DEL", time.Since(start), nil)
	}
	return nil, err
}

// delNow takes an attachment down. With the path of a record it does so only
// if the record is still there, and removes it.
func (s *Server) delNow(ctx context.Context, a attachment, path string) error {
	release, err := s.locks.acquire(ctx, a.keys()...)
	if err != nil {
		return fmt.Errorf("%s: wait for another call: %w", a, err)
	}
	defer release()
	if _, err := os.Lstat(path); path != "" && os.IsNotExist(err) {
		return nil // an ADD was here before, and saw to it
	}
	if err := s.takeDown(ctx, a); err != nil {
		return fmt.Errorf("%s: %w", a, err)
	}
	if path == "" {
		return nil
	}
	return spool.Remove(spool.Record{Path: path})
}

// vacate does the recorded DELs of other sandboxes in a network namespace before
// an ADD in it: their interface may have the same name. Runtimes make a namespace
// for each sandbox, people with cnitool do not. It looks at the spool itself: a
// spoolentry may be there for no time at all. No lock is held.
func (s *Server) vacate(ctx context.Context, a attachment) error {
	news, _ := spool.List(s.o.Spool, s.drainer.knows) // a spool that cannot be read is in the log
	for _, r := range s.drainer.in(a.netns, news) {
		if err := s.redo(ctx, r); err != nil {
			return fmt.Errorf("%s: finish the delete of %s: %w", a, r.Request.ContainerID, err)
		}
	}
	return nil
}

// finishDel does a recorded DEL of this very attachment before a new ADD. The
// attachment's locks are held.
func (s *Server) finishDel(ctx context.Context, a attachment) error {
	path := spoolentry.Path(s.o.Spool, a.containerID, a.ifname)
	if !exists(path) {
		return nil
	}
	if err := s.takeDown(ctx, a); err != nil {
		return fmt.Errorf("finish the delete before: %w", err)
	}
	return spool.Remove(spool.Record{Path: path})
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
