package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/muslin-net/muslin/pkg/cnirpc"
	"github.com/muslin-net/muslin/pkg/cnirpc/client"
)

// agent is a real grpc-go server whose every verb is one function.
type agent struct {
	cnirpc.UnimplementedCNIServer
	answer func(ctx context.Context, verb string, r *cnirpc.Request) (*cnirpc.Response, error)
}

func (a agent) Add(ctx context.Context, r *cnirpc.Request) (*cnirpc.Response, error) {
	return a.answer(ctx, "Add", r)
}

func (a agent) Del(ctx context.Context, r *cnirpc.Request) (*cnirpc.Response, error) {
	return a.answer(ctx, "Del", r)
}

func (a agent) GC(ctx context.Context, r *cnirpc.Request) (*cnirpc.Response, error) {
	return a.answer(ctx, "GC", r)
}

func serve(t *testing.T, answer func(context.Context, string, *cnirpc.Request) (*cnirpc.Response, error), o ...grpc.ServerOption) (string, *grpc.Server) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(o...)
	cnirpc.RegisterCNIServer(srv, agent{answer: answer})
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Stop(); <-done })
	return socket, srv
}

func TestCallCarriesRequestAndResult(t *testing.T) {
	big := bytes.Repeat([]byte("netconf "), 200_000) // far over every window
	cases := map[string]struct {
		req    client.Request
		result []byte
	}{
		"empty":      {client.Request{}, nil},
		"usual":      {client.Request{ContainerID: "c1", Netns: "/run/netns/x", IfName: "eth0", Args: "A=1;B=é", Config: []byte(`{"a":1}`)}, []byte(`{"ips":[]}`)},
		"big in":     {client.Request{ContainerID: "c1", Config: big}, []byte("x")},
		"big out":    {client.Request{ContainerID: "c1"}, big},
		"big in out": {client.Request{Config: big}, big},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var got *cnirpc.Request
			socket, _ := serve(t, func(_ context.Context, verb string, r *cnirpc.Request) (*cnirpc.Response, error) {
				if verb != "GC" {
					t.Errorf("verb %s", verb)
				}
				got = r
				return &cnirpc.Response{Result: c.result}, nil
			})
			result, err := client.Call(socket, 0, client.GC, c.req)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(result, c.result) {
				t.Errorf("result of %d bytes, want %d", len(result), len(c.result))
			}
			want := &cnirpc.Request{
				ContainerId: c.req.ContainerID, Netns: c.req.Netns, Ifname: c.req.IfName,
				Args: c.req.Args, Config: c.req.Config,
			}
			if !proto.Equal(want, got) {
				t.Error("request differs from what was sent")
			}
		})
	}
}

func TestCallReturnsTheAgentsCNIError(t *testing.T) {
	for _, want := range []*types.Error{
		types.NewError(types.ErrInvalidNetNS, "netns /x is gone", "open: no such file"),
		types.NewError(types.ErrTryAgainLater, "später; 100 %\nsure", ""),
		types.NewError(cnirpc.CodeAddress, strings.Repeat("long ", 500), strings.Repeat("details ", 500)),
	} {
		socket, _ := serve(t, func(context.Context, string, *cnirpc.Request) (*cnirpc.Response, error) {
			return nil, cnirpc.ToStatus(want)
		})
		_, err := client.Call(socket, 0, client.Add, client.Request{})
		var got *client.Error
		if !errors.As(err, &got) {
			t.Fatalf("error %T %v, want a CNI error", err, err)
		}
		if d := cmp.Diff(&client.Error{Code: want.Code, Msg: want.Msg, Details: want.Details}, got); d != "" {
			t.Errorf("error (-want +got):\n%s", d)
		}
	}
}

func TestCallSaysHowLongItWaits(t *testing.T) {
	want := time.Now().Add(time.Hour)
	socket, _ := serve(t, func(ctx context.Context, _ string, _ *cnirpc.Request) (*cnirpc.Response, error) {
		got, ok := ctx.Deadline()
		if !ok || got.Sub(want).Abs() > time.Minute {
			t.Errorf("deadline %v %v, want %v", got, ok, want)
		}
		return &cnirpc.Response{}, nil
	})
	if _, err := client.Call(socket, 3_600_000, client.Add, client.Request{}); err != nil {
		t.Fatal(err)
	}
}

