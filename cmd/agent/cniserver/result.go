package cniserver

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// The next hops that a pod uses, Calico's. No interface has the IPv4 one: the
// host's side answers for it. The IPv6 one is the link-local address that goes
// with the host side's fixed hardware address.
var (
	gatewayV4 = netip.MustParseAddr("169.254.1.1")
	gatewayV6 = netip.MustParseAddr("fe80::ecee:eeff:feee:eeee")
)

// result makes the answer to ADD, in the version that the configuration asks
// for, appended to what plugins before this one answered.
func result(a attachment, addrs []netip.Addr, w InterfaceResult) ([]byte, error) {
	r := &types100.Result{CNIVersion: types100.ImplementedSpecVersion}
	if a.previous != nil {
		r = a.previous
	}
	if a.version != "1.1.0" {
		w.MTU = 0 // the field came with 1.1.0; the conversion to 1.0.0 leaves it in
	}
	pod := len(r.Interfaces) + 1
	r.Interfaces = append(r.Interfaces,
		&types100.Interface{Name: a.hostInterface, Mac: w.HostMAC, Mtu: w.MTU},
		&types100.Interface{Name: a.ifname, Mac: w.MAC, Mtu: w.MTU, Sandbox: a.netns})
	for _, addr := range addrs {
		gateway, everything := gatewayV4, "0.0.0.0/0"
		if addr.Is6() {
			gateway, everything = gatewayV6, "::/0"
		}
		_, dst, err := net.ParseCIDR(everything)
		if err != nil {
			return nil, err
		}
		mask := net.CIDRMask(addr.BitLen(), addr.BitLen())
		r.IPs = append(r.IPs, &types100.IPConfig{
			Interface: types100.Int(pod), Address: net.IPNet{IP: addr.AsSlice(), Mask: mask}, Gateway: gateway.AsSlice(),
		})
		r.Routes = append(r.Routes, &types.Route{Dst: *dst, GW: gateway.AsSlice()})
	}
	if r.DNS.IsEmpty() {
		r.DNS = a.dns
	}
	return encode(r, a.version)
}

func encode(r *types100.Result, version string) ([]byte, error) {
	as, err := r.GetAsVersion(version)
	if err != nil {
		return nil, types.NewError(types.ErrIncompatibleCNIVersion, fmt.Sprintf("result in cniVersion %q: %v", version, err), "")
	}
	var b bytes.Buffer
	if err := as.PrintTo(&b); err != nil {
		return nil, fmt.Errorf("encode result: %w", err)
	}
	return b.Bytes(), nil
}
