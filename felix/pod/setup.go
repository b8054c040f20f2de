package pod

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nl"
)

func (s Spec) families() (v4, v6 bool) {
	for _, a := range s.Addresses {
		v4, v6 = v4 || a.Is4(), v6 || a.Is6()
	}
	return v4, v6
}

// setHost sets the node's end up.
func (p *Plugger) setHost(s Spec, index int) error {
	_, v6 := s.families()
	alias, err := s.alias()
	if err != nil {
		return err
	}
	if v6 {
		if err := p.enableIPv6(p.ns, s.HostInterface); err != nil {
			return err
		}
	}
	// Before it is up: the pod must not be a router to the node for a moment.
	if err := p.ns.IgnoreRouters(p.procSys, s.HostInterface); err != nil {
		return err
	}
	var r nl.Requests
	r.Name("set alias", unix.RTM_NEWLINK, 0, func(b []byte) []byte {
		return nl.AppendAttr(nl.LinkHeader(b, index, 0, 0), unix.IFLA_IFALIAS, []byte(alias))
	})
	// proxy_arp answers a pod that has lost its neighbour entry; redirects
	// would tell a pod that talks to itself through a service not to. Reverse path
	// filtering is strict for ARP too: nobody is noted who asks in another's name.
	r.Settings(index, map[uint16]uint32{nl.ConfForwarding: 1, nl.ConfProxyARP: 1, nl.ConfSendRedirects: 0, nl.ConfAcceptRedirects: 0, nl.ConfRPFilter: 1})
	r.NoProxyDelay(index)
	if v6 {
		r.NoAutoLinkLocal(index)
		r.Address(index, Gateway6)
	}
	r.Up(index)
	// The pod's hardware address is known: nobody has to ask, and the entries
	// do not count against the machine's limit (gc_thresh3).
	for _, a := range s.Addresses {
		r.Neighbour(index, a, s.mac())
	}
	if err := r.Do(p.conn); err != nil {
		return fmt.Errorf("set up link %s: %w", s.HostInterface, err)
	}
	return nil
}

// setPod sets the pod's end up: all of it in one send.
func (p *Plugger) setPod(s Spec, inside *podSide) error {
	link, err := inside.conn.GetLink(s.Interface)
	if err != nil {
		return err
	}
	v4, v6 := s.families()
	if v6 {
		if err := p.enableIPv6(inside.ns, s.Interface); err != nil {
			return err
		}
	}
	forwarding := uint32(0)
	if s.Forwarding {
		forwarding = 1
	}
	var r nl.Requests
	r.Settings(link.Index, map[uint16]uint32{nl.ConfForwarding: forwarding})
	if v6 {
		r.NoAutoLinkLocal(link.Index)
		r.Address(link.Index, nl.LinkLocal(s.mac()))
	}
	for _, a := range s.Addresses {
		r.Address(link.Index, a)
	}
	r.Up(link.Index)
	if v4 {
		r.Neighbour(link.Index, Gateway4, HostMAC)
		addRoute(&r, link.Index, netip.PrefixFrom(Gateway4, 32), netip.Addr{})
		addRoute(&r, link.Index, netip.PrefixFrom(netip.IPv4Unspecified(), 0), Gateway4)
	}
	if v6 {
		r.Neighbour(link.Index, Gateway6, HostMAC)
		addRoute(&r, link.Index, netip.PrefixFrom(netip.IPv6Unspecified(), 0), Gateway6)
	}
	if err := r.Do(inside.conn); err != nil {
		return fmt.Errorf("set up link %s in the pod: %w", s.Interface, err)
	}
	return nil
}

// enableIPv6 turns IPv6 on for a link in a namespace whose default is off. The
// file is read first: in most places there is nothing to do and no right to
// write.
func (p *Plugger) enableIPv6(ns *nl.NS, link string) error {
	key := "net/ipv6/conf/" + link + "/disable_ipv6"
	value, err := p.readSysctl(ns, key)
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	if value == "0" {
		return nil
	}
	if err := p.writeSysctl(ns, key, "0"); err != nil {
		return fmt.Errorf("enable IPv6 on link %s: %w", link, err)
	}
	return nil
}

// Check verifies that a pod is plugged in as s says: both links, the addresses
// and the default routes. The error names everything that is wrong.
func (p *Plugger) Check(ctx context.Context, s Spec) error {
	if err := errors.Join(s.valid(), ctx.Err()); err != nil {
		return fmt.Errorf("check pod %s: %w", s, err)
	}
	inside, err := p.enter(s.NetNS)
	if err != nil {
		return fmt.Errorf("check pod %s: %w", s, err)
	}
	defer inside.Close()
	mac, err := p.checkHost(s)
	if err := errors.Join(err, checkPod(s, mac, inside)); err != nil {
		return fmt.Errorf("check pod %s: %w", s, err)
	}
	return nil
}

// checkHost returns the hardware address that the node knows the pod by; empty
// where it does not.
func (p *Plugger) checkHost(s Spec) (mac string, err error) {
	l, err := p.conn.GetLink(s.HostInterface)
	if err != nil {
		return "", err
	}
	e, ours := parseAlias(l.Alias, l.Name)
	switch {
	case !ours || e.ContainerID != s.ContainerID || e.Interface != s.Interface:
		return "", fmt.Errorf("link %s belongs to %q", l.Name, l.Alias)
	case !slices.Equal(e.Addresses, s.Addresses):
		err = fmt.Errorf("link %s is set up for addresses %v, not %v", l.Name, e.Addresses, s.Addresses)
	case !l.AdminUp:
		err = fmt.Errorf("link %s is down", l.Name)
	}
	return e.MAC, err
}

func checkPod(s Spec, mac string, inside *podSide) error {
	l, err := inside.conn.GetLink(s.Interface)
	if err != nil {
		return fmt.Errorf("in the pod: %w", err)
	}
	var errs []error
	if !l.AdminUp {
		errs = append(errs, fmt.Errorf("in the pod: link %s is down", l.Name))
	}
	if mac != "" && l.MAC != mac {
		errs = append(errs, fmt.Errorf("in the pod: link %s has hardware address %s, and the node sends to %s: a plugin that comes after this one, or the pod, changed it; "+
			"ask for it by the annotation cni.projectcalico.org/hwAddr instead", l.Name, l.MAC, mac))
	}
	have := map[netip.Addr]bool{}
	gateways := map[netip.Addr]bool{}
	err = errors.Join(
		inside.conn.DumpAll(unix.RTM_GETADDR, unix.SizeofIfAddrmsg, func() { clear(have) }, func(b []byte) {
			if int(nl.Uint32(b[4:])) == l.Index {
				have[nl.ParseAddress(b).Addr()] = true
			}
		}),
		inside.conn.DumpAll(unix.RTM_GETROUTE, unix.SizeofRtMsg, func() { clear(gateways) }, func(b []byte) {
			rt, _, ok := nl.ParseRoute(b)
			if ok && rt.Prefix.Bits() == 0 && len(rt.NextHops) == 1 && rt.NextHops[0].Link == l.Index {
				gateways[rt.NextHops[0].Gateway] = true
			}
		}))
	if err != nil {
		return err
	}
	for _, a := range s.Addresses {
		if !have[a] {
			errs = append(errs, fmt.Errorf("in the pod: link %s lacks address %s", l.Name, a))
		}
		gateway := Gateway4
		if a.Is6() {
			gateway = Gateway6
		}
		if !gateways[gateway] {
			errs = append(errs, fmt.Errorf("in the pod: no default route via %s dev %s", gateway, l.Name))
		}
	}
	return errors.Join(errs...)
}
