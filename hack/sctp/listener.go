package sctp

import (
	"errors"
	"net"
	"strconv"
	"sync"

	"github.com/pion/sctp"
)

// SCTPListener accepts associations at a port.
type SCTPListener struct {
	port     uint16
	raw      []*net.IPConn
	accepted chan *SCTPConn
	done     chan struct{}
	once     sync.Once

	lock  sync.Mutex
	paths map[string]*path // by the peer's address and port
}

// ListenSCTP listens at a port: with no address, on both families.
func ListenSCTP(_ string, at *SCTPAddr) (*SCTPListener, error) {
	l := &SCTPListener{port: uint16(at.Port), accepted: make(chan *SCTPConn), done: make(chan struct{}), paths: map[string]*path{}}
	addresses := at.IPAddrs
	if len(addresses) == 0 {
		addresses = []net.IPAddr{{IP: net.IPv4zero}, {IP: net.IPv6zero}}
	}
	for _, a := range addresses {
		network := "ip6:132"
		if a.IP.To4() != nil {
			network = "ip4:132"
		}
		raw, err := net.ListenIP(network, &a)
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		l.raw = append(l.raw, raw)
		go receive(raw, func(from net.Addr, packet []byte) { l.deliver(raw, from, packet) })
	}
	return l, nil
}

// deliver finds a packet's association; INIT makes one.
func (l *SCTPListener) deliver(raw *net.IPConn, from net.Addr, packet []byte) {
	if destination(packet) != l.port {
		return
	}
	peer := net.JoinHostPort(from.String(), strconv.Itoa(int(source(packet))))
	l.lock.Lock()
	p := l.paths[peer]
	if p == nil && isInit(packet) {
		p = newPath(raw, from, l.port, source(packet))
		p.write = func(b []byte) (int, error) { return raw.WriteTo(b, from) }
		p.closed = func() error { l.forget(peer); return nil }
		l.paths[peer] = p
		go l.serve(p)
	}
	l.lock.Unlock()
	if p != nil {
		p.deliver(packet)
	}
}

// serve takes an association up to its first stream, which the client opens by what it
// sends first.
func (l *SCTPListener) serve(p *path) {
	association, err := sctp.Server(config(p))
	if err != nil {
		_ = p.Close()
		return
	}
	stream, err := association.AcceptStream()
	if err != nil {
		_ = association.Close()
		return
	}
	from := p.remote.(*net.IPAddr)
	select {
	case l.accepted <- &SCTPConn{association: association, stream: stream, remote: &SCTPAddr{IPAddrs: []net.IPAddr{*from}, Port: int(p.peer)}}:
	case <-l.done:
		_ = association.Close()
	}
}

func (l *SCTPListener) forget(peer string) {
	l.lock.Lock()
	defer l.lock.Unlock()
	delete(l.paths, peer)
}

// AcceptSCTP waits for the next association.
func (l *SCTPListener) AcceptSCTP() (*SCTPConn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close ends the listener, and with its sockets the associations it accepted.
func (l *SCTPListener) Close() error {
	var err error
	l.once.Do(func() {
		close(l.done)
		for _, raw := range l.raw {
			err = errors.Join(err, raw.Close())
		}
	})
	return err
}
