package policynft

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nftw"
	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/felix/internal/nstest"
	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/selector"
)

const (
	benchPods   = 40  // of the node
	benchRounds = 300 // of one change and its opposite
)

// BenchmarkPodEvent is a pod that comes and goes elsewhere, from the view to the element
// in the kernel, beside the bare write of one element to a set of as many. A node has 40
// pods, with a policy that lets in all of the members.
func BenchmarkPodEvent(b *testing.B) {
	for _, members := range []int{100, 1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint("members=", members), func(b *testing.B) {
			in := crowd(members, 1, benchPods)
			view, one := in.View.Pods, slices.Collect(in.View.Pods.All())[members/2:members/2+1]
			event := func(n int) policy.Input {
				in.View.Pods = view
				if n%2 == 0 {
					in.View.Pods = view.With(nil, one)
				}
				return in
			}
			beside(b, event, element(members))
		})
	}
}

// BenchmarkPolicyEvent is a policy of many that changes: the others are of namespaces that
// have no pod here. One chain is written.
func BenchmarkPolicyEvent(b *testing.B) {
	for _, policies := range []int{50, 500, 5_000} {
		b.Run(fmt.Sprint("policies=", policies), func(b *testing.B) {
			in := crowd(1_000, policies, benchPods)
			all := in.View.Policies
			first := slices.Collect(all.All())[0]
			event := func(n int) policy.Input {
				in.View.Policies = all.With([]*model.Policy{on(first, uint16(80+n%2))}, nil)
				in.View.Revision++
				return in
			}
			beside(b, event, element(1_000))
		})
	}
}

// on is a policy with another port in its first rule.
func on(p *model.Policy, port uint16) *model.Policy {
	out := *p
	out.IngressRules = slices.Clone(p.IngressRules)
	out.IngressRules[0].Destination.Ports = []model.PolicyPort{{First: port, Last: port}}
	return &out
}

