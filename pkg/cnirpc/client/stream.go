package client

import (
	"errors"
	"io"
	"strconv"
)

// stream is the one call of a connection. Everything runs on the caller's
// goroutine: step reads one frame and answers it.
type stream struct {
	conn io.ReadWriter
	in   buffered
	due  []byte // acknowledgements that go out before the next wait

	// What the server lets us send (RFC 9113, section 5.2).
	connWindow, streamWindow, initialWindow int64
	maxFrame                                int

	block   []byte // header block so far, until END_HEADERS
	ends    bool   // the block's HEADERS frame ended the stream
	inBlock bool
	answer  answer // of headers and trailers; later ones win
	body    []byte
	done    bool
}

func newStream(conn io.ReadWriter) *stream {
	return &stream{
		conn: conn, in: buffered{from: conn},
		connWindow: defaultWindow, streamWindow: defaultWindow, initialWindow: defaultWindow,
		maxFrame: defaultMaxFrame,
	}
}

// send writes preface, settings, headers and as much of the message as the
// windows allow, in one write for every usual message.
func (s *stream) send(verb Verb, timeout string, message []byte) error {
	out := []byte(preface)
	settings := make([]byte, 0, 18)
	settings = appendSetting(settings, settingHeaderTable, 0)
	settings = appendSetting(settings, settingEnablePush, 0)
	settings = appendSetting(settings, settingInitialWindow, maxMessage+5)
	out = appendFrame(out, frameSettings, 0, 0, settings)
	out = appendFrame(out, frameWindowUpdate, 0, 0, append32(nil, maxMessage))
	out = appendFrame(out, frameHeaders, flagEndHeaders, streamID, requestHeaders(verb, timeout))

	pending := append32([]byte{0}, uint32(len(message)))
	pending = append(pending, message...)
	for len(pending) > 0 && !s.done {
		want := min(int64(len(pending)), int64(s.maxFrame))
		n := min(want, s.connWindow, s.streamWindow)
		// A sender that fills every sliver of window ends up with a frame of a
		// few bytes for each update; wait for a useful amount.
		if n < min(want, max(s.initialWindow/4, 1)) {
			if err := s.flush(&out); err != nil {
				return err
			}
			if err := s.step(); err != nil {
				return err
			}
			continue
		}
		var flags byte
		if n == int64(len(pending)) {
			flags = flagEndStream
		}
		out = appendFrame(out, frameData, flags, streamID, pending[:n])
		pending = pending[n:]
		s.connWindow, s.streamWindow = s.connWindow-n, s.streamWindow-n
	}
	return s.flush(&out)
}

func (s *stream) flush(out *[]byte) error {
	_, err := s.conn.Write(*out)
	*out = (*out)[:0]
	return err
}

func appendSetting(b []byte, id uint16, value uint32) []byte {
	return append32(append(b, byte(id>>8), byte(id)), value)
}

func requestHeaders(verb Verb, timeout string) []byte {
	var b []byte
	put := func(name, value string) { b = appendHeader(b, name, value) }
	put(":method", "POST")
	put(":scheme", "http")
	put(":path", "/muslin.cni.v1.CNI/"+string(verb))
	put(":authority", "localhost")
	put("content-type", "application/grpc")
	put("te", "trailers")
	put("user-agent", "muslin-cni")
	if timeout != "" {
		put("grpc-timeout", timeout)
	}
	return b
}

// step reads one frame and acts on it. A frame type that it does not know is
// ignored (RFC 9113, section 4.1).
func (s *stream) step() error {
	if len(s.due) > 0 && len(s.in.ahead) == 0 {
		if err := s.flush(&s.due); err != nil {
			return err
		}
	}
	f, err := readFrame(&s.in)
	if err != nil {
		return err
	}
	if s.inBlock && f.kind != frameContinuation {
		return errors.New("header block interrupted by another frame")
	}
	switch f.kind {
	case frameData:
		return s.onData(f)
	case frameHeaders:
		return s.onHeaders(f)
	case frameContinuation:
		if !s.inBlock {
			return errors.New("continuation without headers")
		}
		return s.onBlock(f, f.payload)
	case frameSettings:
		return s.onSettings(f)
	case frameWindowUpdate:
		return s.onWindowUpdate(f)
	case framePing:
		return s.onPing(f)
	case frameRSTStream:
		code, err := f.number(0)
		if err == nil && f.stream == streamID {
			err = errors.New("call was reset by the agent: HTTP/2 error code " + strconv.Itoa(int(code)))
		}
		return err
	case frameGoAway:
		return onGoAway(f)
	}
	return nil
}

