package client

import (
	"errors"
	"io"
	"strconv"
)

// Frame types, flags and settings of RFC 9113, sections 6 and 6.5.2.
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	frameRSTStream    = 0x3
	frameSettings     = 0x4
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindowUpdate = 0x8
	frameContinuation = 0x9

	flagEndStream  = 0x1 // DATA, HEADERS
	flagAck        = 0x1 // SETTINGS, PING
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20

	settingHeaderTable   = 0x1
	settingEnablePush    = 0x2
	settingInitialWindow = 0x4
	settingMaxFrameSize  = 0x5
)

const (
	preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" // RFC 9113, section 3.4

	defaultWindow   = 65535   // bytes, both levels, until told otherwise
	defaultMaxFrame = 16384   // bytes of payload; also what we accept
	maxMessage      = 4 << 20 // bytes of a response, grpc-go's default too
	streamID        = 1       // the only stream
)

func append32(b []byte, v uint32) []byte {
	return append(b, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

func uint32At(b []byte) uint32 {
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// frame is one HTTP/2 frame.
type frame struct {
	kind, flags byte
	stream      uint32
	payload     []byte
}

func (f frame) has(flag byte) bool { return f.flags&flag != 0 }

// appendFrame appends the frame's nine-byte header and its payload.
func appendFrame(b []byte, kind, flags byte, stream uint32, payload []byte) []byte {
	n := len(payload)
	b = append(b, byte(n>>16), byte(n>>8), byte(n), kind, flags)
	b = append32(b, stream)
	return append(b, payload...)
}

// readFrame reads one frame; a payload above what we announced is an error.
func readFrame(r io.Reader) (frame, error) {
	var h [9]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return frame{}, err
	}
	n := int(h[0])<<16 | int(h[1])<<8 | int(h[2])
	if n > defaultMaxFrame {
		return frame{}, errors.New("frame of " + strconv.Itoa(n) + " bytes is over the limit of " + strconv.Itoa(defaultMaxFrame))
	}
	f := frame{kind: h[3], flags: h[4], stream: uint32At(h[5:]) & 0x7fffffff, payload: make([]byte, n)}
	if _, err := io.ReadFull(r, f.payload); err != nil {
		return frame{}, err
	}
	return f, nil
}

// body returns the payload of DATA or HEADERS without padding and priority.
func (f frame) body() ([]byte, error) {
	p, pad := f.payload, 0
	if f.has(flagPadded) {
		if len(p) == 0 {
			return nil, errors.New("padded frame without a pad length")
		}
		pad, p = int(p[0]), p[1:]
	}
	if f.kind == frameHeaders && f.has(flagPriority) {
		if len(p) < 5 {
			return nil, errors.New("short priority in a headers frame")
		}
		p = p[5:]
	}
	if pad > len(p) {
		return nil, errors.New("padding of " + strconv.Itoa(pad) + " bytes in a frame of " + strconv.Itoa(len(p)))
	}
	return p[:len(p)-pad], nil
}

// number reads the 32-bit value that WINDOW_UPDATE, RST_STREAM and GOAWAY hold
// at offset.
func (f frame) number(offset int) (uint32, error) {
	if len(f.payload) < offset+4 {
		return 0, errors.New("frame of type " + strconv.Itoa(int(f.kind)) + " is only " + strconv.Itoa(len(f.payload)) + " bytes")
	}
	return uint32At(f.payload[offset:]), nil
}
