package policynft

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/felix/internal/nstest"
	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/model"
)

// hostEndpoint is one of this node.
func hostEndpoint(link string, profiles ...string) model.HostEndpoint {
	return model.HostEndpoint{Object: model.Ref{Kind: model.KindHostEndpoint, Name: "h-" + link}, Node: "here", Interface: link, Profiles: profiles}
}

// global is a GlobalNetworkPolicy for all endpoints, with rules for TCP ports of
// destinations.
func global(name string, change func(*model.Policy), ingress, egress map[uint16]model.PolicyAction) model.Policy {
	p := model.Policy{Object: model.Ref{Kind: model.KindGlobalPolicy, Name: name}, Tier: model.DefaultTier, Ingress: ingress != nil, Egress: egress != nil}
	rules := func(of map[uint16]model.PolicyAction) (out []model.PolicyRule) {
		for _, port := range []uint16{0, 80, 81, 443} {
			if action := of[port]; action != "" {
				r := model.PolicyRule{Action: action, Protocol: tcp, Destination: model.PolicyPeer{Ports: []model.PolicyPort{{First: port, Last: port}}}}
				if port == 0 {
					r.Destination.Ports = nil
				}
				out = append(out, r)
			}
		}
		return out
	}
	p.IngressRules, p.EgressRules = rules(ingress), rules(egress)
	if change != nil {
		change(&p)
	}
	return p
}

// TestHosts sends packets from beyond the node to it, from it, and through it to a
// pod, for each kind of policy.
func TestHosts(t *testing.T) {
	n := newNode(t)
	pod, beyond := n.hosts[0], n.hosts[3]
	// What is sent to port 443 of the node's 10.0.3.1 is for a pod's port 81.
	n.ns.Run("nft", "add table inet services; add chain inet services pre { type nat hook prerouting priority dstnat; }; add rule inet services pre ip daddr 10.0.3.1 tcp dport 443 dnat ip to 10.0.0.2:81")
	type actions = map[uint16]model.PolicyAction
	allow, deny := model.PolicyAllow, model.PolicyDeny
	onForward := func(p *model.Policy) { p.Forward = true }
	first := func(p *model.Policy) { p.Forward, p.PreDNAT = true, true }
	raw := func(p *model.Policy) { p.Forward, p.Untracked = true, true }
	notPods := func(p *model.Policy) { p.Selector = notInNamespace{} }
	both := func(of ...func(*model.Policy)) func(*model.Policy) {
		return func(p *model.Policy) {
			for _, f := range of {
				f(p)
			}
		}
	}
	for _, c := range []struct {
		name     string
		ends     []model.HostEndpoint
		policies []model.Policy
		// of TCP: to the node's 80 and 81, from the node to 80 and 81 beyond, through it to a pod's 80
		// and 81, to the service's 443, from the pod to 80 beyond, and between node and pod
		want string
	}{
		{"no host endpoint", nil, []model.Policy{global("p", notPods, actions{80: deny}, nil)}, "80 81 out80 out81 pod80 pod81 443 podout local"},
		{"no policy", []model.HostEndpoint{hostEndpoint("eth0")}, nil, "pod80 pod81 443 podout local"},
		{"no policy, but a profile", []model.HostEndpoint{hostEndpoint("eth0", model.ProfileAllow)}, nil, "80 81 out80 out81 pod80 pod81 443 podout local"},
		{"any interface", []model.HostEndpoint{hostEndpoint("*")}, nil, "pod80 pod81 443 podout local"},
		{"another interface", []model.HostEndpoint{hostEndpoint("eth7")}, nil, "80 81 out80 out81 pod80 pod81 443 podout local"},
		{"the named one of two", []model.HostEndpoint{hostEndpoint("*"), hostEndpoint("eth0", model.ProfileAllow)}, nil, "80 81 out80 out81 pod80 pod81 443 podout local"},
		{"normal", []model.HostEndpoint{hostEndpoint("eth0")}, []model.Policy{global("p", notPods, actions{80: allow}, actions{81: allow})}, "80 out81 pod80 pod81 443 podout local"},
		{"normal, any interface", []model.HostEndpoint{hostEndpoint("*")}, []model.Policy{global("p", notPods, actions{80: allow}, actions{81: allow})}, "80 out81 pod80 pod81 443 podout local"},
		{"forwarded, as it comes in", []model.HostEndpoint{hostEndpoint("eth0", model.ProfileAllow)},
			[]model.Policy{global("p", both(onForward, notPods), actions{80: allow}, nil)}, "80 out80 out81 pod80 podout local"},
		{"forwarded, as it leaves", []model.HostEndpoint{hostEndpoint("*", model.ProfileAllow)},
			[]model.Policy{global("p", both(onForward, notPods), nil, actions{81: allow})}, "80 81 out81 pod80 pod81 443 local"},
		{"before services", []model.HostEndpoint{hostEndpoint("eth0", model.ProfileAllow)},
			[]model.Policy{global("p", both(first, notPods), actions{443: deny}, nil)}, "80 81 out80 out81 pod80 pod81 podout local"},
		{"before services allows more than the others", []model.HostEndpoint{hostEndpoint("eth0")},
			[]model.Policy{global("p", both(first, notPods), actions{80: allow, 443: deny}, nil)}, "80 pod80 pod81 podout local"},
		{"untracked denies", []model.HostEndpoint{hostEndpoint("eth0", model.ProfileAllow)},
			[]model.Policy{global("p", both(raw, notPods), actions{80: deny}, nil)}, "81 out80 out81 pod81 443 podout local"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n.apply(t, n.compile(t, c.ends, c.policies))
			var got []string
			try := func(what string, ok bool) {
				if ok {
					got = append(got, what)
				}
			}
			for family, node := range []netip.Addr{netip.MustParseAddr("10.0.3.1"), netip.MustParseAddr("fd00:3::1")} {
				got = nil
				try("80", reaches(beyond.ns, tcp, at(node, 80)))
				try("81", reaches(beyond.ns, tcp, at(node, 81)))
				try("out80", reaches(n.ns, tcp, at(beyond.addrs[family], 80)))
				try("out81", reaches(n.ns, tcp, at(beyond.addrs[family], 81)))
				try("pod80", reaches(beyond.ns, tcp, at(pod.addrs[family], 80)))
				try("pod81", reaches(beyond.ns, tcp, at(pod.addrs[family], 81)))
				want := c.want
				if family == 0 {
					try("443", reaches(beyond.ns, tcp, at(node, 443)))
				} else {
					want = strings.Replace(want, "443 ", "", 1)
				}
				try("podout", reaches(pod.ns, tcp, at(beyond.addrs[family], 80)))
				try("local", reaches(n.ns, tcp, at(pod.addrs[family], 80)) && reaches(n.ns, tcp, at(node, 81)))
				if strings.Join(got, " ") != want {
					t.Errorf("to and from %s: passes %s\nwant %s\n%s", node, got, want, n.ns.Run("nft", "list", "table", "inet", TableName))
				}
			}
		})
	}
}

