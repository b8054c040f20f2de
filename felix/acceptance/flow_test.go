package acceptance

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/felix/internal/nstest"
)

const (
	echoPort = 7 // RFC 862
	// interval is the time between two packets of a flow.
	interval = 10 * time.Millisecond
)

// listen opens a UDP socket in a namespace.
func listen(t *testing.T, ns *nstest.NS, port int) *net.UDPConn {
	t.Helper()
	in, err := nl.Open(ns.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var conn *net.UDPConn
	if err := in.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", &net.UDPAddr{Port: port})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	// A slow machine is no reason to lose a packet.
	if err := conn.SetReadBuffer(1 << 20); err != nil {
		t.Fatal(err)
	}
	return conn
}

// echo sends back what comes to echoPort, until the test ends.
func echo(t *testing.T, ns *nstest.NS) {
	t.Helper()
	conn := listen(t, ns, echoPort)
	go func() {
		b := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDPAddrPort(b[:n], from) // its loss is counted by the flow
		}
	}()
}

// flow is a stream of numbered packets, each to be sent back.
type flow struct {
	name string
	conn *net.UDPConn
	to   netip.AddrPort
	stop chan struct{}
	done sync.WaitGroup

	mu     sync.Mutex // guards what follows
	sent   uint64
	out    map[uint64]string // packets not yet back, by number: the phase they were sent in
	phase  string
	errors int
}

// start starts a flow and returns once its first packet is back.
func start(t *testing.T, name string, from *nstest.NS, to netip.Addr) *flow {
	t.Helper()
	f := &flow{
		name: name, conn: listen(t, from, 0), to: netip.AddrPortFrom(to, echoPort),
		stop: make(chan struct{}), out: map[uint64]string{},
	}
	go f.receive()
	eventually(t, name+" begins", func() bool {
		f.send()
		time.Sleep(interval)
		f.mu.Lock()
		defer f.mu.Unlock()
		return uint64(len(f.out)) < f.sent
	})
	f.mu.Lock()
	clear(f.out) // those from before the way was open
	f.mu.Unlock()
	f.done.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-f.stop:
				return
			case <-tick.C:
				f.send()
			}
		}
	})
	return f
}

func (f *flow) send() {
	f.mu.Lock()
	f.sent++
	number := f.sent
	f.out[number] = f.phase
	f.mu.Unlock()
	if _, err := f.conn.WriteToUDPAddrPort(binary.BigEndian.AppendUint64(nil, number), f.to); err != nil {
		f.mu.Lock()
		f.errors++
		f.mu.Unlock()
	}
}

func (f *flow) receive() {
	b := make([]byte, 64)
	for {
		n, _, err := f.conn.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		if n == 8 {
			f.mu.Lock()
			delete(f.out, binary.BigEndian.Uint64(b))
			f.mu.Unlock()
		}
	}
}

func (f *flow) enter(phase string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.phase = phase
}

func (f *flow) count() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sent
}

// lost lists what of the first n packets is not back.
func (f *flow) lost(n uint64) []uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []uint64
	for number := range f.out {
		if number <= n {
			out = append(out, number)
		}
	}
	slices.Sort(out)
	return out
}

// flows are all streams of a test.
type flows []*flow

func (fs flows) enter(phase string) {
	for _, f := range fs {
		f.enter(phase)
	}
}

func (fs flows) counts() []uint64 {
	out := make([]uint64, len(fs))
	for i, f := range fs {
		out[i] = f.count()
	}
	return out
}

// advance lets each flow send some more packets.
func (fs flows) advance(t *testing.T, packets uint64) {
	t.Helper()
	marks := fs.counts()
	for i, f := range fs {
		eventually(t, f.name+" goes on", func() bool { return f.count() >= marks[i]+packets })
	}
}

// settle waits until everything sent so far is back or has had ample time.
func (fs flows) settle() {
	marks := fs.counts()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(interval) {
		waiting := 0
		for i, f := range fs {
			waiting += len(f.lost(marks[i]))
		}
		if waiting == 0 {
			return
		}
	}
}

// end stops the flows and fails the test for every packet that is lost.
func (fs flows) end(t *testing.T) {
	t.Helper()
	for _, f := range fs {
		close(f.stop)
		f.done.Wait()
	}
	fs.settle()
	for _, f := range fs {
		lost := f.lost(f.sent)
		t.Logf("%s: %d packets, %d lost", f.name, f.sent, len(lost))
		if len(lost) > 0 || f.errors > 0 {
			t.Errorf("%s: %d of %d packets lost, %d not sent: %s", f.name, len(lost), f.sent, f.errors, f.phases(lost))
		}
	}
}

// phases says in which phases packets were lost.
func (f *flow) phases(lost []uint64) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	text := ""
	for _, number := range lost[:min(len(lost), 20)] {
		text += fmt.Sprintf("%d (%s) ", number, f.out[number])
	}
	return text
}
