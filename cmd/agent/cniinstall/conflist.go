package cniinstall

import (
	"encoding/json"
	"fmt"
	"slices"
)

type (
	conflist struct {
		CNIVersion string            `json:"cniVersion"`
		Name       string            `json:"name"`
		Plugins    []json.RawMessage `json:"plugins"`
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

// chained are the plugins that follow ours where the node has them: portmap for
// hostPort, bandwidth for the pod annotations kubernetes.io/ingress-bandwidth and
// egress-bandwidth. A runtime passes on only what a plugin says it can do.
var chained = []plugin{
	{Type: "portmap", SNAT: true, Capabilities: map[string]bool{"portMappings": true}},
	{Type: "bandwidth", Capabilities: map[string]bool{"bandwidth": true}},
}

// Conflist gives the text of the network configuration: our plugin, the chained
// ones that the node has, and every other plugin that the present text (empty:
// there is none) has, as it is and in its order: service meshes append theirs.
func Conflist(o Options, present []byte, has func(plugin string) bool) ([]byte, error) {
	o = o.withDefaults()
	c := conflist{CNIVersion: o.CNIVersion, Name: o.Network}
	if err := c.add(plugin{
		Type: BinaryName, MTU: o.MTU, Socket: o.Socket, Spool: o.Spool, IPAM: &ipam{Type: "muslin-ipam"},
	}); err != nil {
		return nil, err
	}
	theirs := pluginsOf(present)
	for _, p := range chained {
		i := slices.IndexFunc(theirs, func(t other) bool { return t.kind == p.Type })
		switch {
		case !has(p.Type): // every ADD would fail
		case i >= 0: // with what somebody set in it
			c.Plugins = append(c.Plugins, theirs[i].text)
		default:
			if err := c.add(p); err != nil {
				return nil, err
			}
		}
	}
	for _, t := range theirs {
		if !slices.ContainsFunc(chained, func(p plugin) bool { return p.Type == t.kind }) {
			c.Plugins = append(c.Plugins, t.text)
		}
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode cni configuration: %w", err)
	}
	return append(b, '\n'), nil
}

func (c *conflist) add(p plugin) error {
	text, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode cni configuration: %w", err)
	}
	c.Plugins = append(c.Plugins, text)
	return nil
}

// other is a plugin of the present configuration beside ours.
type other struct {
	kind string
	text json.RawMessage
}

// pluginsOf reads the plugins beside ours. What is no such configuration has
// none: it is replaced.
func pluginsOf(text []byte) (out []other) {
	var c conflist
	if json.Unmarshal(text, &c) != nil {
		return nil
	}
	for _, raw := range c.Plugins {
		var p struct {
			Type string `json:"type"`
		}
		if json.Unmarshal(raw, &p) == nil && p.Type != BinaryName && p.Type != "" {
			out = append(out, other{p.Type, raw})
		}
	}
	return out
}