// An agent that does not answer in time learns that nobody waits any more. The
// two may find out at the same moment, so what the caller is told may be either's.
func TestCallWaitsNoLonger(t *testing.T) {
	ended := make(chan struct{})
	socket, _ := serve(t, func(ctx context.Context, _ string, _ *cnirpc.Request) (*cnirpc.Response, error) {
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	})
	_, err := client.Call(socket, 100, client.Add, client.Request{})
	var u *client.Unavailable
	if !errors.As(err, &u) {
		t.Errorf("error %v, want Unavailable", err)
	}
	<-ended
}

func TestCallDoesNotWaitForAnAgentThatIsStuck(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket) // and never accepts
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = client.Call(socket, 100, client.Add, client.Request{})
	var u *client.Unavailable
	if !errors.As(err, &u) || !errors.Is(err, client.ErrLate) {
		t.Errorf("error %v, want %v", err, client.ErrLate)
	}
}

func TestCallWithoutAnAnswerIsUnavailable(t *testing.T) {
	dir := t.TempDir()
	refused := filepath.Join(dir, "refused")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: refused, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()

	var srv *grpc.Server
	stopped, srv := serve(t, func(context.Context, string, *cnirpc.Request) (*cnirpc.Response, error) {
		go srv.Stop()
		select {}
	})
	garbage := filepath.Join(dir, "garbage")
	listenRaw(t, garbage, "HTTP/1.1 400 Bad Request\r\n\r\n")
	closed := filepath.Join(dir, "closed")
	listenRaw(t, closed, "")
	goaway := filepath.Join(dir, "goaway")
	listenRaw(t, goaway, "\x00\x00\x08\x07\x00\x00\x00\x00\x00"+"\x00\x00\x00\x00"+"\x00\x00\x00\x00")
	unimplemented, _ := serve(t, nil)

	cases := map[string]struct{ socket, want string }{
		"no file":          {filepath.Join(dir, "none"), "no such file"},
		"nobody listens":   {refused, "connection refused"},
		"stopped mid call": {stopped, ""},
		"not HTTP/2":       {garbage, "frame of"},
		"closed at once":   {closed, ""},
		"going away":       {goaway, "going away"},
		"unimplemented":    {unimplemented, "gRPC status 12"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := client.Call(c.socket, 60_000, client.Status, client.Request{ContainerID: "x"})
			if name == "stopped mid call" {
				_, err = client.Call(c.socket, 60_000, client.Add, client.Request{ContainerID: "x"})
			}
			var u *client.Unavailable
			if !errors.As(err, &u) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.socket) {
				t.Errorf("error %T %v, want Unavailable naming %s with %q", err, err, c.socket, c.want)
			}
		})
	}
}

// listenRaw answers every connection with text and closes it.
func listenRaw(t *testing.T, path, text string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, text)
			buf := make([]byte, 1)
			_, _ = c.Read(buf)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
}

func TestCallAnswersPings(t *testing.T) {
	socket, _ := serve(t, func(ctx context.Context, _ string, _ *cnirpc.Request) (*cnirpc.Response, error) {
		// A keepalive round: without an answer grpc-go closes the
		// connection and the handler's context ends first.
		select {
		case <-time.After(4500 * time.Millisecond):
			return &cnirpc.Response{Result: []byte("alive")}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}, grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Second, Timeout: 3 * time.Second}))
	got, err := client.Call(socket, 0, client.Del, client.Request{})
	if err != nil || string(got) != "alive" {
		t.Errorf("result %q, error %v", got, err)
	}
}

func TestGeneratedClientSeesTheSameError(t *testing.T) {
	want := types.NewError(types.ErrTryAgainLater, "busy", "later")
	if d := cmp.Diff(want, cnirpc.FromStatus(cnirpc.ToStatus(want))); d != "" {
		t.Errorf("error through a status (-want +got):\n%s", d)
	}
	plain := cnirpc.FromStatus(status.Error(14, "gone"))
	if plain.Code != types.ErrTryAgainLater || !strings.Contains(plain.Msg, "gone") {
		t.Errorf("status without details became %+v", plain)
	}
	if cnirpc.ToStatus(nil) != nil || cnirpc.FromStatus(nil) != nil {
		t.Error("no error became one")
	}
}
