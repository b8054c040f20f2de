package client

import (
	"encoding/binary"
	"fmt"
	"io"
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
	b = binary.BigEndian.AppendUint32(b, stream)
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
		return frame{}, fmt.Errorf("frame of %d bytes is over the limit of %d", n, defaultMaxFrame)
	}
	f := frame{kind: h[3], flags: h[4], stream: binary.BigEndian.Uint32(h[5:]) & 0x7fffffff, payload: make([]byte, n)}
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
			return nil, fmt.Errorf("padded frame without a pad length")
		}
		pad, p = int(p[0]), p[1:]
	}
	if f.kind == frameHeaders && f.has(flagPriority) {
		if len(p) < 5 {
			return nil, fmt.Errorf("short priority in a headers frame")
		}
		p = p[5:]
	}
	if pad > len(p) {
		return nil, fmt.Errorf("padding of %d bytes in a frame of %d", pad, len(p))
	}
	return p[:len(p)-pad], nil
}

// number reads the 32-bit value that WINDOW_UPDATE, RST_STREAM and GOAWAY hold
// at offset.
func (f frame) number(offset int) (uint32, error) {
	if len(f.payload) < offset+4 {
		return 0, fmt.Errorf("frame of type %d is only %d bytes", f.kind, len(f.payload))
	}
	return binary.BigEndian.Uint32(f.payload[offset:]), nil
}
