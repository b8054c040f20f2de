package policyrelay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/muslin-net/muslin/felix/policyrelay/relayrpc"
	"github.com/muslin-net/muslin/pkg/model"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// streamAge is how long a stream lasts, ± 10 %, before the agent has to show its token again.
const streamAge = time.Hour

// Server serves an Index to agents.
type Server struct {
	relayrpc.UnimplementedRelayServer
	Index       *Index
	Certificate tls.Certificate
	// Review gives the node of an agent's token. An error that has no gRPC status is
	// one of this end: codes.Unavailable.
	Review func(ctx context.Context, token string) (model.NodeName, error)
	Logger *slog.Logger
}

// Listen listens for agents. The kernel sends no keepalives: it would end a connection for one that is lost, as
// gRPC bounds by TCP_USER_TIMEOUT how long nothing may be acknowledged. gRPC's own pings are sent again.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	l, err := (&net.ListenConfig{KeepAlive: -1}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for agents: %w", err)
	}
	return l, nil
}

// Serve answers on l until ctx ends, and returns nil then.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{s.Certificate}})),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: streamAge, MaxConnectionAgeGrace: time.Second, Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second}),
		grpc.MaxConcurrentStreams(maxCalls), grpc.MaxRecvMsgSize(maxRequest),
		grpc.WriteBufferSize(8<<10), grpc.ReadBufferSize(1<<10), // of which each connection has one; that to write is shared
	)
	relayrpc.RegisterRelayServer(server, s)
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	if err := server.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve the policy relay: %w", err)
	}
	return nil
}

const (
	maxRequest = 4 << 20 // bytes
	maxCalls   = 256     // of an agent at a time: as many as it may start pods
)

// Watch is the call of that name.
func (s *Server) Watch(stream relayrpc.Relay_WatchServer) error {
	node, err := s.caller(stream.Context())
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.Node != string(node) {
		s.Logger.Warn("an agent asks for another node", "agent", node, "for", first.Node)
		return status.Errorf(codes.PermissionDenied, "the token is of node %s, which may not ask for node %s", node, first.Node)
	}
	sub := s.Index.Subscribe(node, first.Acknowledges)
	defer sub.Close()
	if err := subscribe(sub, first); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	received := make(chan error, 1)
	go func() { // ends with the stream
		for {
			q, err := stream.Recv()
			if err == nil {
				err = subscribe(sub, q)
			}
			if err != nil {
				received <- err
				return
			}
		}
	}()
	return send(stream, sub, received)
}

// send sends what is due until one of both ends does not go on.
func send(stream relayrpc.Relay_WatchServer, sub *Subscription, received <-chan error) error {
	for {
		out, err := sub.Next()
		switch {
		case err != nil:
			return status.Error(codes.ResourceExhausted, err.Error())
		case out != nil:
			if err := stream.Send(out); err != nil {
				return err
			}
			continue
		}
		select {
		case <-sub.wakes:
		case err := <-received:
			return err
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// caller gives the node of the agent that calls.
func (s *Server) caller(ctx context.Context) (model.NodeName, error) {
	values := metadata.ValueFromIncomingContext(ctx, "authorization")
	if len(values) != 1 {
		return "", status.Error(codes.Unauthenticated, "a token is needed")
	}
	token, ok := strings.CutPrefix(values[0], "Bearer ")
	if !ok || token == "" {
		return "", status.Error(codes.Unauthenticated, "a bearer token is needed")
	}
	node, err := s.Review(ctx, token)
	if _, is := status.FromError(err); err != nil && !is {
		s.Logger.Warn("cannot have a token reviewed", "error", err)
		return "", status.Error(codes.Unavailable, "the API server cannot be asked about the token")
	}
	return node, err
}
