package ipam

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/muslin-net/muslin/pkg/model"
)

// Errors of a Store. Any other error means that the outcome is not known: a
// write may have taken effect.
var (
	ErrConflict = errors.New("the object has changed since it was read")
	ErrNotFound = errors.New("the object does not exist")
	ErrExists   = errors.New("the object exists already")
	// ErrRefused means that the write had no effect and that trying again will
	// not help: no permission, or an object that is not valid.
	ErrRefused = errors.New("the request was refused")
	// ErrClosed ends every retry: the store will not answer again.
	ErrClosed = errors.New("the store is closed")
)

// Code is the class of an Error: one CamelCase word, fit for the reason of an
// event or a condition.
type Code string

// The values of Code.
const (
	CodeBadRequest    Code = "BadRequest"    // the caller's request makes no sense
	CodeNoPool        Code = "NoPool"        // no pool may serve this node, namespace and use
	CodePoolNotFound  Code = "PoolNotFound"  // a pool asked for does not exist
	CodePoolUnusable  Code = "PoolUnusable"  // a pool asked for is disabled, being deleted, or for another use
	CodePoolExhausted Code = "PoolExhausted" // no address is left
	CodeBlockLimit    Code = "BlockLimit"    // maxBlocksPerHost is reached and borrowing is off
	CodeOutsidePools  Code = "OutsidePools"  // an address asked for is in no pool
	CodeTaken         Code = "AddressTaken"  // an address asked for has another owner
	CodeForeignBlock  Code = "ForeignBlock"  // an address asked for is in another node's block and borrowing is off
	CodeLocked        Code = "Locked"        // the cluster is locked for maintenance
	CodeUnavailable   Code = "Unavailable"   // the datastore could not be reached, or not in time
)

// Error is what Assign returns: which object, which field, what is wrong and
// what to do.
type Error struct {
	Code   Code
	Object model.Ref
	Field  string // JSON path; may be empty
	Detail string
	Hint   string // what to do; may be empty
	Err    error  // cause; may be nil
}

// Error gives one line: object, field, detail, cause, hint.
func (e *Error) Error() string {
	s := e.Object.String()
	if e.Object == (model.Ref{}) {
		s = "ipam"
	}
	if e.Field != "" {
		s += ": " + e.Field
	}
	s += ": " + e.Detail
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is(err, &Error{Code: c}) ask for a code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Problem gives the error as a model.Problem.
func (e *Error) Problem() model.Problem {
	p := model.Problem{Object: e.Object, Field: e.Field, Reason: string(e.Code), Message: e.Detail}
	if e.Hint != "" {
		p.Message += "; " + e.Hint
	}
	return p
}

// CodeOf gives the code of the first *Error in err's tree; Unavailable for
// another error, empty for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeUnavailable
}

// ErrTaken refuses an address that somebody has.
func ErrTaken(addr netip.Addr, by Attribute) *Error {
	owner := "handle " + by.Handle
	if pod := by.Owner["pod"]; pod != "" {
		owner = fmt.Sprintf("pod %s/%s on node %s", by.Owner["namespace"], pod, by.Owner["node"])
	} else if kind := by.Owner["type"]; kind != "" {
		owner = fmt.Sprintf("%s of node %s", kind, by.Owner["node"])
	}
	return &Error{Code: CodeTaken, Object: model.Ref{Kind: "Address", Name: addr.String()},
		Detail: "it belongs to " + owner, Hint: "ask for another address, or wait until it is released"}
}