// crowd is a cluster with so many pods elsewhere, and some here that get what those send,
// by the first of so many policies. Each of the others is of a namespace of its own.
func crowd(members, policies, pods int) policy.Input {
	in := policy.Input{Self: "here", EndpointsSynced: true, View: model.PolicyView{Synced: true, Revision: 1, Namespaces: map[string]map[string]string{}}}
	pod := func(name string, node model.NodeName, app string, addr [4]byte) *model.PolicyPod {
		return &model.PolicyPod{Namespace: "ns0", Name: name, Node: node, Labels: map[string]string{"app": app}, Addresses: []netip.Addr{netip.AddrFrom4(addr)}}
	}
	var list []*model.PolicyPod
	for i := range members {
		list = append(list, pod(fmt.Sprintf("a%06d", i), "there", "client", [4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	for i := range pods {
		p := pod(fmt.Sprintf("b%06d", i), "here", fmt.Sprint("server", i%8), [4]byte{11, 0, 0, byte(i)})
		list = append(list, p)
		in.Endpoints = append(in.Endpoints, model.Endpoint{Namespace: p.Namespace, Pod: p.Name, HostInterface: fmt.Sprint("cali", i), Addresses: p.Addresses})
	}
	in.View.Pods = model.SortedOf(list)
	for i := range policies {
		ns := fmt.Sprint("ns", i)
		own := selector.Equal(model.LabelNamespace, ns)
		in.View.Namespaces[ns] = map[string]string{"kubernetes.io/metadata.name": ns}
		in.View.Policies = in.View.Policies.With([]*model.Policy{{
			Object: model.Ref{Kind: model.KindKubernetesPolicy, Namespace: ns, Name: "web"}, Tier: model.DefaultTier, Order: model.KubernetesPolicyOrder,
			Selector: own, Ingress: true,
			IngressRules: []model.PolicyRule{{
				Action: model.PolicyAllow, Protocol: tcp, Source: model.PolicyPeer{Selector: selector.And(own, selector.Equal("app", "client"))},
				Destination: model.PolicyPeer{Ports: []model.PolicyPort{{First: 80, Last: 80}}},
			}},
		}}, nil)
	}
	return in
}

// BenchmarkGroupEvent is a policy that changes and that 200 pods of the node have, beside the
// bare write of the rules of a chain that as many interfaces lead to, by the same library and
// by nft -f.
func BenchmarkGroupEvent(b *testing.B) {
	in := crowd(1_000, 50, 200)
	all := in.View.Policies
	first := slices.Collect(all.All())[0]
	event := func(n int) policy.Input {
		in.View.Policies = all.With([]*model.Policy{on(first, uint16(80+n%2))}, nil)
		in.View.Revision++
		return in
	}
	b.Run("bare", func(b *testing.B) { beside(b, event, bareChain(200, false)) })
	b.Run("nft", func(b *testing.B) { beside(b, event, bareChain(200, true)) })
}

// floor makes a write that events are compared with.
type floor func(b *testing.B, ns *nstest.NS) func(n int)

// beside measures events, and a bare write between them: medians, and
// what all took of the processor.
func beside(b *testing.B, event func(n int) policy.Input, write floor) {
	ns := nstest.New(b)
	sink, err := New(Options{NetNS: ns.Path, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = sink.Close() })
	bare, engine := write(b, ns), new(policy.Engine)
	step := func(in policy.Input) {
		program, _ := engine.Compile(in)
		if err := sink.Apply(b.Context(), program, []string{"cali"}); err != nil {
			b.Fatal(err)
		}
	}
	step(event(1))
	step(event(0))
	var ours, theirs cost
	for b.Loop() {
		for n := range benchRounds {
			in := event(n + 1)
			ours.of(func() { step(in) })
			theirs.of(func() { bare(n) })
		}
	}
	b.ReportMetric(ours.median()/theirs.median(), "x-bare")
	b.ReportMetric(ours.cpu/theirs.cpu, "x-bare-cpu")
	b.ReportMetric(ours.median(), "ns/event")
	b.ReportMetric(ours.allocated/float64(len(ours.took)), "B/event")
	b.ReportMetric(0, "ns/op")
}

// element is a member that comes to a set of so many, and goes.
func element(members int) floor {
	return func(b *testing.B, ns *nstest.NS) func(n int) {
		bare := newBare(b, ns, members)
		return func(n int) { bare.toggle(b, n%2 == 0) }
	}
}

// bareChain is a chain that so many interfaces lead to, whose rules are written anew, those that the policy of crowd
// becomes: by nft, or by the library.
func bareChain(interfaces int, nft bool) floor {
	return func(b *testing.B, ns *nstest.NS) func(n int) {
		file := filepath.Join(b.TempDir(), "rules")
		run := func(text string) {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				b.Fatal(err)
			}
			ns.Run("nft", "-f", file)
		}
		leads := make([]string, interfaces)
		for i := range leads {
			leads[i] = fmt.Sprintf("cali%d : goto c", i)
		}
		run("table inet bare { set s { type ipv4_addr; }; set s6 { type ipv6_addr; }; chain deny { counter drop; }; chain c { }; map m { type ifname : verdict; elements = { " + strings.Join(leads, ", ") + " }; }\n" +
			"chain forward { type filter hook forward priority 0; oifname vmap @m; }; }")
		if nft {
			return func(n int) {
				run(fmt.Sprintf("flush chain inet bare c\nadd rule inet bare c tcp dport %[1]d ip saddr @s return comment \"default KubernetesNetworkPolicy ns0/web rule 0\"\n"+
					"add rule inet bare c tcp dport %[1]d ip6 saddr @s6 return comment \"default KubernetesNetworkPolicy ns0/web rule 0\"\n"+
					"add rule inet bare c goto deny comment \"default end\"", 80+n%2))
			}
		}
		conn := newBare(b, ns, 1).conn
		t := nftw.NewTable("bare")
		c := &nftables.Chain{Table: t.Table, Name: "c"}
		return func(n int) {
			conn.FlushChain(c)
			add := func(comment string, words ...[]expr.Any) {
				conn.AddRule(&nftables.Rule{Table: c.Table, Chain: c, Exprs: slices.Concat(words...), UserData: userdata.AppendString(nil, userdata.TypeComment, comment)})
			}
			to := slices.Concat(nftw.IsL4(tcp), port(false), nftw.Equal(number(uint16(80+n%2))), nftw.Verdict(expr.VerdictReturn))
			add("default KubernetesNetworkPolicy ns0/web rule 0", nftw.Is(model.IPv4), nftw.Source(model.IPv4), t.Lookup("s", 1, false), to)
			add("default KubernetesNetworkPolicy ns0/web rule 0", nftw.Is(model.IPv6), nftw.Source(model.IPv6), t.Lookup("s6", 1, false), to)
			add("default end", nftw.To(expr.VerdictGoto, "deny"))
			if err := conn.Flush(); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// bare is one set in a table of its own.
type bare struct {
	conn *nftables.Conn
	set  *nftables.Set
}

func newBare(b *testing.B, ns *nstest.NS, members int) *bare {
	b.Helper()
	in, err := nl.Open(ns.Path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(in.Close)
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(in.FD()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.CloseLasting() })
	t := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "bare"})
	set := &nftables.Set{Table: t, Name: "s", KeyType: nftables.TypeIPAddr}
	if err := conn.AddSet(set, nil); err != nil {
		b.Fatal(err)
	}
	for part := range slices.Chunk(addresses(members), 1000) {
		if err := conn.SetAddElements(set, part); err != nil {
			b.Fatal(err)
		}
		if err := conn.Flush(); err != nil {
			b.Fatal(err)
		}
	}
	return &bare{conn, set}
}

func addresses(n int) []nftables.SetElement {
	out := make([]nftables.SetElement, n)
	for i := range out {
		out[i].Key = []byte{10, byte(i >> 16), byte(i >> 8), byte(i)}
	}
	return out
}

func (x *bare) toggle(b *testing.B, add bool) {
	change := x.conn.SetDeleteElements
	if add {
		change = x.conn.SetAddElements
	}
	if err := change(x.set, []nftables.SetElement{{Key: []byte{9, 9, 9, 9}}}); err != nil {
		b.Fatal(err)
	}
	if err := x.conn.Flush(); err != nil {
		b.Fatal(err)
	}
}

// cost is what some calls took.
type cost struct {
	took           []float64 // each, in ns
	cpu, allocated float64   // all, in ns of the processor, in bytes
}

func (c *cost) of(f func()) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start, cpu := time.Now(), processor()
	f()
	c.took = append(c.took, float64(time.Since(start)))
	c.cpu += processor() - cpu
	runtime.ReadMemStats(&after)
	c.allocated += float64(after.TotalAlloc - before.TotalAlloc)
}

func (c *cost) median() float64 {
	slices.Sort(c.took)
	return c.took[len(c.took)/2]
}

// processor is what the process has used of it, in user and system, in ns.
func processor() float64 { return usage(unix.RUSAGE_SELF) }

func usage(of int) float64 {
	var u unix.Rusage
	_ = unix.Getrusage(of, &u)
	return float64(u.Utime.Nano() + u.Stime.Nano())
}

// town is a node with so many pods, each with a policy of two rules and one of none, and peers
// elsewhere: of each rule those of a selector of its own, so many.
func town(pods, members int) policy.Input {
	in := policy.Input{Self: "here", EndpointsSynced: true, View: model.PolicyView{Synced: true, Revision: 1, Namespaces: map[string]map[string]string{"ns": {}}}}
	var list []*model.PolicyPod
	add := func(node model.NodeName, label string, a netip.Addr) *model.PolicyPod {
		p := &model.PolicyPod{Namespace: "ns", Name: fmt.Sprintf("p%07d", len(list)), Node: node, Labels: map[string]string{"app": label}, Addresses: []netip.Addr{a}}
		list = append(list, p)
		return p
	}
	next := netip.MustParseAddr("10.0.0.1")
	var policies []*model.Policy
	for i := range pods {
		server := fmt.Sprint("server", i)
		p := add("here", server, netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)}))
		in.Endpoints = append(in.Endpoints, model.Endpoint{Namespace: p.Namespace, Pod: p.Name, HostInterface: fmt.Sprint("cali", i), Addresses: p.Addresses})
		var rules []model.PolicyRule
		for r := range 2 {
			client := fmt.Sprint("client", i, "-", r)
			for range members {
				add("there", client, next)
				next = next.Next()
			}
			rules = append(rules, model.PolicyRule{
				Action: model.PolicyAllow, Protocol: tcp, Index: r, Source: model.PolicyPeer{Selector: selector.Equal("app", client)},
				Destination: model.PolicyPeer{Ports: []model.PolicyPort{{First: 80, Last: 80}}},
			})
		}
		for n, rules := range [][]model.PolicyRule{nil, rules} {
			policies = append(policies, &model.Policy{
				Object: model.Ref{Kind: model.KindKubernetesPolicy, Namespace: "ns", Name: fmt.Sprint("policy", n, "-", i)}, Tier: model.DefaultTier, Order: model.KubernetesPolicyOrder,
				Selector: selector.Equal("app", server), Ingress: true, IngressRules: rules,
			})
		}
	}
	in.View.Pods, in.View.Policies = model.SortedOf(list), model.SortedOf(policies)
	return in
}