func (s *stream) onData(f frame) error {
	b, err := f.body()
	if err != nil || f.stream != streamID {
		return err
	}
	if len(s.body)+len(b) > maxMessage+5 {
		return errors.New("response is over the limit of " + strconv.Itoa(maxMessage) + " bytes")
	}
	s.body = append(s.body, b...)
	s.done = s.done || f.has(flagEndStream)
	return nil
}

func (s *stream) onHeaders(f frame) error {
	b, err := f.body()
	if err != nil {
		return err
	}
	s.inBlock, s.block, s.ends = true, nil, f.stream == streamID && f.has(flagEndStream)
	return s.onBlock(f, b)
}

func (s *stream) onBlock(f frame, fragment []byte) error {
	s.block = append(s.block, fragment...)
	if len(s.block) > maxMessage {
		return errors.New("header block is too long")
	}
	if !f.has(flagEndHeaders) {
		return nil
	}
	s.inBlock = false
	if err := readHeaders(s.block, s.answer.header); err != nil {
		return err
	}
	s.done = s.done || s.ends
	return nil
}

func (s *stream) onSettings(f frame) error {
	if f.has(flagAck) {
		return nil
	}
	for p := f.payload; len(p) >= 6; p = p[6:] {
		value := uint32At(p[2:])
		switch uint16(p[0])<<8 | uint16(p[1]) {
		case settingInitialWindow:
			s.streamWindow += int64(value) - s.initialWindow
			s.initialWindow = int64(value)
		case settingMaxFrameSize:
			s.maxFrame = int(value)
		}
	}
	s.due = appendFrame(s.due, frameSettings, flagAck, 0, nil)
	return nil
}

func (s *stream) onWindowUpdate(f frame) error {
	n, err := f.number(0)
	switch f.stream {
	case 0:
		s.connWindow += int64(n & 0x7fffffff)
	case streamID:
		s.streamWindow += int64(n & 0x7fffffff)
	}
	return err
}

func (s *stream) onPing(f frame) error {
	if f.has(flagAck) {
		return nil
	}
	s.due = appendFrame(s.due, framePing, flagAck, 0, f.payload)
	return nil
}

// onGoAway goes on when our stream is among those that the server still
// answers (RFC 9113, section 6.8).
func onGoAway(f frame) error {
	last, err := f.number(0)
	if err != nil {
		return err
	}
	code, err := f.number(4)
	if err != nil {
		return err
	}
	if last&0x7fffffff < streamID || code != 0 {
		return errors.New("agent is going away: HTTP/2 error code " + strconv.Itoa(int(code)))
	}
	return nil
}

// answer is what the headers say of the outcome.
type answer struct {
	http    string  // HTTP's status
	status  *string // gRPC's
	message string  // percent-encoded
	details string  // base64 of a google.rpc.Status
}

func (a *answer) header(name, value string) {
	switch name {
	case ":status":
		a.http = value
	case "grpc-status":
		a.status = &value
	case "grpc-message":
		a.message = value
	case "grpc-status-details-bin":
		a.details = value
	}
}

// outcome reads the answer once the stream has ended.
func (s *stream) outcome() ([]byte, error) {
	switch {
	case s.answer.status == nil:
		return nil, errors.New("answer without a gRPC status: HTTP status " + strconv.Quote(s.answer.http))
	case *s.answer.status != "0":
		return nil, s.failure()
	}
	if len(s.body) < 5 || s.body[0] != 0 || int(uint32At(s.body[1:])) != len(s.body)-5 {
		return nil, errors.New("answer of " + strconv.Itoa(len(s.body)) + " bytes is not one plain gRPC message")
	}
	return unmarshalResult(s.body[5:])
}

// failure is the agent's CNI error, or a plain one when gRPC itself failed.
func (s *stream) failure() error {
	if details, ok := unbase64(s.answer.details); ok {
		e, err := cniError(details)
		if err == nil && e != nil {
			return e
		}
	}
	return errors.New("gRPC status " + *s.answer.status + ": " + unescape(s.answer.message))
}

// unescape undoes the percent-encoding of grpc-message.
func unescape(s string) string {
	var out []byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				c = byte(n)
				i += 2
			}
		}
		out = append(out, c)
	}
	return string(out)
}
