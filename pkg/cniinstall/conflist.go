package cniinstall

import (
	"encoding/json"
	"fmt"
)

type (
	conflist struct {
		CNIVersion string   `json:"cniVersion"`
		Name       string   `json:"name"`
		Plugins    []plugin `json:"plugins"`
	}
	plugin struct {
		Type         string          `json:"type"`
		MTU          int             `json:"mtu,omitempty"`
		Socket       string          `json:"socket,omitempty"`
		Spool        string          `json:"spool,omitempty"`
		IPAM         *ipam           `json:"ipam,omitempty"`
		SNAT         bool            `json:"snat,omitempty"`
		Capabilities map[string]bool `json:"capabilities,omitempty"`
	}
	ipam struct {
		Type string `json:"type"`
	}
)

// Conflist gives the text of the network configuration: our plugin, and after
// it portmap for hostPort, if the node has it.
func Conflist(o Options, portmap bool) ([]byte, error) {
	o = o.withDefaults()
	c := conflist{CNIVersion: o.CNIVersion, Name: o.Network, Plugins: []plugin{{
		Type: BinaryName, MTU: o.MTU, Socket: o.Socket, Spool: o.Spool, IPAM: &ipam{Type: "muslin-ipam"},
	}}}
	if portmap {
		c.Plugins = append(c.Plugins, plugin{
			Type: "portmap", SNAT: true, Capabilities: map[string]bool{"portMappings": true},
		})
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode cni configuration: %w", err)
	}
	return append(b, '\n'), nil
}
