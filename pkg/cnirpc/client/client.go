package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

// DefaultSocket is where the agent serves when nobody says otherwise.
const DefaultSocket = "/run/muslin/agent.sock"

// Error is the CNI specification's error, as the agent answered it.
type Error = types.Error

// Unavailable says that the agent was not reached, or that the connection ended
// before an answer: nothing is known of what it did.
type Unavailable struct {
	Socket string
	Cause  error
}

// Error names the socket and the cause.
func (u *Unavailable) Error() string {
	return fmt.Sprintf("agent at %s: %v", u.Socket, u.Cause)
}

// Unwrap returns the cause.
func (u *Unavailable) Unwrap() error { return u.Cause }

// Verb is a call of service CNI in cni.proto.
type Verb string

// The verbs.
const (
	Add    Verb = "Add"
	Del    Verb = "Del"
	Check  Verb = "Check"
	Status Verb = "Status"
	GC     Verb = "GC"
)

// Call makes one call over the unix socket and returns the result of the
// response. The deadline of ctx goes to the agent with the call. The error is
// an *Error when the agent said no, an *Unavailable when it did not answer, and
// another one when ctx ended.
func Call(ctx context.Context, socket string, verb Verb, req Request) ([]byte, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, ended(ctx, socket, err)
	}
	defer func() { _ = conn.Close() }() // the answer is in, or there is none
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	s := newStream(conn)
	if err := s.send(verb, timeout(ctx), req.marshal()); err != nil {
		return nil, ended(ctx, socket, err)
	}
	for !s.done {
		if err := s.step(); err != nil {
			return nil, ended(ctx, socket, err)
		}
	}
	result, err := s.outcome()
	var e *Error
	if err != nil && !errors.As(err, &e) {
		return nil, ended(ctx, socket, err)
	}
	return result, err
}

// ended tells whether err came from the end of ctx or from the agent's absence.
func ended(ctx context.Context, socket string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("agent at %s: no answer: %w", socket, cause)
	}
	return &Unavailable{Socket: socket, Cause: err}
}

// timeout gives the value of the grpc-timeout header, in whole milliseconds and
// at most eight digits, or nothing without a deadline.
func timeout(ctx context.Context) string {
	deadline, ok := ctx.Deadline()
	if !ok {
		return ""
	}
	ms := max(time.Until(deadline).Milliseconds(), 1)
	return fmt.Sprintf("%dm", min(ms, 99_999_999))
}