// notInNamespace selects host endpoints.
type notInNamespace struct{}

func (notInNamespace) Matches(labels map[string]string) bool {
	return labels[model.LabelNamespace] == ""
}
func (notInNamespace) String() string { return "!has(projectcalico.org/namespace)" }

// compile makes the Program of policies, with three pods that are known.
func (n *node) compile(t *testing.T, ends []model.HostEndpoint, policies []model.Policy) policy.Program {
	t.Helper()
	var list []*model.Policy
	for i := range policies {
		list = append(list, &policies[i])
	}
	in := policy.Input{Self: "here", EndpointsSynced: true, View: model.PolicyView{
		Synced: true, Policies: model.SortedOf(list), HostEndpoints: ends, Namespaces: map[string]map[string]string{"ns": nil},
	}}
	var pods []*model.PolicyPod
	for _, h := range n.hosts[:3] {
		pods = append(pods, &model.PolicyPod{Namespace: "ns", Name: h.name, Node: "here", Addresses: h.addrs[:]})
		in.Endpoints = append(in.Endpoints, model.Endpoint{Namespace: "ns", Pod: h.name, HostInterface: h.name, Addresses: h.addrs[:]})
	}
	in.View.Pods = model.SortedOf(pods)
	program, problems := policy.Compile(in)
	for _, p := range problems {
		t.Error(p)
	}
	return program
}

