package app

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/muslin-net/muslin/pkg/model"
)

// A node's HostEndpoint is what Calico's controllers make of it.
func TestHostEndpointOfNode(t *testing.T) {
	addr := netip.MustParseAddr
	node := model.Node{
		Name: "n1", Labels: map[string]string{"zone": "a", "projectcalico.org/created-by": "somebody"},
		IPv4: netip.MustParsePrefix("192.0.2.1/24"), IPv6: netip.MustParsePrefix("2001:db8::1/64"),
		IPIPTunnel: addr("10.244.0.1"), VXLANTunnel: addr("10.244.0.2"), VXLANTunnelV6: addr("fd00::2"),
		InternalIPs: []netip.Addr{addr("192.0.2.1"), addr("198.51.100.1"), addr("fe80::1%eth0")}, OtherIPs: []netip.Addr{addr("203.0.113.1")},
	}
	want := model.HostEndpoint{
		Object: model.Ref{Kind: "HostEndpoint", Name: "n1-auto-hep"}, Node: "n1", Interface: "*", Profiles: []string{"projectcalico-default-allow"},
		Labels: map[string]string{"zone": "a", "projectcalico.org/created-by": "calico-kube-controllers"},
		Addresses: []netip.Addr{
			addr("192.0.2.1"), addr("2001:db8::1"), addr("10.244.0.1"), addr("10.244.0.2"), addr("fd00::2"), addr("198.51.100.1"), addr("fe80::1"), addr("203.0.113.1"),
		},
	}
	if d := cmp.Diff(want, hostEndpointOf(&node), cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if node.Labels["projectcalico.org/created-by"] != "somebody" {
		t.Error("the labels of the node were changed")
	}
	bare := hostEndpointOf(&model.Node{Name: "n2"})
	if len(bare.Addresses) != 0 || bare.Interface != "*" {
		t.Errorf("of a node that nothing is known of: %+v", bare)
	}
}

// What differs is written, what is nobody's any more goes, and what is somebody's own
// stays.
func TestEndpointsToDo(t *testing.T) {
	nodes := []model.Node{{Name: "same"}, {Name: "new"}, {Name: "changed", Labels: map[string]string{"zone": "b"}}, {Name: "taken"}}
	of := func(name string, change func(*model.HostEndpoint)) model.HostEndpoint {
		e := hostEndpointOf(&model.Node{Name: model.NodeName(name)})
		change(&e)
		return e
	}
	have := []model.HostEndpoint{
		of("same", func(*model.HostEndpoint) {}),
		of("changed", func(*model.HostEndpoint) {}),
		of("taken", func(e *model.HostEndpoint) { e.Labels = nil }),
		of("gone", func(*model.HostEndpoint) {}),
		of("gone-own", func(e *model.HostEndpoint) { e.Labels = map[string]string{"projectcalico.org/created-by": "somebody"} }),
		of("template", func(e *model.HostEndpoint) { e.Object.Name = "other-name" }),
	}
	names := func(on bool, have []model.HostEndpoint) (put, drop, foreign []string) {
		todo := endpointsToDo(on, nodes, have)
		for _, e := range todo.put {
			put = append(put, e.Object.Name)
		}
		for _, r := range todo.drop {
			drop = append(drop, r.Name)
		}
		for _, r := range todo.foreign {
			foreign = append(foreign, r.Name)
		}
		return put, drop, foreign
	}
	for _, c := range []struct {
		name               string
		on                 bool
		have               []model.HostEndpoint
		put, drop, foreign []string
	}{
		{"on", true, have, []string{"changed-auto-hep", "new-auto-hep"}, []string{"gone-auto-hep"}, []string{"taken-auto-hep"}},
		{"off", false, have, nil, []string{"same-auto-hep", "changed-auto-hep", "gone-auto-hep"}, nil},
		{"off, and never on", false, nil, nil, nil, nil},
		{"edited", true, []model.HostEndpoint{
			of("same", func(e *model.HostEndpoint) { e.Profiles = nil }),
			of("new", func(e *model.HostEndpoint) { e.Interface = "eth0" }),
			of("changed", func(e *model.HostEndpoint) { e.Labels["zone"] = "b"; e.Ports = []model.NamedPort{{Name: "a"}} }),
			of("taken", func(e *model.HostEndpoint) { e.Addresses = []netip.Addr{netip.IPv6Loopback()} }),
		}, []string{"same-auto-hep", "new-auto-hep", "changed-auto-hep", "taken-auto-hep"}, nil, nil},
	} {
		put, drop, foreign := names(c.on, c.have)
		if d := cmp.Diff([][]string{c.put, c.drop, c.foreign}, [][]string{put, drop, foreign}); d != "" {
			t.Errorf("%s (-want +got)\n%s", c.name, d)
		}
	}
}