// BenchmarkHeap is what 40 pods of a node with one policy and a thousand peers take in memory, beside the policies of
// as many namespaces that have no pod here: the view, and the engine with it.
func BenchmarkHeap(b *testing.B) {
	heap := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / 1e6
	}
	for _, policies := range []int{1, 7_500, 75_000} {
		b.Run(fmt.Sprint("policies=", policies), func(b *testing.B) {
			for b.Loop() {
				before := heap()
				in := crowd(1_000, policies, benchPods)
				view := heap()
				engine := new(policy.Engine)
				program, _ := engine.Compile(in)
				b.ReportMetric(view-before, "MB/view")
				b.ReportMetric(heap()-view, "MB/engine")
				runtime.KeepAlive([]any{in, engine, program})
			}
		})
	}
}

// BenchmarkColdStart is a node whose agent starts: 250 pods with 500 policies, and 500 selectors in their rules, which are
// a thousand sets, of 200 members each pair: from the view to the kernel. By turns with the writing of the same table, made before, with nft -f of what nft lists of it, and with
// the start of an agent that finds it, and what that one cannot do without: the kernel telling of all elements.
func BenchmarkColdStart(b *testing.B) {
	in := town(250, 200)
	nsOf := func() (*nstest.NS, *Sink) {
		ns := nstest.New(b)
		return ns, newSink(b, ns)
	}
	apply := func(s *Sink) {
		program, _ := new(policy.Engine).Compile(in)
		if err := s.Apply(b.Context(), program, []string{"cali"}); err != nil {
			b.Fatal(err)
		}
	}
	var first, second, engine, listed, bare, nft cost
	for b.Loop() {
		for range 5 {
			ns, sink := nsOf()
			first.of(func() { apply(sink) })
			engine.of(func() { new(policy.Engine).Compile(in) })
			again := newSink(b, ns)
			second.of(func() { apply(again) })
			if s := again.Stats(); s.Replaced+s.Chains+s.Elements != 0 {
				b.Fatalf("who finds what should be writes: %+v", s)
			}
			listed.of(func() { list(b, again) })
			_, empty := nsOf()
			bare.of(func() {
				if err := empty.Writer.Apply(b.Context(), sink.memory.table.Table, true); err != nil {
					b.Fatal(err)
				}
			})
			file := filepath.Join(b.TempDir(), "rules")
			if err := os.WriteFile(file, []byte(ns.Run("nft", "list", "table", "inet", TableName)), 0o600); err != nil {
				b.Fatal(err)
			}
			third := nstest.New(b)
			nft.of(func() { third.Run("nft", "-f", file) })
		}
	}
	b.ReportMetric(first.median()/bare.median(), "x-bare")
	b.ReportMetric(first.median()/nft.median(), "x-nft")
	b.ReportMetric(second.median()/first.median(), "second-x")
	b.ReportMetric(engine.median()/first.median(), "engine-x")
	b.ReportMetric(listed.median()/first.median(), "list-x")
	b.ReportMetric(first.cpu/bare.cpu, "x-bare-cpu")
	b.ReportMetric(second.cpu/first.cpu, "second-x-cpu")
	b.ReportMetric(first.median()/1e6, "ms/first")
	b.ReportMetric(second.median()/1e6, "ms/second")
	b.ReportMetric(0, "ns/op")
}

