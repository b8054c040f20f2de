package kubetest

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"testing"
)

// Elsewhere is a server that another process runs, on a machine from which this one
// has the files in dir, and which is reached at an address. Kill and Restart are not for
// it.
func Elsewhere(t testing.TB, dir, at string) *Server {
	t.Helper()
	s := &Server{Netns: fmt.Sprintf("mt-kube-%08x", rand.Uint32()), Dir: dir}
	for _, args := range [][]string{{"netns", "add", s.Netns}, {"-n", s.Netns, "link", "set", "lo", "up"}} {
		if out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	t.Cleanup(s.remove)
	listen(t, s.Netns, func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", at) })
	return s
}

// ReachFrom has processes in another network namespace reach the server at the address
// that kubeconfigs have, until the test ends.
func (s *Server) ReachFrom(t testing.TB, netns string) {
	t.Helper()
	listen(t, netns, func(ctx context.Context) (net.Conn, error) { return s.Dial(ctx, "tcp", address) })
}

// listen has connections to address in a network namespace carried to where dial leads.
func listen(t testing.TB, netns string, dial func(context.Context) (net.Conn, error)) {
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
			go carry(near, dial)
		}
	}()
}

// carry copies between a connection and one to the server.
func carry(near net.Conn, dial func(context.Context) (net.Conn, error)) {
	defer near.Close()
	far, err := dial(context.Background())
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
