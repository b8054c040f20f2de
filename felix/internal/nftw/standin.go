package nftw

import (
	"bytes"
	"encoding/binary"
	"io"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nl"
)

// The library's masquerade leaves its flags out where it has ports, and without
// them the kernel neither keeps to the ports nor takes them at random. A redirect
// has the same three attributes, and as many bytes: a rule carries one in the
// masquerade's stead, and it is exchanged on the way to the kernel. Nothing else
// of ours redirects.

// randomPort is what nft writes for "to :LOW-HIGH fully-random".
const randomPort = unix.NF_NAT_RANGE_PROTO_SPECIFIED | unix.NF_NAT_RANGE_PROTO_RANDOM_FULLY

// MasqueradeTo stands for a masquerade to a random port between those in two
// registers.
func MasqueradeTo(low, high uint32) *expr.Redir {
	return &expr.Redir{RegisterProtoMin: low, RegisterProtoMax: high, Flags: randomPort}
}

// standIns are the expressions of chains that are to be exchanged.
func standIns(chains []*Chain) []*expr.Redir {
	var out []*expr.Redir
	for _, c := range chains {
		for _, rule := range c.Rules {
			for _, e := range rule.Exprs {
				if r, ok := e.(*expr.Redir); ok {
					out = append(out, r)
				}
			}
		}
	}
	return out
}

// exchange puts the masquerade into messages that have the redirect.
func exchange(messages []netlink.Message, standIn *expr.Redir) error {
	from, err := expr.Marshal(unix.NFPROTO_INET, standIn)
	if err != nil {
		return err
	}
	to := nl.AppendAttr(nil, unix.NFTA_EXPR_NAME, []byte("masq\x00"))
	to, data := nl.BeginNested(to, unix.NFTA_EXPR_DATA)
	for _, a := range []struct {
		kind  uint16
		value uint32
	}{
		{unix.NFTA_MASQ_FLAGS, standIn.Flags},
		{unix.NFTA_MASQ_REG_PROTO_MIN, standIn.RegisterProtoMin},
		{unix.NFTA_MASQ_REG_PROTO_MAX, standIn.RegisterProtoMax},
	} {
		to = nl.AppendAttr(to, a.kind, binary.BigEndian.AppendUint32(nil, a.value))
	}
	to = nl.EndNested(to, data)
	for i := range messages {
		messages[i].Data = bytes.ReplaceAll(messages[i].Data, from, to)
	}
	return nil
}

// capture gives the messages of a transaction instead of sending them.
func capture(fill func(*nftables.Conn) error) ([]netlink.Message, error) {
	var out []netlink.Message
	// io.EOF is an empty answer.
	conn, err := nftables.New(nftables.WithTestDial(func(sent []netlink.Message) ([]netlink.Message, error) {
		out = append(out, sent...)
		return nil, io.EOF
	}))
	if err != nil {
		return nil, err
	}
	if err := fill(conn); err != nil {
		return nil, err
	}
	return out, conn.Flush()
}

// send writes a transaction. Only its first error is read: whoever calls starts
// over with another socket then.
func (w *Writer) send(messages []netlink.Message) error {
	for i := range messages {
		messages[i].Header.Flags &^= unix.NLM_F_ECHO // nobody reads it
		messages[i].Header.Sequence, messages[i].Header.PID = 0, 0
	}
	sent, err := w.socket.SendMessages(messages)
	if err != nil {
		return err
	}
	for _, m := range sent {
		if m.Header.Flags&netlink.Acknowledge == 0 {
			continue
		}
		if _, err := w.socket.Receive(); err != nil {
			return err
		}
	}
	return nil
}
