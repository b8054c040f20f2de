package policynft

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/selector"
)

const (
	flows      = 200 // of a turn; they fit into the buffer of the socket that gets them
	pathRounds = 100 // of a turn each, and one back
	trips      = 400 // on one connection, of a turn
)

// path is a node of its own with a ruleset, between a pod that sends and one that gets.
type path struct {
	name     string
	node     *node
	from, to host
	first    []float64 // ns of a packet that begins a connection, of each turn
	trip     []float64 // ns of a round trip on one that is established, of each turn
	standing net.Conn
}

// BenchmarkPath sends packets between two pods of a node through n policies of the one
// that gets them, of which the last one that is looked at allows them: through the chains
// that Muslin makes, through the layout of marks and nested chains that Calico has in
// nftables, and with connections tracked and no policy. Turns are short and alternate.
//
// x-first is what n policies cost the first packet of a connection, Muslin's in the
// other's; x-trip a round trip on an established connection, with policy in without.
func BenchmarkPath(b *testing.B) {
	for _, n := range []int{5, 20} {
		b.Run(fmt.Sprint("policies=", n), func(b *testing.B) { comparePaths(b, n) })
	}
}

func comparePaths(b *testing.B, n int) {
	without, ours, marks := newPath(b, "without"), newPath(b, "muslin"), newPath(b, "marks")
	without.node.ns.Run("nft", "table inet bare { chain forward { type filter hook forward priority 0; ct state established,related accept; }; }")
	program, _ := policy.Compile(guarded(n, ours))
	ours.node.apply(b, program)
	marks.node.ns.Run("nft", nested(program, marks))
	paths := []*path{without, ours, marks}
	for _, p := range paths {
		c, err := dial(p.from.ns, udp, netip.AddrPortFrom(p.to.addrs[0], 80))
		if err != nil {
			b.Fatalf("%s: the allowed packet does not pass: %v", p.name, err)
		}
		if reaches(p.from.ns, udp, netip.AddrPortFrom(p.to.addrs[0], 81)) != (p == without) {
			b.Fatalf("%s: what no policy allows passes", p.name)
		}
		b.Cleanup(func() { c.Close() })
		p.standing = c
	}
	for b.Loop() {
		for range pathRounds {
			for _, p := range paths {
				p.turn(b)
			}
			slices.Reverse(paths)
		}
	}
	base := median(without.first)
	b.ReportMetric((median(ours.first)-base)/(median(marks.first)-base), "x-first")
	b.ReportMetric(median(ours.first)-base, "ns-first")
	b.ReportMetric(median(marks.first)-base, "ns-first-marks")
	b.ReportMetric(median(ours.trip)/median(without.trip), "x-trip")
	b.ReportMetric(0, "ns/op")
}

func newPath(b *testing.B, name string) *path {
	n := newNode(b)
	return &path{name: name, node: n, from: n.hosts[0], to: n.hosts[1]}
}

