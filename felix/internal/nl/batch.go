package nl

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Batch is a list of requests that are sent together. The zero value is empty.
type Batch struct {
	buf    []byte
	starts []int
}

// Add appends a request. build gets a buffer to append the message's body to;
// the header is written by Add.
func (b *Batch) Add(kind, flags uint16, build func([]byte) []byte) {
	start := len(b.buf)
	b.starts = append(b.starts, start)
	b.buf = AppendHeader(b.buf, kind, flags)
	b.buf = build(b.buf)
	b.buf = EndMessage(b.buf, start)
}

// Len is the number of requests.
func (b *Batch) Len() int { return len(b.starts) }

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() { b.buf, b.starts = b.buf[:0], b.starts[:0] }

// Do sends every request of the batch, many in a send, and calls failed with
// the index of each request that the kernel refused. It goes on after a refused
// request. The error it returns is the socket's own: after it nobody knows which
// of the requests were served.
//
// Only the last request of a send asks for an acknowledgement: the kernel
// serves them in order and reports every failure anyway.
func (c *Conn) Do(b *Batch, failed func(index int, err error)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for from := 0; from < len(b.starts); {
		to := b.chunkEnd(from)
		if err := c.doChunk(b, from, to, failed); err != nil {
			return err
		}
		from = to
	}
	return nil
}

func (b *Batch) chunkEnd(from int) int {
	to := from + 1
	for to < len(b.starts) && to-from < chunkCount && b.end(to)-b.starts[from] <= chunkBytes {
		to++
	}
	return to
}

func (b *Batch) end(i int) int {
	if i+1 < len(b.starts) {
		return b.starts[i+1]
	}
	return len(b.buf)
}

func (c *Conn) doChunk(b *Batch, from, to int, failed func(int, error)) error {
	first := c.nextSeq(to - from)
	for i := from; i < to; i++ {
		native.PutUint32(b.buf[b.starts[i]+8:], first+uint32(i-from))
	}
	last := b.buf[b.starts[to-1]:]
	native.PutUint16(last[6:], native.Uint16(last[6:])|unix.NLM_F_ACK)
	if err := c.send(b.buf[b.starts[from]:b.end(to-1)]); err != nil {
		return err
	}
	for done := false; !done; {
		n, err := c.receive()
		if err != nil {
			return err
		}
		messages(c.buf[:n], func(m Message) bool {
			i := int(m.Seq-first) + from
			if m.Type != unix.NLMSG_ERROR || i < from || i >= to {
				return true
			}
			if err := ackError(m); err != nil {
				failed(i, err)
			}
			done = done || i == to-1
			return true
		})
	}
	return nil
}

// Each is Do for a few requests: it returns the refusals joined, named by name.
func (c *Conn) Each(b *Batch, name func(index int, err error) error) error {
	var errs []error
	err := c.Do(b, func(i int, err error) { errs = append(errs, name(i, err)) })
	return errors.Join(append(errs, err)...)
}

// Get sends a request with one answer and returns a copy of its body.
func (c *Conn) Get(kind uint16, build func([]byte) []byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	req := AppendHeader(nil, kind, 0)
	req = EndMessage(build(req), 0)
	seq := c.nextSeq(1)
	native.PutUint32(req[8:], seq)
	if err := c.send(req); err != nil {
		return nil, err
	}
	for {
		n, err := c.receive()
		if err != nil {
			return nil, err
		}
		var out []byte
		done := false
		messages(c.buf[:n], func(m Message) bool {
			if m.Seq != seq {
				return true
			}
			done = true
			if m.Type == unix.NLMSG_ERROR {
				err = ackError(m)
			} else {
				out = append(out, m.Data...)
			}
			return false
		})
		if done {
			return out, err
		}
	}
}
