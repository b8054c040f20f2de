package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/pkg/model"
)

// ensure makes or corrects a device. What is as it should be is not touched.
func (r *Reconciler) ensure(want felix.Tunnel, have model.Link, there bool) error {
	if there && want.Kind == felix.VXLAN {
		got, err := r.readVXLAN(want.Name)
		switch {
		case err != nil:
			return err
		case got.is(want):
			delete(r.successors, felix.NextDevice(want.Name))
		case got.otherNetwork(want):
			return r.succeed(want, have)
		default:
			if err := r.replace(have); err != nil {
				return err
			}
			there = false
		}
	}
	if !there {
		var err error
		if have, err = r.absent(want); err != nil {
			return err
		}
	}
	return r.fill(want, have)
}

// absent makes a device, or gives its name to the heir that was about to have it
// when an earlier process ended.
func (r *Reconciler) absent(want felix.Tunnel) (model.Link, error) {
	if want.Kind == felix.VXLAN {
		successor, err := r.conn.GetLink(felix.NextDevice(want.Name))
		if err == nil && successor.Alias == alias {
			if got, err := r.readVXLAN(successor.Name); err == nil && got.is(want) {
				return successor, r.inherit(want, successor)
			}
		}
	}
	return r.create(want)
}

// replace deletes a device of which nothing can be changed while it exists.
func (r *Reconciler) replace(have model.Link) error {
	r.log.Info("tunnel device is replaced: its parameters changed", "device", have.Name)
	return r.delete(have.Index)
}

// fill gives a device all that it has to have.
func (r *Reconciler) fill(want felix.Tunnel, have model.Link) error {
	r.mu.Lock()
	r.ours[have.Index] = true
	r.mu.Unlock()
	if err := r.configure(want, have); err != nil {
		return err
	}
	if want.Kind == felix.VXLAN {
		return r.peers(want, have.Index)
	}
	return nil
}

func (r *Reconciler) create(want felix.Tunnel) (model.Link, error) {
	if err := r.makeDevice(want); err != nil {
		return model.Link{}, err
	}
	r.log.Info("tunnel device created", "device", want.Name)
	return r.conn.GetLink(want.Name)
}

func (r *Reconciler) makeDevice(want felix.Tunnel) error {
	var q nl.Requests
	q.Name("create", unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, func(b []byte) []byte {
		b = nl.LinkHeader(b, 0, 0, 0)
		b = nl.AppendAttr(b, unix.IFLA_IFNAME, append([]byte(want.Name), 0))
		b, info := nl.BeginNested(b, unix.IFLA_LINKINFO)
		if want.Kind == felix.IPIP {
			b = nl.AppendAttr(b, unix.IFLA_INFO_KIND, []byte("ipip"))
			return nl.EndNested(b, info)
		}
		b = nl.AppendAttr(b, unix.IFLA_INFO_KIND, []byte("vxlan"))
		b, data := nl.BeginNested(b, unix.IFLA_INFO_DATA)
		b = nl.AppendAttr32(b, unix.IFLA_VXLAN_ID, uint32(want.VNI))
		b = nl.AppendAttr32(b, unix.IFLA_VXLAN_LINK, uint32(want.Parent))
		b = nl.AppendAttr(b, localAttr(want.Local), want.Local.AsSlice())
		b = nl.AppendAttr(b, unix.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, uint16(want.Port)))
		b = nl.AppendAttr(b, unix.IFLA_VXLAN_LEARNING, []byte{0})
		return nl.EndNested(nl.EndNested(b, data), info)
	})
	err := q.Do(r.conn)
	// Asking for an ipip device loads the module, and tunl0 comes with it.
	if want.Kind == felix.IPIP && errors.Is(err, unix.EEXIST) {
		return nil
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%w: the kernel has no such kind of device", err)
	}
	return err
}

func localAttr(a netip.Addr) uint16 {
	if a.Is4() {
		return unix.IFLA_VXLAN_LOCAL
	}
	return unix.IFLA_VXLAN_LOCAL6
}