// list has the kernel tell of all elements of the sets of a table, and does nothing with them.
func list(b *testing.B, s *Sink) {
	conn, err := nl.Dial(s.Namespace(), unix.NETLINK_NETFILTER)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	for set := range s.memory.table.Sets.All() {
		req := append(nl.AppendHeader(nil, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETSETELEM, 0), unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0)
		req = nl.AppendAttr(req, unix.NFTA_SET_ELEM_LIST_TABLE, []byte(TableName+"\x00"))
		req = nl.AppendAttr(req, unix.NFTA_SET_ELEM_LIST_SET, []byte(set.Name+"\x00"))
		if err := conn.Dump(nl.EndMessage(req, 0), func() {}, func(nl.Message) {}); err != nil {
			b.Fatal(err)
		}
	}
}

func newSink(b *testing.B, ns *nstest.NS) *Sink {
	b.Helper()
	sink, err := New(Options{NetNS: ns.Path, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = sink.Close() })
	return sink
}

// BenchmarkOneChainOfMany is a policy that changes of one pod of two thousand, each of which has a chain of its own,
// beside the bare writing of that chain to the same table.
func BenchmarkOneChainOfMany(b *testing.B) {
	in := town(2_000, 1)
	all := in.View.Policies
	one, _ := all.Get(&model.Policy{Object: model.Ref{Kind: model.KindKubernetesPolicy, Namespace: "ns", Name: "policy1-7"}})
	event := func(n int) policy.Input {
		in.View.Policies = all.With([]*model.Policy{on(one, uint16(80+n%2))}, nil)
		in.View.Revision++
		return in
	}
	beside(b, event, func(b *testing.B, _ *nstest.NS) func(n int) {
		ns := nstest.New(b)
		sink, engine := newSink(b, ns), new(policy.Engine)
		var chains [2]*nftw.Chain
		for n := range chains {
			program, _ := engine.Compile(event(n))
			if err := sink.Apply(b.Context(), program, []string{"cali"}); err != nil {
				b.Fatal(err)
			}
			id := program.Endpoints["cali7"].Ingress
			chains[n], _ = sink.memory.table.Chains.Get(&nftw.Chain{Chain: &nftables.Chain{Name: string(id)}})
		}
		conn := newBare(b, ns, 1).conn
		return func(n int) {
			c := chains[n%2]
			conn.FlushChain(c.Chain)
			for _, rule := range c.Rules {
				r := *rule
				r.Table, r.Chain = c.Table, c.Chain
				conn.AddRule(&r)
			}
			if err := conn.Flush(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
