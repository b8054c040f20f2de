package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/pkg/model"
)

// vxlan is what of a VXLAN device cannot be changed while it exists.
type vxlan struct {
	vni, port, parent int
	local             netip.Addr
	learning, other   bool // other: no VXLAN device at all
}

func (v vxlan) is(want felix.Tunnel) bool {
	return v == vxlan{vni: want.VNI, port: want.Port, parent: want.Parent, local: want.Local}
}

// otherNetwork says that another device, as wanted, can be beside this one: the
// kernel has one for a VNI and a port.
func (v vxlan) otherNetwork(want felix.Tunnel) bool {
	return !v.other && (v.vni != want.VNI || v.port != want.Port)
}

func (r *Reconciler) readVXLAN(name string) (vxlan, error) {
	b, err := r.conn.Get(unix.RTM_GETLINK, func(b []byte) []byte {
		return nl.AppendAttr(nl.LinkHeader(b, 0, 0, 0), unix.IFLA_IFNAME, append([]byte(name), 0))
	})
	out := vxlan{other: true}
	if err != nil {
		return out, err
	}
	nl.Attrs(b[unix.SizeofIfInfomsg:], func(kind uint16, data []byte) {
		if kind != unix.IFLA_LINKINFO {
			return
		}
		nl.Attrs(data, func(kind uint16, data []byte) {
			switch kind {
			case unix.IFLA_INFO_KIND:
				out.other = string(data) != "vxlan\x00"
			case unix.IFLA_INFO_DATA:
				nl.Attrs(data, out.attribute)
			}
		})
	})
	return out, nil
}

func (v *vxlan) attribute(kind uint16, data []byte) {
	switch kind {
	case unix.IFLA_VXLAN_ID:
		v.vni = int(nl.Uint32(data))
	case unix.IFLA_VXLAN_LINK:
		v.parent = int(nl.Uint32(data))
	case unix.IFLA_VXLAN_PORT:
		v.port = int(binary.BigEndian.Uint16(data))
	case unix.IFLA_VXLAN_LEARNING:
		v.learning = data[0] != 0
	case unix.IFLA_VXLAN_LOCAL, unix.IFLA_VXLAN_LOCAL6:
		v.local, _ = netip.AddrFromSlice(data)
	}
}

// succeed brings a device to another VNI or port without losing a packet: its
// successor is made beside it and takes packets, while the device itself goes on
// sending; once the other nodes had time to make theirs, the heir gets the
// device's name, and with the name the routes, as they are written anew. The
// device stays as the predecessor for as long as any device that is no longer
// wanted, and takes what nodes still send that heard of the change later.
func (r *Reconciler) succeed(want felix.Tunnel, have model.Link) error {
	next := want
	next.Name = felix.NextDevice(want.Name)
	successor, err := r.successor(next)
	if err != nil {
		return fmt.Errorf("%s: %w", next.Name, err)
	}
	if err := errors.Join(r.fill(next, successor), r.fill(want, have)); err != nil {
		return err
	}
	since, waits := r.successors[next.Name]
	if !waits {
		since = time.Now()
		r.successors[next.Name] = since
		r.log.Info("tunnel device changes its network", "device", want.Name, "vni", want.VNI, "port", want.Port, "in", r.overlap)
	}
	r.later()
	if time.Since(since) < r.overlap {
		return nil
	}
	_, err = r.conn.GetLink(felix.PreviousDevice(want.Name))
	if !errors.Is(err, unix.ENODEV) { // of an earlier change: this one waits until it is gone
		return err
	}
	if err := r.rename(have.Index, felix.PreviousDevice(want.Name)); err != nil {
		return err
	}
	return r.inherit(want, successor)
}

// successor makes the device that is to come, unless it is there.
func (r *Reconciler) successor(next felix.Tunnel) (model.Link, error) {
	have, err := r.conn.GetLink(next.Name)
	if err == nil {
		var got vxlan
		if got, err = r.readVXLAN(next.Name); err != nil || got.is(next) {
			return have, err
		}
		err = r.replace(have)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return have, err
	}
	delete(r.successors, next.Name)
	return r.create(next)
}

// inherit gives the heir the name of its device, which nothing has.
func (r *Reconciler) inherit(want felix.Tunnel, successor model.Link) error {
	delete(r.successors, felix.NextDevice(want.Name))
	r.log.Info("tunnel device has another network", "device", want.Name, "vni", want.VNI, "port", want.Port)
	r.later() // what a kernel took away that renames only what is down
	return r.rename(successor.Index, want.Name)
}

// rename gives a link another name. Kernels before 6.2 do that only while it is
// down, which costs the packets of that moment.
func (r *Reconciler) rename(index int, name string) error {
	name0 := append([]byte(name), 0)
	var alive, dead nl.Requests
	alive.Name("rename to "+name, unix.RTM_NEWLINK, 0, func(b []byte) []byte {
		return nl.AppendAttr(nl.LinkHeader(b, index, 0, 0), unix.IFLA_IFNAME, name0)
	})
	err := alive.Do(r.conn)
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	dead.Name("set down", unix.RTM_NEWLINK, 0, func(b []byte) []byte { return nl.LinkHeader(b, index, 0, unix.IFF_UP) })
	dead.Name("rename to "+name, unix.RTM_NEWLINK, 0, func(b []byte) []byte {
		return nl.AppendAttr(nl.LinkHeader(b, index, 0, 0), unix.IFLA_IFNAME, name0)
	})
	dead.Up(index)
	return dead.Do(r.conn)
}

// later has Run hint again soon.
func (r *Reconciler) later() {
	r.mu.Lock()
	r.wait = true
	r.mu.Unlock()
}
