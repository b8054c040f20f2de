// Package sctp stands in hack/e2e for the module of its name, which agnhost imports:
// the same calls, on pion's SCTP in user space over raw IP sockets, because the kernel
// of a lab may have no SCTP sockets. What leaves a pod is SCTP (RFC 9260), so policy and
// connection tracking see what they see of the kernel's own.
//
// Footprint: a raw socket for each association and for each listener.
package sctp

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/pion/logging"
	"github.com/pion/sctp"
)

// SCTPAddr is a port at addresses; no address is every address.
type SCTPAddr struct {
	IPAddrs []net.IPAddr
	Port    int
}

func (a *SCTPAddr) Network() string { return "sctp" }

func (a *SCTPAddr) String() string { return net.JoinHostPort(a.host(), strconv.Itoa(a.Port)) }

func (a *SCTPAddr) host() string {
	if len(a.IPAddrs) == 0 {
		return ""
	}
	return a.IPAddrs[0].String()
}

// ResolveSCTPAddr reads host:port.
func ResolveSCTPAddr(_, address string) (*SCTPAddr, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	a := &SCTPAddr{}
	if a.Port, err = net.LookupPort("tcp", port); err != nil || host == "" {
		return a, err
	}
	ip, err := net.ResolveIPAddr("ip", host)
	if err == nil && !ip.IP.IsUnspecified() {
		a.IPAddrs = []net.IPAddr{*ip}
	}
	return a, err
}

// SCTPConn is the first stream of an association.
type SCTPConn struct {
	association *sctp.Association
	stream      *sctp.Stream
	remote      *SCTPAddr
}

func (c *SCTPConn) Read(b []byte) (int, error)            { return c.stream.Read(b) }
func (c *SCTPConn) Write(b []byte) (int, error)           { return c.stream.Write(b) }
func (c *SCTPConn) SetReadDeadline(t time.Time) error     { return c.stream.SetReadDeadline(t) }
func (c *SCTPConn) RemoteAddr() net.Addr                  { return c.remote }
func (c *SCTPConn) SCTPRemoteAddr(int) (*SCTPAddr, error) { return c.remote, nil }
func (c *SCTPConn) SCTPLocalAddr(int) (*SCTPAddr, error)  { return nil, errors.ErrUnsupported }
func (c *SCTPConn) SetWriteDeadline(deadline time.Time) error {
	return c.stream.SetWriteDeadline(deadline)
}

// Close sends what is left, for a second at most. A peer that was first to close is no
// error.
func (c *SCTPConn) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c.drain(ctx)
	if err := c.association.Shutdown(ctx); err != nil {
		_ = c.association.Close()
	}
	return nil
}

// drain waits until the peer has all that was written: pion's shutdown waits only for
// what it has sent already.
func (c *SCTPConn) drain(ctx context.Context) {
	empty := make(chan struct{}, 1)
	c.stream.SetBufferedAmountLowThreshold(0)
	c.stream.OnBufferedAmountLow(func() {
		select {
		case empty <- struct{}{}:
		default:
		}
	})
	if c.stream.BufferedAmount() == 0 {
		return
	}
	select {
	case <-empty:
	case <-ctx.Done():
	}
}

// DialSCTP opens an association from a port that the process id decides first.
func DialSCTP(_ string, _, to *SCTPAddr) (*SCTPConn, error) {
	if len(to.IPAddrs) == 0 {
		return nil, errors.New("no address")
	}
	raw, err := net.DialIP("ip:132", nil, &to.IPAddrs[0])
	if err != nil {
		return nil, err
	}
	p := newPath(raw, raw.RemoteAddr(), uint16(32768+(os.Getpid()*7919+int(time.Now().UnixNano()))&0x3fff), uint16(to.Port))
	p.write = func(b []byte) (int, error) { return raw.Write(b) }
	p.closed = raw.Close
	go receive(raw, func(_ net.Addr, packet []byte) { p.deliver(packet) })
	association, err := sctp.Client(config(p))
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	stream, err := association.OpenStream(0, sctp.PayloadTypeWebRTCBinary)
	if err != nil {
		return nil, errors.Join(err, association.Close())
	}
	return &SCTPConn{association: association, stream: stream, remote: to}, nil
}

func config(p *path) sctp.Config {
	return sctp.Config{NetConn: p, MTU: 1200, LoggerFactory: &logging.DefaultLoggerFactory{Writer: os.Stderr, DefaultLogLevel: logging.LogLevelDisabled}}
}
