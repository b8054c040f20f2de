package nodeview

import (
	"strings"
	"testing"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/pkg/model"
)

func TestFindings(t *testing.T) {
	node := model.Ref{Kind: "Node", Name: "n1"}
	for name, c := range map[string]struct {
		view View
		want []string // beginning with the check; "!" before it: breaks
	}{
		"as it should be": {view: View{
			Node: "n1", System: System{Sysctls: map[string]string{"net/ipv4/ip_forward": "1"}, Strict: []string{"eth0"}, Label: "cri-containerd.apparmor.d (enforce)"},
			State:  felix.State{Sysctls: []felix.Sysctl{{Key: "net/ipv4/ip_forward", Value: "1"}, {Key: "net/ipv6/conf/all/forwarding", Value: "1"}}},
			Kernel: Kernel{Links: []Link{{Name: "eth0"}, {Name: "cali123"}, {Name: "kube-ipvs0"}}, Chains: []Chain{{Table: "muslin", Hook: "forward", Drops: true}, {Table: "filter", Hook: "input", Drops: true}}},
			// what is wrong with objects is told of those
			Problems: []model.Problem{{Object: model.Ref{Kind: "BGPPeer", Name: "tor"}, Reason: "UnknownName"}},
		}},
		"forwarding is written by others": {view: View{
			System: System{Sysctls: map[string]string{"net/ipv4/ip_forward": "0"}}, State: felix.State{Sysctls: []felix.Sysctl{{Key: "net/ipv4/ip_forward", Value: "1"}}},
		}, want: []string{"!forwarding net.ipv4.ip_forward is 0 and has to be 1"}},
		"another network's links": {view: View{Kernel: Kernel{Links: []Link{{Name: "flannel.1"}, {Name: "cilium_net"}, {Name: "cilium_host"}}}},
			want: []string{"!other network links of Cilium: cilium_host, cilium_net;", "!other network links of flannel: flannel.1;"}},
		"Calico's tunnel, and Muslin's": {view: View{Kernel: Kernel{Links: []Link{{Name: "vxlan.calico", Alias: "muslin:tunnel"}, {Name: "vxlan-v6.calico"}, {Name: "vxlan.calico"}}}},
			want: []string{"!other network links of Calico: vxlan-v6.calico, vxlan.calico;"}},
		"firewalls": {view: View{Kernel: Kernel{Chains: []Chain{
			{Family: "inet", Table: "firewalld", Name: "filter_FORWARD", Hook: "forward"}, {Family: "ip", Table: "filter", Name: "FORWARD", Hook: "forward", Drops: true},
		}}}, want: []string{"firewall firewalld filters", "firewall chain FORWARD of table ip filter drops"}},
		"services":   {view: View{System: System{Services: []string{"NetworkManager", "systemd-networkd", "other"}}}, want: []string{"services NetworkManager runs", "services systemd-networkd runs"}},
		"selinux":    {view: View{System: System{Label: "system_u:system_r:container_t:s0:c1,c2"}}, want: []string{"!selinux the agent is confined"}},
		"privileged": {view: View{System: System{Label: "system_u:system_r:spc_t:s0"}}},
		"rp_filter":  {view: View{System: System{Strict: []string{"eth0", "eth1"}}}, want: []string{"rp_filter strict on eth0, eth1:"}},
		"ports and files": {view: View{Node: "n1", Problems: []model.Problem{
			{Object: node, Reason: "FileNotWritten", Message: "a file"}, {Object: model.Ref{Kind: "BGPConfiguration", Name: "default"}, Reason: "PortTaken", Message: "a port"},
			{Object: model.Ref{Kind: "Node", Name: "n2"}, Message: "another node's"}, {Object: node, Reason: ReasonHost, Message: "found already"},
		}}, want: []string{"!node a file", "!node a port"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := c.view.Findings()
			if len(got) != len(c.want) {
				t.Fatalf("%+v, want %q", got, c.want)
			}
			for i, f := range got {
				text := f.Check + " " + f.Says
				if f.Breaks {
					text = "!" + text
				}
				if !strings.HasPrefix(text, c.want[i]) {
					t.Errorf("%q, want %q", text, c.want[i])
				}
			}
		})
	}
}
