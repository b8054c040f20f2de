package cniserver

import (
	"fmt"
	"strings"
)

// rawHostLocal is what of the host-local plugin's configuration counts: whether
// a subnet stands for one of node.spec.podCIDRs (Calico's spelling, in any
// case). It may be given alone, or in a list of ranges for two families.
type rawHostLocal struct {
	Subnet string `json:"subnet"`
	Ranges [][]struct {
		Subnet string `json:"subnet"`
	} `json:"ranges"`
}

const (
	usePodCIDRv4 = "usePodCidr"
	usePodCIDRv6 = "usePodCidrIPv6"
)

// families says of which families addresses are wanted.
func (r rawHostLocal) families() (v4, v6 Need, err error) {
	v4, v6 = NeedNo, NeedNo
	type named struct{ field, subnet string }
	var all []named
	if r.Subnet != "" {
		all = append(all, named{"ipam.subnet", r.Subnet})
	}
	for i, set := range r.Ranges {
		for j, one := range set {
			all = append(all, named{fmt.Sprintf("ipam.ranges[%d][%d].subnet", i, j), one.Subnet})
		}
	}
	if len(all) == 0 {
		return v4, v6, fmt.Errorf("ipam.subnet: is missing: want %s or %s with ipam.type %s", usePodCIDRv4, usePodCIDRv6, ipamHostLocal)
	}
	for _, n := range all {
		switch {
		case strings.EqualFold(n.subnet, usePodCIDRv4):
			v4 = NeedYes
		case strings.EqualFold(n.subnet, usePodCIDRv6):
			v6 = NeedYes
		default:
			return v4, v6, fmt.Errorf("%s %q: want %s or %s: for subnets of your own make an IPPool", n.field, n.subnet, usePodCIDRv4, usePodCIDRv6)
		}
	}
	return v4, v6, nil
}
