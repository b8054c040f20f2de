package cnirpc

import (
	"context"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Error codes of Muslin's own. The CNI specification leaves those from 100 on to
// plugins; its own codes are the constants of package types.
const (
	CodeInternal   uint = 100 // none of the others: see the message
	CodePodUnknown uint = 101 // the API knows no such pod
	CodeAddress    uint = 102 // no address could be had, or not the wanted one
	CodeInterface  uint = 103 // the kernel refused the pod's interface
	CodeCheck      uint = 104 // CHECK found something other than ADD had left
)

// AsCNI finds the CNI error in err's chain. Without one it makes one: "try
// again later" for an ended context, fallback for everything else.
func AsCNI(err error, fallback uint) *types.Error {
	var e *types.Error
	switch {
	case errors.As(err, &e):
		if e.Error() == err.Error() {
			return e
		}
		return types.NewError(e.Code, err.Error(), "")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return types.NewError(types.ErrTryAgainLater, err.Error(), "")
	}
	return types.NewError(fallback, err.Error(), "")
}

// ToStatus makes the gRPC status that carries err to the plugin; nil stays nil.
func ToStatus(err error) error {
	if err == nil {
		return nil
	}
	e := AsCNI(err, CodeInternal)
	s := status.New(grpcCode(e.Code), e.Error())
	detailed, detailErr := s.WithDetails(&Error{Code: uint32(e.Code), Msg: e.Msg, Details: e.Details})
	if detailErr != nil {
		return s.Err() // unreachable for a message of this package; the text is still there
	}
	return detailed.Err()
}

// FromStatus is the inverse of ToStatus, for clients built on grpc-go. A status
// without a CNI error in it, such as one that grpc-go made itself, becomes "try
// again later": the call did not reach the agent or did not end.
func FromStatus(err error) *types.Error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	for _, d := range s.Details() {
		if e, ok := d.(*Error); ok {
			return types.NewError(uint(e.GetCode()), e.GetMsg(), e.GetDetails())
		}
	}
	return types.NewError(types.ErrTryAgainLater, fmt.Sprintf("agent: %s: %s", s.Code(), s.Message()), "")
}

// grpcCode gives clients that know nothing of CNI the nearest meaning.
func grpcCode(code uint) codes.Code {
	switch code {
	case types.ErrTryAgainLater, types.ErrPluginNotAvailable, types.ErrLimitedConnectivity:
		return codes.Unavailable
	case types.ErrUnknownContainer, CodePodUnknown:
		return codes.NotFound
	case types.ErrIncompatibleCNIVersion, types.ErrUnsupportedField, types.ErrInvalidEnvironmentVariables,
		types.ErrDecodingFailure, types.ErrInvalidNetworkConfig, types.ErrInvalidNetNS:
		return codes.InvalidArgument
	case CodeAddress:
		return codes.ResourceExhausted
	case CodeCheck:
		return codes.FailedPrecondition
	}
	return codes.Internal
}
