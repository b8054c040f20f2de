package cniserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"google.golang.org/grpc"

	"github.com/muslin-net/muslin/pkg/cnirpc"
	"github.com/muslin-net/muslin/pkg/cnirpc/spool"
)

// oneCall are the options for connections that have one small call each. Windows
// of a fixed size keep the server from measuring the connection, by pings that
// the plugin has to answer; the buffers are made anew for every connection.
var oneCall = []grpc.ServerOption{
	grpc.WaitForHandlers(true),
	grpc.InitialWindowSize(1 << 20), grpc.InitialConnWindowSize(1 << 20),
	grpc.ReadBufferSize(4 << 10), grpc.WriteBufferSize(4 << 10),
}

// Run does the recorded DELs, opens the socket and serves until ctx ends. It then
// refuses new calls, waits StopTimeout for those that run, and returns nil. Start
// it last: an open socket says that the node can take pods.
func (s *Server) Run(ctx context.Context) error {
	watch := watch{dir: s.o.Spool}
	defer watch.close()
	s.renew(&watch) // before the first look: nothing is missed
	failure := s.drain(ctx, "")
	s.drainer.group.Wait()
	listener, err := listen(s.o.Socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer(oneCall...)
	cnirpc.RegisterCNIServer(server, s)
	for _, register := range s.o.Register {
		register(server)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener); close(served) }()
	s.once.Do(func() { close(s.ready) })
	s.o.Logger.Info("cni socket open", "socket", s.o.Socket)
	err = s.untilEnd(ctx, &watch, served, failure)
	stop(server, s.o.StopTimeout)
	for range served { // Serve may not have begun when it was stopped
	}
	s.drainer.group.Wait()
	return err
}

// gather is how long records are collected before they are done: those of a burst
// share their writes, and the plugin that wrote the first has ended by then.
const gather = 20 * time.Millisecond

// untilEnd does what is recorded, until ctx ends or serving fails. Every now and
// then it looks at the whole spool, for what has to be tried again.
func (s *Server) untilEnd(ctx context.Context, watch *watch, served <-chan error, failure string) error {
	look := time.NewTimer(s.pause(watch))
	defer look.Stop()
	var paths []string
	var due <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-served:
			return fmt.Errorf("serve %s: %w", s.o.Socket, err)
		case e := <-watch.events():
			if e.Has(fsnotify.Create) && spool.Names(e.Name) {
				paths = append(paths, e.Name)
			}
			if due == nil && len(paths) > 0 {
				due = time.After(gather)
			}
		case <-due:
			for _, path := range paths {
				if r, ok := spool.Read(path); ok {
					s.doRecord(ctx, r)
				}
			}
			paths, due = nil, nil
		case err := <-watch.errors():
			s.o.Logger.Warn("events of the spool lost, looked at instead", "spool", s.o.Spool, "error", err)
			failure = s.drain(ctx, failure)
		case <-look.C:
			s.renew(watch)
			failure = s.drain(ctx, failure)
			look.Reset(s.pause(watch))
		}
	}
}

// listen opens the socket beside its path and renames it into place: what stands
// at the path is at every moment a socket, with its final mode, and one that a
// dead process left is replaced.
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make directory of socket %s: %w", path, err)
	}
	if st, err := os.Lstat(path); err == nil && st.Mode().Type() != os.ModeSocket {
		return nil, fmt.Errorf("socket %s: something else is there: %s", path, st.Mode())
	}
	temporary := path + "~"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket %s: %w", temporary, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", temporary, err)
	}
	// The file stays when the agent goes: a plugin is then refused at once.
	l.SetUnlinkOnClose(false)
	err = os.Chmod(temporary, 0o600)
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return nil, fmt.Errorf("put socket %s in place: %w", path, errors.Join(err, l.Close()))
	}
	return l, nil
}

// stop lets running calls end, but not for ever.
func stop(server *grpc.Server, patience time.Duration) {
	done := make(chan struct{})
	go func() { server.GracefulStop(); close(done) }()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		server.Stop()
		<-done
	}
}
