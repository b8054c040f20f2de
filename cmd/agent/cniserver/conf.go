package cniserver

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
)

// rawConf is the network configuration as Muslin and Calico write it. Keys of
// Calico's that choose its datastore, logging and policy engine are not here:
// they are accepted and mean nothing.
type rawConf struct {
	types.PluginConf
	MTU               int     `json:"mtu"`
	NumQueues         int     `json:"num_queues"`
	IPAM              rawIPAM `json:"ipam"`
	ContainerSettings struct {
		AllowIPForwarding bool `json:"allow_ip_forwarding"`
	} `json:"container_settings"`
	FeatureControl struct {
		IPAddrsNoIPAM bool `json:"ip_addrs_no_ipam"`
	} `json:"feature_control"`
}

type rawIPAM struct {
	Type string `json:"type"`
	rawHostLocal
	AssignIPv4 *textBool `json:"assign_ipv4"`
	AssignIPv6 *textBool `json:"assign_ipv6"`
	IPv4Pools  []string  `json:"ipv4_pools"`
	IPv6Pools  []string  `json:"ipv6_pools"`
}

// Versions of the CNI specification that ADD can answer in.
var Versions = []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// textBool is a boolean that Calico writes as a string.
type textBool bool

// UnmarshalJSON reads true, false, "true" and "false".
func (t *textBool) UnmarshalJSON(b []byte) error {
	text := string(b)
	if s, err := strconv.Unquote(text); err == nil {
		text = s
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		return fmt.Errorf("%s is neither true nor false", b)
	}
	*t = textBool(v)
	return nil
}

// conf is the part of the network configuration that counts.
type conf struct {
	version          string // cniVersion
	network          string // name
	mtu              int    // bytes; 0: the node's
	queues           int    // transmit and receive queues; 0: the kernel's default
	forwarding       bool
	ipv4, ipv6       Need
	poolsV4, poolsV6 []string
	podCIDRs         bool // addresses come from node.spec.podCIDRs
	addrsNoIPAM      bool // pods may bring addresses that IPAM does not know
	dns              types.DNS
	previous         *types100.Result // nil: none
	valid            []types.GCAttachment
}

// The values of ipam.type. With Calico's, its defaults hold: IPv4 and no IPv6
// unless said otherwise. With Muslin's, or none, a pod gets an address of each
// family that has a pool. With the reference plugin's, addresses come from
// node.spec.podCIDRs.
const (
	ipamMuslin    = "muslin-ipam"
	ipamCalico    = "calico-ipam"
	ipamHostLocal = "host-local"
)

func parseConf(b []byte) (conf, error) {
	var raw rawConf
	if err := json.Unmarshal(b, &raw); err != nil {
		return conf{}, types.NewError(types.ErrDecodingFailure, "network configuration: "+err.Error(), "")
	}
	invalid := func(format string, args ...any) (conf, error) {
		return conf{}, types.NewError(types.ErrInvalidNetworkConfig, "network configuration: "+fmt.Sprintf(format, args...), "")
	}
	c := conf{
		version: raw.CNIVersion, network: raw.Name, mtu: raw.MTU, queues: raw.NumQueues, forwarding: raw.ContainerSettings.AllowIPForwarding,
		poolsV4: raw.IPAM.IPv4Pools, poolsV6: raw.IPAM.IPv6Pools, dns: raw.DNS, valid: raw.ValidAttachments,
		addrsNoIPAM: raw.FeatureControl.IPAddrsNoIPAM,
	}
	switch raw.IPAM.Type {
	case "", ipamMuslin:
	case ipamCalico:
		c.ipv4, c.ipv6 = NeedYes, NeedNo
	case ipamHostLocal:
		c.podCIDRs = true
		var err error
		if c.ipv4, c.ipv6, err = raw.IPAM.families(); err != nil {
			return invalid("%v", err)
		}
	default:
		return invalid("ipam.type %q: want %s, %s or %s", raw.IPAM.Type, ipamMuslin, ipamCalico, ipamHostLocal)
	}
	for need, stated := range map[*Need]*textBool{&c.ipv4: raw.IPAM.AssignIPv4, &c.ipv6: raw.IPAM.AssignIPv6} {
		switch {
		case stated == nil:
		case bool(*stated):
			*need = NeedYes
		default:
			*need = NeedNo
		}
	}
	switch {
	case c.network == "":
		return invalid("name: is missing")
	case c.ipv4 == NeedNo && c.ipv6 == NeedNo:
		return invalid("ipam.assign_ipv4, ipam.assign_ipv6: neither family is wanted")
	case c.mtu != 0 && (c.mtu < 68 || c.mtu > 65535): // RFC 791: every link carries 68 bytes
		return invalid("mtu: %d is not within 68 to 65535", c.mtu)
	case c.queues < 0 || c.queues > 4096: // the kernel takes no more for a veth
		return invalid("num_queues: %d is not within 0 to 4096", c.queues)
	}
	if raw.RawPrevResult != nil {
		if err := version.ParsePrevResult(&raw.PluginConf); err != nil {
			return invalid("prevResult: %v", err)
		}
		previous, err := types100.NewResultFromResult(raw.PrevResult)
		if err != nil {
			return invalid("prevResult: %v", err)
		}
		c.previous = previous
	}
	return c, nil
}

// addressesOf returns the addresses that a result gives to an interface of a
// sandbox, and those it gives to none in particular.
func addressesOf(r *types100.Result, ifname string) []netip.Addr {
	var addrs []netip.Addr
	for _, ip := range r.IPs {
		if i := ip.Interface; i != nil {
			if *i < 0 || *i >= len(r.Interfaces) || r.Interfaces[*i].Name != ifname || r.Interfaces[*i].Sandbox == "" {
				continue
			}
		}
		if a, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			addrs = append(addrs, a.Unmap())
		}
	}
	return addrs
}
