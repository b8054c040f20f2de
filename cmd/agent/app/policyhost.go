package app

import (
	"cmp"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
)

// ofHost adds what the node's host endpoints ask for, if there are any: what is never
// cut, and where one is found by an address, the interfaces. Before the
// FelixConfigurations and the ports of BGP are known nothing is decided: it could cut
// what they keep open.
func (p *policyLoop) ofHost(in *policy.Input, next *task.Next) {
	own := slices.DeleteFunc(slices.Clone(in.View.HostEndpoints), func(e model.HostEndpoint) bool { return e.Node != p.node })
	if len(own) == 0 {
		return
	}
	s := get(&p.in.common, &next.Changed).Snapshot
	in.EndpointsSynced = in.EndpointsSynced && s.Synced
	in.FailsafeIn, in.FailsafeOut = policy.DefaultFailsafe()
	inbound, outbound, vxlan := felix.Failsafe(s, p.node)
	if inbound != nil {
		in.FailsafeIn = inbound
	}
	if outbound != nil {
		in.FailsafeOut = outbound
	}
	in.VXLANPort = vxlan
	if c := get(&p.in.config, &next.Changed); c == nil {
		in.EndpointsSynced = false
	} else {
		in.FailsafeIn, in.FailsafeOut = withBGP(*c, in.FailsafeIn, in.FailsafeOut)
		in.FailsafeOut = append(in.FailsafeOut, p.apiServer)
	}
	if !slices.ContainsFunc(own, func(e model.HostEndpoint) bool { return e.Interface == "" }) {
		return
	}
	for _, l := range get(&p.in.host, &next.Changed).Links {
		link := policy.Interface{Name: l.Name}
		for _, a := range l.Addresses {
			link.Addresses = append(link.Addresses, a.Addr())
		}
		in.Interfaces = append(in.Interfaces, link)
	}
}

// epochMask gives the bits of connections' marks that are policy's; 0: what is established is not
// evaluated again.
func epochMask(all []model.FelixConfiguration, node model.NodeName) uint32 {
	on, mask := felix.Epochs(all, node)
	if !on {
		return 0
	}
	return cmp.Or(mask, policy.DefaultEpochMask)
}

// apiServerPort is the port that the agent calls the API server at.
func apiServerPort(host string) (model.FailsafePort, error) {
	u, _, err := rest.DefaultServerURL(host, "", schema.GroupVersion{}, true)
	if err != nil {
		return model.FailsafePort{}, err
	}
	port, err := strconv.ParseUint(cmp.Or(u.Port(), "443"), 10, 16)
	return model.FailsafePort{Protocol: tcp, Port: uint16(port)}, err
}

const tcp = 6

// withBGP adds the ports on which this node and its peers listen, where they are not 179.
func withBGP(c bgp.Config, in, out []model.FailsafePort) (_, _ []model.FailsafePort) {
	in = append(slices.Clone(in), model.FailsafePort{Protocol: tcp, Port: uint16(c.ListenPort)})
	out = slices.Clone(out)
	for _, peer := range c.Peers {
		if p := (model.FailsafePort{Protocol: tcp, Port: uint16(peer.Port)}); !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return in, out
}