// TestHostsUntracked: what a policy of that kind allows in both directions leaves no
// connection, and no other policy judges it.
func TestHostsUntracked(t *testing.T) {
	n := newNode(t)
	beyond, node := n.hosts[3], netip.MustParseAddr("10.0.3.1")
	ports := func(p uint16) model.PolicyPeer {
		return model.PolicyPeer{Ports: []model.PolicyPort{{First: p, Last: p}}}
	}
	p := model.Policy{
		Object: model.Ref{Kind: model.KindGlobalPolicy, Name: "raw"}, Tier: model.DefaultTier, Ingress: true, Egress: true, Forward: true, Untracked: true,
		IngressRules: []model.PolicyRule{{Action: model.PolicyAllow, Protocol: udp, Destination: ports(80)}},
		EgressRules:  []model.PolicyRule{{Action: model.PolicyAllow, Protocol: udp, Source: ports(80)}},
	}
	n.apply(t, n.compile(t, []model.HostEndpoint{hostEndpoint("eth0")}, []model.Policy{p}))
	if !reaches(beyond.ns, udp, at(node, 80)) || reaches(beyond.ns, udp, at(node, 81)) {
		t.Error("not what is allowed untracked passes, and nothing else")
	}
	flows, err := n.sink.Flows(map[netip.Addr]bool{node: true}, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range flows {
		if f.Destination == at(node, 80) {
			t.Errorf("the kernel tracks %v", f)
		}
	}
	p.Egress = false
	n.apply(t, n.compile(t, []model.HostEndpoint{hostEndpoint("eth0")}, []model.Policy{p}))
	if reaches(beyond.ns, udp, at(node, 80)) {
		t.Error("the answer to what is not tracked passes without a rule for it")
	}
}

// TestHostsStay: what is never cut is not, an established connection goes on, who comes new
// writes nothing, and without host endpoints the node is open again.
func TestHostsStay(t *testing.T) {
	n := newNode(t)
	beyond, node := n.hosts[3], netip.MustParseAddr("10.0.3.1")
	n.apply(t, closed()) // something that has the kernel track connections
	kept, err := dial(beyond.ns, tcp, at(node, 80))
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	all := map[uint16]model.PolicyAction{0: model.PolicyDeny}
	var policies []model.Policy
	for name, change := range map[string]func(*model.Policy){
		"a": nil, "b": func(p *model.Policy) { p.Forward, p.PreDNAT, p.Egress = true, true, false }, "c": func(p *model.Policy) { p.Forward = true },
	} {
		policies = append(policies, global(name, change, all, all))
	}
	before := n.compile(t, []model.HostEndpoint{hostEndpoint("*")}, policies)
	before.Complete = false
	if err := n.sink.Apply(t.Context(), before, []string{"cali"}); err != nil {
		t.Fatal(err)
	}
	if !reaches(beyond.ns, tcp, at(node, 80)) {
		t.Error("closed before all is known")
	}
	in := n.compile(t, []model.HostEndpoint{hostEndpoint("*")}, policies)
	n.apply(t, in)
	if reaches(beyond.ns, tcp, at(node, 80)) {
		t.Error("open")
	}
	if err := exchange(kept); err != nil {
		t.Errorf("an established connection ended: %v", err)
	}
	if err := n.failsafe(t, beyond, node); err != nil {
		t.Error("BGP is cut:", err)
	}
	again, err := New(Options{NetNS: n.ns.Path, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Apply(t.Context(), in, []string{"cali"}); err != nil {
		t.Fatal(err)
	}
	if s := again.Stats(); s.Replaced+s.Chains+s.Elements != 0 {
		t.Errorf("a process that comes new writes: %+v", s)
	}
	n.apply(t, n.compile(t, nil, nil))
	if !reaches(beyond.ns, tcp, at(node, 80)) {
		t.Error("still closed without host endpoints")
	}
}

// failsafe opens a connection to BGP's port of the node, and one from it.
func (n *node) failsafe(t *testing.T, beyond host, node netip.Addr) error {
	t.Helper()
	for _, end := range []*nstest.NS{n.ns, beyond.ns} {
		if err := inside(end, func() error {
			l, err := net.Listen("tcp", ":179")
			if err == nil {
				t.Cleanup(func() { l.Close() })
				go echo(l)
			}
			return err
		}); err != nil {
			return err
		}
	}
	in, err := dial(beyond.ns, tcp, at(node, 179))
	if err != nil {
		return err
	}
	out, err := dial(n.ns, tcp, at(beyond.addrs[0], 179))
	if err != nil {
		return errors.Join(err, in.Close())
	}
	return errors.Join(in.Close(), out.Close())
}

func echo(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() { _, _ = io.Copy(c, c); c.Close() }()
	}
}
