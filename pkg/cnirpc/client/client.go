package client

import (
	"errors"
	"strconv"
	"syscall"
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
// response. It waits at most so many milliseconds for the agent each time that it
// has to wait, and tells the agent that this is all the time there is; 0 is no
// bound. The error is an *Error when the agent said no, and an *Unavailable
// otherwise.
func Call(socket string, wait uint, verb Verb, req Request) ([]byte, error) {
	c, err := dial(socket, wait)
	if err != nil {
		return nil, &Unavailable{Socket: socket, Cause: err}
	}
	result, err := exchange(newStream(c), wait, verb, req)
	_ = syscall.Close(int(c.FD)) // the answer is in, or there is none
	var stated *Error
	if err != nil && !errors.As(err, &stated) {
		err = &Unavailable{Socket: socket, Cause: err}
	}
	return result, err
}

func exchange(s *stream, wait uint, verb Verb, req Request) ([]byte, error) {
	if err := s.send(verb, timeout(wait), req.marshal()); err != nil {
		return nil, err
	}
	for !s.done {
		if err := s.step(); err != nil {
			return nil, err
		}
	}
	return s.outcome()
}

// timeout gives the value of the grpc-timeout header: at most eight digits, or
// nothing without a bound.
func timeout(wait uint) string {
	if wait == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(min(wait, 99_999_999)), 10) + "m"
}
