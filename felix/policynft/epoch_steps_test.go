package policynft

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muslin-net/muslin/felix/policy"
)

// fewEpochs has so few numbers that they come round many times in a test.
const fewEpochs = 0xf0000000

// flow is a UDP connection that is kept open, with the number of its last packet.
type flow struct {
	from, to host
	packet   policy.Packet
	conn     net.Conn
	number   uint32
}

// flows are between all pairs, by each IP version to each port, from the first packet on.
func (n *node) flows(t *testing.T) (out []*flow) {
	t.Helper()
	for _, from := range n.hosts {
		for _, to := range n.hosts {
			for k := range 2 * len(ports1) {
				if from.name == to.name {
					continue
				}
				dst := at(to.addrs[k%2], ports1[k/2])
				c, err := dialOnly(from.ns, dst)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				out = append(out, &flow{from: from, to: to, conn: c, packet: policy.Packet{
					Source: from.addrs[k%2], Destination: dst.Addr(), Protocol: udp, DestinationPort: dst.Port(),
				}})
			}
		}
	}
	return out
}

// passes sends a packet of the flow and waits for its own answer: a late one to an older packet is none.
func (f *flow) passes() bool {
	f.number++
	b := binary.BigEndian.AppendUint32(nil, f.number)
	if f.conn.SetDeadline(time.Now().Add(reply)) != nil {
		return false
	}
	if _, err := f.conn.Write(b); err != nil {
		return false
	}
	for got := make([]byte, len(b)); ; {
		m, err := f.conn.Read(got)
		if err != nil {
			return false
		}
		if m == len(b) && binary.BigEndian.Uint32(got) == f.number {
			return true
		}
	}
}

// TestEpochSteps changes random Programs in one place after the other, and compares what becomes of each
// connection with what the Program says of a new one. Processes come new, and the option goes and comes, meanwhile.
func TestEpochSteps(t *testing.T) {
	n := newNode(t)
	r := seeded(t)
	p, flows := n.world(r), n.flows(t)
	for step := range *worlds {
		what := n.step(t, r, &p)
		on := p
		on.EpochMask = fewEpochs
		n.apply(t, on)
		var wg sync.WaitGroup
		for _, f := range flows {
			wg.Go(func() {
				want := walkHosts(p, f)
				got := f.passes()
				for tries := 0; want && !got && tries < 5; tries++ { // a slow machine is no reason to fail
					got = f.passes()
				}
				if got != want {
					t.Errorf("step %d, %s: %s to %s passes: %v, want %v", step, what, f.from.name, f.conn.RemoteAddr(), got, want)
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			t.Fatalf("%s\n%s", p, n.ns.Run("nft", "list", "table", "inet", TableName))
		}
	}
}

// step changes a Program in one place or two, and names them.
func (n *node) step(t *testing.T, r *rand.Rand, p *policy.Program) string {
	t.Helper()
	other := n.world(r)
	p.Endpoints, p.Hosts = maps.Clone(p.Endpoints), maps.Clone(p.Hosts)
	var done []string
	for range 1 + r.IntN(4)/3 {
		kinds := []func(*rand.Rand, *policy.Program, policy.Program) string{n.member, n.member, n.member, n.member, otherSet, otherChain, otherEndpoint, otherHost}
		done = append(done, kinds[r.IntN(len(kinds))](r, p, other))
	}
	switch r.IntN(6) {
	case 0:
		again, err := New(Options{NetNS: n.ns.Path, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = again.Close() })
		n.sink = again
		done = append(done, "a new process")
	case 1:
		n.apply(t, *p) // what is established passes now
		done = append(done, "off and on")
	}
	return strings.Join(done, ", ")
}

// member puts an address into a set, or takes it out.
func (n *node) member(r *rand.Rand, p *policy.Program, _ policy.Program) string {
	id := []policy.SetID{"a-0", "a-1"}[r.IntN(2)]
	set, a := p.Set(id), []netip.Addr{n.hosts[r.IntN(len(n.hosts))].addrs[r.IntN(2)]}
	if _, there := set.Addresses.Get(a[0]); there {
		set.Addresses = set.Addresses.With(nil, a)
	} else {
		set.Addresses = set.Addresses.With(a, nil)
	}
	p.Sets = p.Sets.With([]*policy.Set{&set}, nil)
	return fmt.Sprintf("%s in or out of %s", a[0], id)
}

func otherSet(r *rand.Rand, p *policy.Program, other policy.Program) string {
	sets := slices.Collect(other.Sets.All())
	s := sets[r.IntN(len(sets))]
	p.Sets = p.Sets.With([]*policy.Set{s}, nil)
	return "another set " + string(s.ID)
}

func otherChain(r *rand.Rand, p *policy.Program, other policy.Program) string {
	chains := slices.Collect(other.Chains.All())
	c := chains[r.IntN(len(chains))]
	p.Chains = p.Chains.With([]policy.Chain{c}, nil)
	return "another chain " + string(c.ID)
}

func otherEndpoint(r *rand.Rand, p *policy.Program, other policy.Program) string {
	name := fmt.Sprint("cali", r.IntN(3))
	e, known := other.Endpoints[name]
	if delete(p.Endpoints, name); known {
		p.Endpoints[name] = e
	}
	return "another endpoint " + name
}

// otherHost has the link that leads beyond the node evaluate what is forwarded, or not.
func otherHost(r *rand.Rand, p *policy.Program, _ policy.Program) string {
	if r.IntN(3) == 0 {
		p.Hosts = nil
		return "no host endpoint"
	}
	p.Hosts = map[string]policy.Host{"eth0": {
		ForwardIn: []policy.ChainID{"", "i-1", "i-2"}[r.IntN(3)], ForwardOut: []policy.ChainID{"", "e-1", "e-2"}[r.IntN(3)],
	}}
	return "another host endpoint"
}

// walkHosts is walk with host endpoints.
func walkHosts(p policy.Program, f *flow) bool {
	return walk(p, f.from, f.to, f.packet) && policy.Allowed(p.Decide(p.Hosts[f.from.name].ForwardIn, f.packet)) &&
		policy.Allowed(p.Decide(p.Hosts[f.to.name].ForwardOut, f.packet))
}
