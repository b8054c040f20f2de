package tunnel

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/pkg/reconcile"
)

// peers writes a neighbour entry (tunnel address to MAC) and a forwarding entry
// (MAC to node) for every other node. The forwarding entries come first and go
// last: a neighbour without one has its packets dropped.
func (r *Reconciler) peers(want felix.Tunnel, index int) error {
	wantNeighbours, wantForwards := map[netip.Addr]string{}, map[string]netip.Addr{}
	for _, p := range want.Peers {
		mac, err := net.ParseMAC(p.MAC)
		if err != nil {
			return fmt.Errorf("peer %s: %w", p.Address, err)
		}
		wantNeighbours[p.Address] = string(mac)
		wantForwards[string(mac)] = p.Node
	}
	haveNeighbours, err := r.neighbours(index, want.Address)
	if err != nil {
		return fmt.Errorf("read neighbours: %w", err)
	}
	haveForwards, err := r.forwards(index)
	if err != nil {
		return fmt.Errorf("read forwarding entries: %w", err)
	}
	n := reconcile.Diff(haveNeighbours, wantNeighbours, func(a, b string) bool { return a == b }, netip.Addr.Compare)
	f := reconcile.Diff(haveForwards, wantForwards, func(a, b netip.Addr) bool { return a == b }, strings.Compare)
	var q nl.Requests
	for _, e := range append(f.Add, f.Change...) {
		forward(&q, "add", unix.RTM_NEWNEIGH, nl.Replace, index, e.Key, e.Value)
	}
	for _, e := range append(n.Add, n.Change...) {
		q.Neighbour(index, e.Key, net.HardwareAddr(e.Value))
	}
	for _, e := range n.Remove {
		q.DeleteNeighbour(index, e.Key)
	}
	for _, e := range f.Remove {
		forward(&q, "delete", unix.RTM_DELNEIGH, 0, index, e.Key, e.Value)
	}
	if q.Len() == 0 {
		return nil
	}
	return q.Do(r.conn)
}

func forward(q *nl.Requests, verb string, kind, flags uint16, index int, mac string, node netip.Addr) {
	q.Name(fmt.Sprintf("%s forwarding entry %s", verb, net.HardwareAddr(mac)), kind, flags, func(b []byte) []byte {
		b = append(b, unix.AF_BRIDGE, 0, 0, 0)
		b = binary.NativeEndian.AppendUint32(b, uint32(index))
		b = binary.NativeEndian.AppendUint16(b, unix.NUD_PERMANENT|unix.NUD_NOARP)
		b = append(b, unix.NTF_SELF, 0)
		b = nl.AppendAttr(b, unix.NDA_LLADDR, []byte(mac))
		return nl.AppendAttr(b, unix.NDA_DST, node.AsSlice())
	})
}

// neighbours are the permanent entries on a link of the family of own.
func (r *Reconciler) neighbours(index int, own netip.Addr) (map[netip.Addr]string, error) {
	out := map[netip.Addr]string{}
	err := r.readEntries(nl.Family(own), index, func() { clear(out) }, func(b []byte, dst netip.Addr, mac []byte) {
		if state := binary.NativeEndian.Uint16(b[8:]); state&unix.NUD_PERMANENT != 0 && dst.IsValid() {
			out[dst] = string(mac)
		}
	})
	return out, err
}

// forwards are the entries of the device's forwarding table.
func (r *Reconciler) forwards(index int) (map[string]netip.Addr, error) {
	out := map[string]netip.Addr{}
	err := r.readEntries(unix.AF_BRIDGE, index, func() { clear(out) }, func(b []byte, dst netip.Addr, mac []byte) {
		if dst.IsValid() {
			out[string(mac)] = dst
		}
	})
	return out, err
}

const sizeofNdMsg = 12

func (r *Reconciler) readEntries(family byte, index int, reset func(), each func(b []byte, dst netip.Addr, mac []byte)) error {
	req := nl.AppendHeader(nil, unix.RTM_GETNEIGH, unix.NLM_F_DUMP)
	nd := make([]byte, sizeofNdMsg)
	nd[0] = family
	if family == unix.AF_BRIDGE {
		binary.NativeEndian.PutUint32(nd[4:], uint32(index))
		req = append(req, nd...)
	} else {
		req = nl.AppendAttr32(append(req, nd...), unix.NDA_IFINDEX, uint32(index))
	}
	req = nl.EndMessage(req, 0)
	return r.conn.Dump(req, reset, func(m nl.Message) {
		if len(m.Data) < sizeofNdMsg || int(nl.Uint32(m.Data[4:])) != index || m.Data[0] != family {
			return
		}
		var dst netip.Addr
		var mac []byte
		nl.Attrs(m.Data[sizeofNdMsg:], func(kind uint16, data []byte) {
			switch kind {
			case unix.NDA_DST:
				dst, _ = netip.AddrFromSlice(data)
			case unix.NDA_LLADDR:
				mac = data
			}
		})
		if len(mac) == 6 {
			each(m.Data, dst, mac)
		}
	})
}
