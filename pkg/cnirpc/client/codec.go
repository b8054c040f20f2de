package client

import (
	"encoding/binary"
	"errors"
)

// Request is the message of that name in cni.proto.
type Request struct {
	ContainerID string `json:"containerID,omitempty"` // CNI_CONTAINERID
	Netns       string `json:"netns,omitempty"`       // CNI_NETNS
	IfName      string `json:"ifname,omitempty"`      // CNI_IFNAME
	Args        string `json:"args,omitempty"`        // CNI_ARGS
	Config      []byte `json:"config,omitempty"`      // JSON
}

// Field numbers and types of cni.proto and of google/rpc/status.proto.
const (
	wireVarint, wireFixed64, wireBytes, wireFixed32 = 0, 1, 2, 5

	responseResult = 1
	errorCode      = 1
	errorMsg       = 2
	errorDetails   = 3
	statusDetails  = 3
	anyTypeURL     = 1
	anyValue       = 2

	errorTypeURL = "type.googleapis.com/muslin.cni.v1.Error"
)

// marshal encodes as the generated code does: fields in order, empty ones left
// out.
func (r Request) marshal() []byte {
	var b []byte
	for i, v := range []string{r.ContainerID, r.Netns, r.IfName, r.Args, string(r.Config)} {
		if v == "" {
			continue
		}
		b = binary.AppendUvarint(b, uint64(i+1)<<3|wireBytes)
		b = binary.AppendUvarint(b, uint64(len(v)))
		b = append(b, v...)
	}
	return b
}

var errWire = errors.New("malformed protobuf message")

// fields calls visit for every field of a message; number holds a varint,
// bytes a length-delimited value. Unknown types that have a length are skipped.
func fields(b []byte, visit func(field int, number uint64, bytes []byte)) error {
	for len(b) > 0 {
		key, n := binary.Uvarint(b)
		if n <= 0 || key>>3 == 0 {
			return errWire
		}
		b = b[n:]
		var size int
		switch key & 7 {
		case wireVarint:
			v, n := binary.Uvarint(b)
			if n <= 0 {
				return errWire
			}
			b = b[n:]
			visit(int(key>>3), v, nil)
			continue
		case wireFixed64:
			size = 8
		case wireFixed32:
			size = 4
		case wireBytes:
			l, n := binary.Uvarint(b)
			if n <= 0 || l > uint64(len(b)-n) {
				return errWire
			}
			b = b[n:]
			visit(int(key>>3), 0, b[:l])
			size = int(l)
		default:
			return errWire
		}
		if size > len(b) {
			return errWire
		}
		b = b[size:]
	}
	return nil
}

// unmarshalResult returns field result of a Response.
func unmarshalResult(b []byte) ([]byte, error) {
	var result []byte
	err := fields(b, func(field int, _ uint64, v []byte) {
		if field == responseResult {
			result = v
		}
	})
	return result, err
}

// cniError finds the Error among the details of an encoded google.rpc.Status.
func cniError(status []byte) (*Error, error) {
	var found *Error
	var inner error
	err := fields(status, func(field int, _ uint64, detail []byte) {
		if field != statusDetails {
			return
		}
		var url string
		var value []byte
		inner = errors.Join(inner, fields(detail, func(field int, _ uint64, v []byte) {
			switch field {
			case anyTypeURL:
				url = string(v)
			case anyValue:
				value = v
			}
		}))
		if url != errorTypeURL {
			return
		}
		found = &Error{}
		inner = errors.Join(inner, fields(value, func(field int, n uint64, v []byte) {
			switch field {
			case errorCode:
				found.Code = uint(n)
			case errorMsg:
				found.Msg = string(v)
			case errorDetails:
				found.Details = string(v)
			}
		}))
	})
	return found, errors.Join(err, inner)
}
