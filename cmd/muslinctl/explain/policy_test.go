package explain

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/felix/nodeview"
	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/selector"
)

var (
	client = End{netip.MustParseAddr("10.244.2.6"), &Pod{Namespace: "default", Name: "client", Node: "n2", Phase: "Running"}}
	web    = End{pod, &Pod{Namespace: "default", Name: "web", Node: "n1", Phase: "Running"}}
	world  = End{Addr: netip.MustParseAddr("198.51.100.1")}
	node1  = End{Addr: n1}
	nodes  = []model.Node{{Name: "n1", IPv4: netip.PrefixFrom(n1, 24)}, {Name: "n2", IPv4: netip.PrefixFrom(n2, 24)}}
)

// view has the two pods, and policies.
func view(policies ...model.Policy) model.PolicyView {
	var list []*model.Policy
	for i := range policies {
		list = append(list, &policies[i])
	}
	v := model.PolicyView{Synced: true, Namespaces: map[string]map[string]string{"default": nil}, Policies: model.SortedOf(list),
		Tiers: []model.Tier{{Name: "security", Order: 5, Pass: true}}}
	for _, e := range []End{client, web} {
		v.Pods = v.Pods.With([]*model.PolicyPod{{Namespace: e.Pod.Namespace, Name: e.Pod.Name, Node: e.Pod.Node, Labels: map[string]string{"app": e.Pod.Name}, Addresses: []netip.Addr{e.Addr}}}, nil)
	}
	return v
}

func selects(t *testing.T, text string) model.Selector {
	t.Helper()
	s, err := selector.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ingress is a policy for the pod web.
func ingress(t *testing.T, name string, rules ...model.PolicyRule) model.Policy {
	for i := range rules {
		rules[i].Index = i
	}
	return model.Policy{Object: model.Ref{Kind: model.KindPolicy, Namespace: "default", Name: name}, Tier: "default", Selector: selects(t, `app == "web"`), Ingress: true, IngressRules: rules}
}

func to(port uint16) model.PolicyRule {
	return model.PolicyRule{Action: model.PolicyAllow, Protocol: 6, Destination: model.PolicyPeer{Ports: []model.PolicyPort{{First: port, Last: port}}}}
}

func port(n uint16) policy.Packet { return policy.Packet{Protocol: 6, DestinationPort: n} }

func TestPolicyIsNamed(t *testing.T) {
	first := func(p model.Policy) model.Policy { p.Tier = "security"; return p }
	out := ingress(t, "out", model.PolicyRule{Action: model.PolicyDeny})
	out.Selector, out.Ingress, out.Egress, out.IngressRules, out.EgressRules = nil, false, true, nil, out.IngressRules
	denied := ingress(t, "deny", to(80), model.PolicyRule{Action: model.PolicyDeny, Source: model.PolicyPeer{Selector: selects(t, `app == "client"`)}})
	for _, c := range []struct {
		name     string
		view     model.PolicyView
		from, to End
		packet   policy.Packet
		want     Class
		says     string // part of the text
		object   string
	}{
		{"no policy", view(), client, web, port(80), "", "ingress    no policy selects Pod default/web (10.244.1.5) for ingress", ""},
		{"a rule that allows", view(denied), client, web, port(80), "", "tier default: NetworkPolicy default/deny: spec.ingress[0] allows", ""},
		{"a rule that drops", view(denied), client, web, port(81), PolicyDenies, "spec.ingress[1] drops", "NetworkPolicy default/deny: spec.ingress[1]"},
		{"the end of the tier", view(ingress(t, "a"), ingress(t, "b", to(80))), world, web, port(81), PolicyDenies,
			"tier default: no rule of NetworkPolicy default/a, NetworkPolicy default/b matches: the end of the tier drops", "NetworkPolicy default/a, NetworkPolicy default/b: spec.ingress"},
		{"a tier that passes", view(first(ingress(t, "first")), ingress(t, "then", to(80))), world, web, port(80), "",
			"tier security: no rule of NetworkPolicy default/first matches: the end of the tier passes to the next tier; tier default: NetworkPolicy default/then: spec.ingress[0] allows", ""},
		{"egress", view(out), client, world, port(80), PolicyDenies, "egress     tier default: NetworkPolicy default/out: spec.egress[0] drops", "default/out: spec.egress[0]"},
		{"both ends", view(out, ingress(t, "a")), client, web, port(80), PolicyDenies, "ingress    tier default", "default/out"},
		{"an outsider", view(out), world, web, port(80), "", "no policy selects Pod default/web", ""},
		{"a node and its own pod", view(ingress(t, "a")), node1, web, port(80), "", "nothing is judged", ""},
		{"a node and a pod of another", view(ingress(t, "a")), End{Addr: n2}, web, port(80), PolicyDenies, "ingress", "default/a"},
		{"a pod and itself", view(ingress(t, "a")), web, web, port(80), "", "nothing is judged", ""},
		{"an echo", view(ingress(t, "a", model.PolicyRule{Action: model.PolicyAllow, IPVersion: 4, Protocol: 1, ICMP: &model.ICMPMatch{Type: 8}})), world, web, Echo(world.Addr, pod), "", "spec.ingress[0] allows", ""},
		{"a pod that is not known", model.PolicyView{Synced: true, Policies: view(ingress(t, "a")).Policies}, world, web, port(80), PolicyDenies, "is not known to network policy", "Pod default/web"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.packet.Source, c.packet.Destination = c.from.Addr, c.to.Addr
			s := TellPolicy(Evaluate(c.view, nodes, c.from, c.to), c.packet, func(model.NodeName) (*nodeview.View, string) { return nil, "gone" })
			if s.Broken != c.want || !strings.Contains(s.Text(), c.says) || !strings.Contains(s.Object, c.object) {
				t.Errorf("want %q, %q, change %q:\n%s", c.want, c.says, c.object, s.Text())
			}
		})
	}
}

