package kubetest

import (
	"context"
	"io"
	"net"
	"testing"
)

// ReachFrom has processes in another network namespace reach the server at the address
// that kubeconfigs have, until the test ends.
func (s *Server) ReachFrom(t testing.TB, netns string) {
	t.Helper()
	var l net.Listener
	if err := inNetns(netns, func() (err error) {
		l, err = new(net.ListenConfig).Listen(t.Context(), "tcp", address)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			go s.carry(near)
		}
	}()
}

// carry copies between a connection and one to the server.
func (s *Server) carry(near net.Conn) {
	defer near.Close()
	far, err := s.Dial(context.Background(), "tcp", address)
	if err != nil {
		return
	}
	defer far.Close()
	go func() {
		_, _ = io.Copy(far, near)
		_ = far.Close()
	}()
	_, _ = io.Copy(near, far)
}