// configure sets what can be changed while packets flow.
func (r *Reconciler) configure(want felix.Tunnel, have model.Link) error {
	var q nl.Requests
	if have.Alias != alias {
		q.Name("set alias", unix.RTM_NEWLINK, 0, func(b []byte) []byte {
			return nl.AppendAttr(nl.LinkHeader(b, have.Index, 0, 0), unix.IFLA_IFALIAS, []byte(alias))
		})
		// While a pool's encapsulation changes, packets come by one way and
		// are answered by the other.
		q.Settings(have.Index, map[uint16]uint32{nl.ConfRPFilter: 2})
		if want.Address.Is6() {
			q.NoAutoLinkLocal(have.Index)
		}
	}
	if want.MTU > 0 && have.MTU != want.MTU {
		q.Name("set mtu", unix.RTM_NEWLINK, 0, func(b []byte) []byte {
			return nl.AppendAttr32(nl.LinkHeader(b, have.Index, 0, 0), unix.IFLA_MTU, uint32(want.MTU))
		})
	}
	if mac, err := net.ParseMAC(want.MAC); err == nil && have.MAC != mac.String() {
		q.Name("set hardware address", unix.RTM_NEWLINK, 0, func(b []byte) []byte {
			return nl.AppendAttr(nl.LinkHeader(b, have.Index, 0, 0), unix.IFLA_ADDRESS, mac)
		})
	}
	if err := r.address(&q, have.Index, want.Address); err != nil {
		return err
	}
	if !have.AdminUp {
		q.Up(have.Index)
	}
	return q.Do(r.conn)
}

// address gives the device want, and takes every other address but link-local
// ones.
func (r *Reconciler) address(q *nl.Requests, index int, want netip.Addr) error {
	var have []netip.Prefix
	err := r.conn.DumpAll(unix.RTM_GETADDR, unix.SizeofIfAddrmsg, func() { have = nil }, func(b []byte) {
		if p := nl.ParseAddress(b); int(nl.Uint32(b[4:])) == index && !p.Addr().IsLinkLocalUnicast() {
			have = append(have, p)
		}
	})
	if err != nil {
		return err
	}
	found := false
	for _, p := range have {
		if p.Addr() == want && p.IsSingleIP() {
			found = true
		}
	}
	if !found && want.IsValid() {
		q.Address(index, want)
	}
	for _, p := range have {
		if p.Addr() != want || !p.IsSingleIP() {
			q.DeleteAddress(index, p)
		}
	}
	return nil
}

// retire deletes a device once nothing goes over it any more.
func (r *Reconciler) retire(have model.Link) error {
	since, ok := r.unwanted[have.Name]
	if !ok {
		since = time.Now()
		r.unwanted[have.Name] = since
	}
	used, err := r.used(have.Index)
	if err != nil {
		return err
	}
	if used || time.Since(since) < r.grace {
		r.later()
		return nil
	}
	delete(r.unwanted, have.Name)
	r.log.Info("tunnel device is no longer wanted", "device", have.Name)
	return r.discard(have)
}

// discard takes away what can be taken away of a device.
func (r *Reconciler) discard(have model.Link) error {
	if have.Name != felix.IPIPDevice {
		return r.delete(have.Index)
	}
	var q nl.Requests
	if err := r.address(&q, have.Index, netip.Addr{}); err != nil {
		return err
	}
	q.Name("set down", unix.RTM_NEWLINK, 0, func(b []byte) []byte {
		return nl.AppendAttr(nl.LinkHeader(b, have.Index, 0, unix.IFF_UP), unix.IFLA_IFALIAS, nil)
	})
	return q.Do(r.conn)
}

// used reports whether a route of ours goes over the link.
func (r *Reconciler) used(index int) (bool, error) {
	used := false
	for _, fam := range []byte{unix.AF_INET, unix.AF_INET6} {
		req := nl.AppendHeader(nil, unix.RTM_GETROUTE, unix.NLM_F_DUMP)
		req = append(req, fam, 0, 0, 0, unix.RT_TABLE_MAIN, model.RouteProtocol, 0, 0, 0, 0, 0, 0)
		req = nl.EndMessage(nl.AppendAttr32(req, unix.RTA_OIF, uint32(index)), 0)
		err := r.conn.Dump(req, func() {}, func(m nl.Message) {
			rt, h, ok := nl.ParseRoute(m.Data)
			for _, hop := range rt.NextHops {
				used = used || ok && h.Protocol == model.RouteProtocol && hop.Link == index
			}
		})
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return false, fmt.Errorf("read routes: %w", err)
		}
	}
	return used, nil
}

func (r *Reconciler) delete(index int) error {
	var q nl.Requests
	q.Name("delete", unix.RTM_DELLINK, 0, func(b []byte) []byte { return nl.LinkHeader(b, index, 0, 0) })
	r.mu.Lock()
	delete(r.ours, index)
	r.mu.Unlock()
	if err := q.Do(r.conn); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}