// What the agent of a pod's node told its kernel is compared by the chain's name and
// by its rules.
func TestKernelIsCompared(t *testing.T) {
	v := view(ingress(t, "a", to(80)))
	attached := []model.Endpoint{{Namespace: "default", Pod: "web", HostInterface: "cali1", Addresses: []netip.Addr{pod}}}
	reported := func(v model.PolicyView) *nodeview.View {
		p, _ := policy.Compile(policy.Input{Self: "n1", View: v, Endpoints: attached, EndpointsSynced: true})
		return &nodeview.View{Node: "n1", Endpoints: attached, Policy: p.String()}
	}
	late := *reported(v)
	late.Policy = "network policy is not known yet\n"
	for _, c := range []struct {
		name     string
		reported *nodeview.View
		want     Class
		says     string
	}{
		{"the same", reported(v), "", "node n1 was told the same: ingress of cali1 is i-"},
		{"no policy", reported(view()), NotInstalled, "node n1 was told all for ingress of cali1, and the objects say i-"},
		{"another rule", reported(view(ingress(t, "a", to(81)))), NotInstalled, "node n1 was told other rules of i-"},
		{"another policy", reported(view(ingress(t, "b", to(80)))), NotInstalled, "and the objects say i-"},
		{"nothing yet", &late, NotInstalled, "knows no policy for cali1"},
		{"no such pod", &nodeview.View{Node: "n1"}, NotInstalled, "node n1 knows no interface of the pod"},
		{"no agent", nil, "", "not compared: gone"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := port(80)
			k.Source, k.Destination = world.Addr, pod
			s := TellPolicy(Evaluate(v, nodes, world, web), k, func(model.NodeName) (*nodeview.View, string) { return c.reported, "gone" })
			if s.Broken != c.want || !strings.Contains(s.Text(), c.says) {
				t.Errorf("want %q, %q:\n%s", c.want, c.says, s.Text())
			}
		})
	}
}
