package netpol

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
)

// HostEndpoint translates the spec of a HostEndpoint. An address or a port that cannot be
// read is left out. ok is false if it cannot be said which interface of which node it is.
func HostEndpoint(name string, labels map[string]string, spec []byte) (e model.HostEndpoint, problems []model.Problem, ok bool) {
	r := reader{object: model.Ref{Kind: model.KindHostEndpoint, Name: name}}
	var v calico.HostEndpointSpec
	if len(spec) > 0 {
		if err := json.Unmarshal(spec, &v); err != nil {
			r.warn("spec", "cannot be read: %v", err)
			return e, r.problems, false
		}
	}
	e = model.HostEndpoint{Object: r.object, Labels: labels, Node: model.NodeName(v.Node), Interface: v.InterfaceName, Profiles: v.Profiles}
	for i, text := range v.ExpectedIPs {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			r.warn(fmt.Sprintf("spec.expectedIPs[%d]", i), "%q is not an IP address", text)
			continue
		}
		e.Addresses = append(e.Addresses, a.Unmap())
	}
	for i, p := range v.Ports {
		field := fmt.Sprintf("spec.ports[%d]", i)
		number, known := protocolNumber(&p.Protocol)
		switch {
		case !known:
			r.warn(field+".protocol", noProtocol, p.Protocol.String())
		case p.Port == 0 || p.Name == "":
			r.warn(field, "a port has a name and a number from 1 on")
		default:
			e.Ports = append(e.Ports, model.NamedPort{Name: p.Name, Protocol: number, Port: p.Port})
		}
	}
	if len(v.Ports) > 0 {
		r.report("Unsupported", "spec.ports", "rules that name a port do not look at those of host endpoints: write numbers there")
	}
	for i, p := range v.Profiles {
		if p != model.ProfileAllow && !strings.HasPrefix(p, model.ProfilePrefixOfNamespace) && !strings.HasPrefix(p, model.ProfilePrefixOfAccount) {
			r.report("ProfileNotFound", fmt.Sprintf("spec.profiles[%d]", i),
				"%q is no profile that Muslin has: it allows nothing. There are %s, and one for each namespace and service account", p, model.ProfileAllow)
		}
	}
	if v.Node == "" {
		r.warn("spec.node", "is required")
	}
	if v.InterfaceName == "" && len(e.Addresses) == 0 {
		r.warn("spec.interfaceName", "neither an interface nor an address is named")
	}
	return e, r.problems, v.Node != "" && (v.InterfaceName != "" || len(e.Addresses) > 0)
}