// turn begins connections, and goes to and fro on one.
func (p *path) turn(b *testing.B) {
	conns := make([]net.Conn, 0, flows)
	if err := inside(p.from.ns, func() error {
		for range flows {
			c, err := net.Dial("udp", netip.AddrPortFrom(p.to.addrs[0], 80).String())
			if err != nil {
				return err
			}
			conns = append(conns, c)
		}
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	for _, c := range conns {
		if _, err := c.Write([]byte("x")); err != nil {
			b.Fatal(err)
		}
	}
	p.first = append(p.first, float64(time.Since(began))/flows)
	for _, c := range conns {
		c.Close()
	}
	began = time.Now()
	for range trips {
		if err := exchange(p.standing); err != nil {
			b.Fatal(err)
		}
	}
	p.trip = append(p.trip, float64(time.Since(began))/trips)
}

// guarded is a node whose second pod has n policies, each of which lets in the pods of a
// selector of its own, a hundred each; the sender is of one of them.
func guarded(n int, p *path) policy.Input {
	in := policy.Input{Self: "here", EndpointsSynced: true, View: model.PolicyView{
		Synced: true, Revision: 1, Namespaces: map[string]map[string]string{"default": {"kubernetes.io/metadata.name": "default"}},
	}}
	own := selector.Equal(model.LabelNamespace, "default")
	pod := func(node model.NodeName, name, app string, addr netip.Addr) *model.PolicyPod {
		return &model.PolicyPod{Namespace: "default", Name: name, Node: node, Labels: map[string]string{"app": app}, Addresses: []netip.Addr{addr}}
	}
	list := []*model.PolicyPod{pod("here", "client", "client", p.from.addrs[0]), pod("here", "server", "server", p.to.addrs[0])}
	for _, h := range []host{p.from, p.to} {
		name := map[bool]string{true: "client", false: "server"}[h.name == p.from.name]
		in.Endpoints = append(in.Endpoints, model.Endpoint{Namespace: "default", Pod: name, HostInterface: h.name, Addresses: h.addrs[:1]})
	}
	for i := range n {
		app := "client"
		if i < n-1 {
			app = fmt.Sprint("other", i)
			for k := range 100 {
				list = append(list, pod("there", fmt.Sprintf("%s-%d", app, k), app, netip.AddrFrom4([4]byte{11, 0, byte(i), byte(k)})))
			}
		}
		in.View.Policies = in.View.Policies.With([]*model.Policy{{
			Object: model.Ref{Kind: model.KindKubernetesPolicy, Namespace: "default", Name: fmt.Sprintf("p%02d", i)}, Tier: model.DefaultTier, Order: model.KubernetesPolicyOrder,
			Selector: selector.And(own, selector.Equal("app", "server")), Ingress: true,
			IngressRules: []model.PolicyRule{{
				Action: model.PolicyAllow, Protocol: udp, Source: model.PolicyPeer{Selector: selector.And(own, selector.Equal("app", app))},
				Destination: model.PolicyPeer{Ports: []model.PolicyPort{{First: 80, Last: 80}}},
			}},
		}}, nil)
	}
	slices.SortFunc(list, (*model.PolicyPod).Compare)
	in.View.Pods = model.SortedOf(list)
	return in
}

// nested is the same, rule for rule in the order of the Program, in the layout that Calico
// 3.30 has: a chain for the pod that takes the marks off and jumps to a chain for each
// policy, whose rules set a mark that the next rule looks at.
func nested(p policy.Program, between *path) string {
	var sets, policies, pod strings.Builder
	i := 0
	for c := range p.Chains.All() {
		for _, r := range c.Rules {
			if len(r.Source.In) == 0 {
				continue // what is at the end of the tier
			}
			set := p.Set(r.Source.In[0])
			var members []string
			for a := range set.Addresses.All() {
				if a.Is4() {
					members = append(members, a.String())
				}
			}
			fmt.Fprintf(&sets, "set s%d { type ipv4_addr; flags interval; elements = { %s }; }\n", i, strings.Join(members, ", "))
			fmt.Fprintf(&policies, `chain pi-%d {
				ip saddr @s%d udp dport 80 counter meta mark set meta mark or 0x10000
				meta mark and 0x10000 == 0x10000 counter return
			}
			`, i, i)
			fmt.Fprintf(&pod, `meta mark and 0x20000 == 0 counter jump pi-%d
				meta mark and 0x10000 == 0x10000 counter return
			`, i)
			i++
		}
	}
	return fmt.Sprintf(`table ip calico {
		%s%s
		chain to-pod {
			ct state established,related counter accept
			ct state invalid counter drop
			counter meta mark set meta mark and 0xfffeffff
			counter meta mark set meta mark and 0xfffdffff
			%s
			meta mark and 0x20000 == 0 counter drop
		}
		chain to-open { ct state established,related counter accept; meta mark set meta mark or 0x10000; }
		chain to-workload { oifname vmap { "%s" : goto to-pod, "%s" : goto to-open }; counter drop; }
		chain from-pod {
			ct state established,related counter accept
			ct state invalid counter drop
			counter meta mark set meta mark and 0xfffeffff
			counter meta mark set meta mark or 0x10000
			meta mark and 0x10000 == 0x10000 counter return
		}
		chain from-workload { iifname vmap { "%s" : goto from-pod, "%s" : goto from-pod }; counter drop; }
		chain forward {
			type filter hook forward priority 0;
			counter meta mark set meta mark and 0xfff0ffff
			meta mark and 0x10000 == 0 counter
			iifname "cali*" counter jump from-workload
			oifname "cali*" counter jump to-workload
			meta mark and 0x10000 == 0x10000 counter accept
		}
	}`, &sets, &policies, &pod, between.to.name, between.from.name, between.from.name, between.to.name)
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}
