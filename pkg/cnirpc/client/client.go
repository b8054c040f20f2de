package client

import (
	"context"
	"errors"
	"strconv"
	"time"
)

// DefaultSocket is where the agent serves when nobody says otherwise.
const DefaultSocket = "/run/muslin/agent.sock"

// Error is the CNI specification's error, as the agent answered it. It has the
// fields of types.Error in CNI's own library, which links more than the plugin
// needs.
type Error struct {
	Code    uint
	Msg     string
	Details string
}

// Error gives message and details.
func (e *Error) Error() string {
	if e.Details == "" {
		return e.Msg
	}
	return e.Msg + "; " + e.Details
}

// Unavailable says that the agent was not reached, or that the connection ended
// before an answer: nothing is known of what it did.
type Unavailable struct {
	Socket string
	Cause  error
}

// Error names the socket and the cause.
func (u *Unavailable) Error() string { return "agent at " + u.Socket + ": " + u.Cause.Error() }

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
// response. The deadline of ctx goes to the agent with the call, and is kept
// also where ctx has no timer of its own (Done is nil). The error is an *Error
// when the agent said no, an *Unavailable when it did not answer, and another one
// when ctx ended.
func Call(ctx context.Context, socket string, verb Verb, req Request) ([]byte, error) {
	c, err := dial(ctx, socket)
	if err != nil {
		return nil, ended(ctx, socket, err)
	}
	defer c.closeAfter(ctx)()
	s := newStream(c)
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
	cause := context.Cause(ctx)
	if errors.Is(err, errLate) {
		cause = context.DeadlineExceeded
	}
	if cause != nil {
		return &noAnswer{socket, cause}
	}
	return &Unavailable{Socket: socket, Cause: err}
}

// noAnswer says that the context ended first.
type noAnswer struct {
	socket string
	cause  error
}

func (n *noAnswer) Error() string {
	return "agent at " + n.socket + ": no answer: " + n.cause.Error()
}

func (n *noAnswer) Unwrap() error { return n.cause }

// timeout gives the value of the grpc-timeout header, in whole milliseconds and
// at most eight digits, or nothing without a deadline.
func timeout(ctx context.Context) string {
	deadline, ok := ctx.Deadline()
	if !ok {
		return ""
	}
	ms := max(time.Until(deadline).Milliseconds(), 1)
	return strconv.FormatInt(min(ms, 99_999_999), 10) + "m"
}
