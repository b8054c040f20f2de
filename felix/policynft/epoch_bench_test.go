package policynft

import (
	"encoding/binary"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/felix/policy"
	"golang.org/x/sys/unix"
)

var connectionsMost = flag.Int("connections", 1_000_000, "how many the kernel tracks in BenchmarkEpoch at most")

const (
	fewConnections = 10_000
	epochRounds    = 300 // tightened, and loosened, of a turn each
)

// BenchmarkEpoch tightens a policy where the kernel tracks ten thousand connections, and where it tracks a million, in
// turns. x is the time of the commit in the other's; s-dump is how long it takes to list a million, as who
// looks at each connection does.
func BenchmarkEpoch(b *testing.B) {
	moreConnections(b, 2*fewConnections+*connectionsMost)
	few, many := newNode(b), newNode(b)
	few.track(b, fewConnections)
	many.track(b, *connectionsMost)
	var took [2]cost
	for b.Loop() {
		for round := range epochRounds {
			for turn := range 2 {
				i := (turn + round) % 2
				n := []*node{few, many}[i]
				n.apply(b, epochs(open(append(n.hosts[1].addrs[:], n.hosts[2].addrs[:]...)...)))
				before := n.epoch(b)
				took[i].of(func() { n.apply(b, epochs(open(n.hosts[2].addrs[:]...))) })
				if n.epoch(b) == before {
					b.Fatal("the epoch is as it was")
				}
			}
		}
	}
	began := time.Now()
	if _, err := many.sink.Flows(map[netip.Addr]bool{}, 0); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(time.Since(began).Seconds(), "s-dump")
	b.ReportMetric(took[1].median()/took[0].median(), "x")
	b.ReportMetric(took[0].median(), "ns-few")
	b.ReportMetric(took[1].median(), "ns-many")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkEpochPath sends packets between two pods, through five policies, with the option and without. x-trip is a round
// trip on an established connection with it in one without, x-first the same of a packet that begins one.
func BenchmarkEpochPath(b *testing.B) {
	off, on := newPath(b, "off"), newPath(b, "on")
	paths := []*path{off, on}
	for _, p := range paths {
		program, _ := policy.Compile(guarded(5, p))
		if p == on {
			program = epochs(program)
		}
		p.node.apply(b, program)
		p.standing = kept(b, p.from.ns, udp, at(p.to.addrs[0], 80))
	}
	for b.Loop() {
		for range 3 * pathRounds {
			for _, p := range paths {
				p.turn(b)
			}
			slices.Reverse(paths)
		}
	}
	b.ReportMetric(median(on.trip)/median(off.trip), "x-trip")
	b.ReportMetric(median(on.first)/median(off.first), "x-first")
	b.ReportMetric(median(off.trip), "ns-trip-off")
	b.ReportMetric(median(off.first), "ns-first-off")
	b.ReportMetric(0, "ns/op")
}

// moreConnections has the kernel track so many until the benchmark ends.
func moreConnections(b *testing.B, most int) {
	b.Helper()
	const sysctl = "/proc/sys/net/netfilter/nf_conntrack_max"
	before, err := os.ReadFile(sysctl)
	if err != nil {
		b.Fatal(err)
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(before))); err != nil || n >= most {
		return
	}
	if err := os.WriteFile(sysctl, []byte(strconv.Itoa(most)), 0); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.WriteFile(sysctl, before, 0) })
}

// track has the kernel track established connections of TCP to the first pod.
func (n *node) track(b *testing.B, count int) {
	b.Helper()
	conn, err := nl.Dial(n.sink.Namespace(), unix.NETLINK_NETFILTER)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	var batch nl.Batch
	pod := at(n.hosts[0].addrs[0], 80)
	for i := range count {
		from := at(netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)}), 40000)
		batch.Add(ctNew, unix.NLM_F_CREATE|unix.NLM_F_EXCL, func(m []byte) []byte { return connection(m, from, pod) })
		if batch.Len() == 10_000 || i == count-1 {
			if err := conn.Each(&batch, func(i int, err error) error { return fmt.Errorf("connection %d: %w", i, err) }); err != nil {
				b.Fatal(err)
			}
			batch.Reset()
		}
	}
	if got, err := strconv.Atoi(strings.TrimSpace(n.ns.Run("cat", "/proc/sys/net/netfilter/nf_conntrack_count"))); err != nil || got < count {
		b.Fatalf("the kernel tracks %d, want %d: %v", got, count, err)
	}
}

// ctNew is IPCTNL_MSG_CT_NEW.
const ctNew = unix.NFNL_SUBSYS_CTNETLINK << 8

// connection appends one as the kernel takes it.
func connection(m []byte, from, to netip.AddrPort) []byte {
	m = append(m, unix.AF_INET, unix.NFNETLINK_V0, 0, 0)
	m = directed(m, ctaTupleOrig, from, to)
	m = directed(m, ctaTupleReply, to, from)
	const status, timeout, info = 3, 7, 4                                   // CTA_STATUS, CTA_TIMEOUT, CTA_PROTOINFO
	m = nl.AppendAttr(m, status, binary.BigEndian.AppendUint32(nil, 2|4|8)) // IPS_SEEN_REPLY, IPS_ASSURED, IPS_CONFIRMED
	m = nl.AppendAttr(m, timeout, binary.BigEndian.AppendUint32(nil, 86400))
	m, outer := nl.BeginNested(m, info)
	m, inner := nl.BeginNested(m, 1)                                                // CTA_PROTOINFO_TCP
	return nl.EndNested(nl.EndNested(nl.AppendAttr(m, 1, []byte{3}), inner), outer) // established
}

func directed(m []byte, kind uint16, from, to netip.AddrPort) []byte {
	m, outer := nl.BeginNested(m, kind)
	m, inner := nl.BeginNested(m, ctaTupleIP)
	m = nl.AppendAttr(m, ipv4Source, from.Addr().AsSlice())
	m = nl.EndNested(nl.AppendAttr(m, ipv4Source+1, to.Addr().AsSlice()), inner)
	m, inner = nl.BeginNested(m, ctaTupleProto)
	m = nl.AppendAttr(m, protoNumber, []byte{tcp})
	m = nl.AppendAttr(m, protoSource, number(from.Port()))
	m = nl.EndNested(nl.AppendAttr(m, protoSource+1, number(to.Port())), inner)
	return nl.EndNested(m, outer)
}
