package nodeview

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// System is what of the host bears on the network, beside what the kernel has.
type System struct {
	Sysctls  map[string]string // by path below /proc/sys, as in net/ipv4/ip_forward
	Strict   []string          // links with a strict reverse path filter (rp_filter 1), sorted
	Services []string          // programs of the host that manage links or rules, sorted
	Label    string            // of the agent's process, by SELinux or AppArmor; empty: none
}

// Finding is one thing of a node that does not go with Muslin, or may not.
type Finding struct {
	Check  string // one or two words
	Says   string // what is found, and what to do
	Breaks bool   // it does not work so; else it may, and is worth a look
}

// CheckNode is the check of what the agent itself reports of its node; ReasonHost is
// the reason of its problems that are findings.
const (
	CheckNode  = "node"
	ReasonHost = "HostInterferes"
)

// others are the links of other pod networks, by the beginning of their names. Muslin's
// own have an alias.
var others = map[string]string{
	"cilium_": "Cilium", "flannel.": "flannel", "cni0": "flannel or a bridge network", "weave": "Weave", "kube-bridge": "kube-router",
	"vxlan.calico": "Calico", "vxlan-v6.calico": "Calico", "wireguard.cali": "Calico", "antrea-gw": "Antrea", "ovn-k8s-": "OVN-Kubernetes", "kube-ipvs0": "",
}

// Findings judges a node before it carries traffic, and while it does: sorted by
// check, none when all is as it should be. It is pure.
func (v View) Findings() []Finding {
	out := slices.Concat(v.forwarding(), v.leftovers(), v.firewalls(), v.services(), v.problems())
	if strings.Contains(v.System.Label, ":container_t:") {
		out = append(out, Finding{"selinux", "the agent is confined as container_t, so that it may not write to the host: set seLinuxOptions: {type: spc_t} in the securityContext of both containers of the DaemonSet", true})
	}
	if len(v.System.Strict) > 1 {
		out = append(out, Finding{"rp_filter", "strict on " + strings.Join(v.System.Strict, ", ") +
			": a packet that comes in by another of these links than the answer takes is dropped; with several uplinks set net.ipv4.conf.*.rp_filter to 2", false})
	}
	slices.SortStableFunc(out, func(a, b Finding) int { return cmp.Compare(a.Check, b.Check) })
	return out
}

// forwarding compares the sysctls that were written with what is there.
func (v View) forwarding() (out []Finding) {
	for _, want := range v.State.Sysctls {
		if have, known := v.System.Sysctls[want.Key]; known && want.If == "" && have != want.Value {
			out = append(out, Finding{"forwarding", fmt.Sprintf("%s is %s and has to be %s: see what else writes it (sysctl.d, a firewall, an agent of the cloud)",
				strings.ReplaceAll(want.Key, "/", "."), have, want.Value), true})
		}
	}
	return out
}

// leftovers names links of other pod networks.
func (v View) leftovers() (out []Finding) {
	found := map[string][]string{}
	for _, l := range v.Kernel.Links {
		for begin, of := range others {
			if of != "" && strings.HasPrefix(l.Name, begin) && !strings.HasPrefix(l.Alias, "muslin:") {
				found[of] = append(found[of], l.Name)
			}
		}
	}
	for of, links := range found {
		slices.Sort(links)
		out = append(out, Finding{"other network", fmt.Sprintf("links of %s: %s; remove that network, and its links and rules (a reboot does)", of, strings.Join(links, ", ")), true})
	}
	slices.SortFunc(out, func(a, b Finding) int { return cmp.Compare(a.Says, b.Says) })
	return out
}

// firewalls names tables of others that drop what they do not know on its way
// through the node: nothing that Muslin accepts is safe from them.
func (v View) firewalls() (out []Finding) {
	for _, c := range v.Kernel.Chains {
		own := strings.HasPrefix(c.Table, "muslin")
		switch {
		case own || c.Hook != "forward":
		case c.Table == "firewalld":
			out = append(out, Finding{"firewall", "firewalld filters what is forwarded: firewall-cmd --permanent --zone=trusted --add-source=<each pool>, and the same for nodes' subnets", false})
		case c.Drops:
			out = append(out, Finding{"firewall", fmt.Sprintf("chain %s of table %s %s drops what its rules do not accept: let them accept the pools (Docker: iptables -P FORWARD ACCEPT)", c.Name, c.Family, c.Table), false})
		}
	}
	return slices.Compact(out)
}

var advice = map[string]string{
	"NetworkManager":   "NetworkManager runs: have it leave pods' links alone, by unmanaged-devices=interface-name:cali*;interface-name:tunl*;interface-name:vxlan* in /etc/NetworkManager/conf.d",
	"systemd-networkd": "systemd-networkd runs: set ManageForeignRoutes=no and ManageForeignRoutingPolicyRules=no in networkd.conf, or it deletes routes when it restarts",
}

func (v View) services() (out []Finding) {
	for _, s := range v.System.Services {
		if advice[s] != "" {
			out = append(out, Finding{"services", advice[s], false})
		}
	}
	return out
}

// problems are those that the agent has with the node itself: its address, files and
// ports.
func (v View) problems() (out []Finding) {
	for _, p := range v.Problems {
		if own := p.Object == (model.Ref{Kind: "Node", Name: string(v.Node)}); own && p.Reason != ReasonHost || p.Reason == "PortTaken" {
			out = append(out, Finding{CheckNode, p.Message, true})
		}
	}
	return out
}
