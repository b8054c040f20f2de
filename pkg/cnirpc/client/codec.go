package client

import "errors"

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
		b = appendUvarint(b, uint64(i+1)<<3|wireBytes)
		b = appendUvarint(b, uint64(len(v)))
		b = append(b, v...)
	}
	return b
}

// appendUvarint and uvarint are those of encoding/binary, which links reflect.
func appendUvarint(b []byte, v uint64) []byte {
	for ; v >= 0x80; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v))
}

// uvarint gives the number of bytes read, 0 for what is no varint of 64 bits.
func uvarint(b []byte) (v uint64, n int) {
	for i, c := range b[:min(len(b), 10)] {
		if i == 9 && c > 1 {
			return 0, 0
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}

var errEncoding = errors.New("malformed protobuf message")

// field is one field of a message as it stands on the wire. A reader that
// expects another wire type has to pass it by, as generated code does.
type field struct {
	number uint64
	wire   byte   // wireVarint or wireBytes
	varint uint64 // the value of wireVarint
	bytes  []byte // the value of wireBytes
}

// is tells whether f is field number and written with that wire type.
func (f field) is(number uint64, wire byte) bool { return f.number == number && f.wire == wire }

// fields calls visit for every varint and every length-delimited field of a
// message; fields of a fixed size are passed by. Groups are errors.
func fields(b []byte, visit func(field)) error {
	for len(b) > 0 {
		key, n := uvarint(b)
		if n <= 0 || key>>3 == 0 {
			return errEncoding
		}
		b = b[n:]
		f := field{number: key >> 3, wire: byte(key & 7)}
		var size int
		switch f.wire {
		case wireVarint:
			f.varint, size = uvarint(b)
			if size <= 0 {
				return errEncoding
			}
			visit(f)
		case wireFixed64:
			size = 8
		case wireFixed32:
			size = 4
		case wireBytes:
			l, n := uvarint(b)
			if n <= 0 || l > uint64(len(b)-n) {
				return errEncoding
			}
			b = b[n:]
			f.bytes, size = b[:l], int(l)
			visit(f)
		default:
			return errEncoding
		}
		if size > len(b) {
			return errEncoding
		}
		b = b[size:]
	}
	return nil
}

// unmarshalResult returns field result of a Response.
func unmarshalResult(b []byte) ([]byte, error) {
	var result []byte
	err := fields(b, func(f field) {
		if f.is(responseResult, wireBytes) {
			result = f.bytes
		}
	})
	return result, err
}

// cniError finds the Error among the details of an encoded google.rpc.Status.
func cniError(status []byte) (*Error, error) {
	var found *Error
	var inner error
	err := fields(status, func(f field) {
		if !f.is(statusDetails, wireBytes) {
			return
		}
		e, err := unmarshalError(f.bytes)
		inner = errors.Join(inner, err)
		if e != nil {
			found = e
		}
	})
	return found, errors.Join(err, inner)
}

// unmarshalError reads the Error packed in a google.protobuf.Any; of any other
// message it returns nil.
func unmarshalError(packed []byte) (*Error, error) {
	var url string
	var value []byte
	err := fields(packed, func(f field) {
		switch {
		case f.is(anyTypeURL, wireBytes):
			url = string(f.bytes)
		case f.is(anyValue, wireBytes):
			value = f.bytes
		}
	})
	if url != errorTypeURL {
		return nil, err
	}
	e := &Error{}
	inner := fields(value, func(f field) {
		switch {
		case f.is(errorCode, wireVarint):
			e.Code = uint(f.varint)
		case f.is(errorMsg, wireBytes):
			e.Msg = string(f.bytes)
		case f.is(errorDetails, wireBytes):
			e.Details = string(f.bytes)
		}
	})
	return e, errors.Join(err, inner)
}

// unbase64 decodes base64 (RFC 4648, section 4), padded or not. The package of
// that name sets up four encodings when the process starts.
func unbase64(s string) ([]byte, bool) {
	for padding := 0; padding < 2 && len(s) > 0 && s[len(s)-1] == '='; padding++ {
		s = s[:len(s)-1]
	}
	var out []byte
	var bits uint32
	for i := range len(s) {
		digit, ok := base64Digit(s[i])
		if !ok {
			return nil, false
		}
		bits = bits<<6 | digit
		if have := (i + 1) * 6 % 8; have < 6 { // bits that are left of a whole byte
			out = append(out, byte(bits>>have))
		}
	}
	return out, len(s)%4 != 1
}

func base64Digit(c byte) (uint32, bool) {
	switch {
	case 'A' <= c && c <= 'Z':
		return uint32(c - 'A'), true
	case 'a' <= c && c <= 'z':
		return uint32(c-'a') + 26, true
	case '0' <= c && c <= '9':
		return uint32(c-'0') + 52, true
	case c == '+':
		return 62, true
	case c == '/':
		return 63, true
	}
	return 0, false
}
