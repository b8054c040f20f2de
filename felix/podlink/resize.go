package podlink

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nl"
)

// resize gives both ends of each pod's link the node's MTU.
func (r *Reconciler) resize(s felix.State, seen map[int]link) error {
	var wrong []felix.PodLink
	for _, p := range s.Pods {
		if have, there := seen[p.Link]; there && p.MTU == 0 && s.MTU.Pod > 0 && have.mtu != s.MTU.Pod && have.elsewhere {
			wrong = append(wrong, p)
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	namespaces, err := r.namespaces()
	defer func() {
		for _, ns := range namespaces {
			ns.Close()
		}
	}()
	if err != nil {
		return err
	}
	var errs []error
	var lost []string
	for _, p := range wrong {
		have := seen[p.Link]
		ns, found := namespaces[have.nsid]
		if !found {
			lost = append(lost, p.Device)
			continue
		}
		if err := r.both(p, have, ns, s.MTU.Pod); err != nil {
			errs = append(errs, fmt.Errorf("set MTU of pod link %s: %w", p.Device, err))
			continue
		}
		r.log.Info("pod link has another MTU", "device", p.Device, "from", have.mtu, "to", s.MTU.Pod)
	}
	if text := strings.Join(lost, " "); text != r.lost {
		if r.lost = text; text != "" {
			r.log.Warn("pods keep their MTU until they start anew: their network namespaces are not found",
				"devices", text, "folders", strings.Join(r.folders, " "))
		}
	}
	return errors.Join(errs...)
}

// both sets the ends in the order in which no end sends what the other does not
// take: the pod decides what is sent, so its end shrinks first and grows last.
func (r *Reconciler) both(p felix.PodLink, have link, ns *nl.NS, mtu int) error {
	conn, err := nl.Dial(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer conn.Close()
	ends := []func() error{
		func() error { return setMTU(conn, have.peer, mtu) },
		func() error { return setMTU(r.conn, p.Link, mtu) },
	}
	if mtu > have.mtu {
		ends[0], ends[1] = ends[1], ends[0]
	}
	for _, set := range ends {
		if err := set(); err != nil && !errors.Is(err, unix.ENODEV) {
			return err
		}
	}
	return nil
}

func setMTU(c *nl.Conn, index, mtu int) error {
	var q nl.Requests
	q.Name("set mtu", unix.RTM_NEWLINK, 0, func(b []byte) []byte {
		return nl.AppendAttr32(nl.LinkHeader(b, index, 0, 0), unix.IFLA_MTU, uint32(mtu))
	})
	return q.Do(c)
}

// namespaces opens the network namespaces in the folders, by the number that
// the node's namespace knows them by.
func (r *Reconciler) namespaces() (map[int32]*nl.NS, error) {
	out := map[int32]*nl.NS{}
	for _, folder := range r.folders {
		entries, err := os.ReadDir(folder)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return out, fmt.Errorf("look for network namespaces: %w", err)
		}
		for _, e := range entries {
			ns, err := nl.Open(filepath.Join(folder, e.Name()))
			if err != nil {
				continue // ended meanwhile, or something else
			}
			id, known := r.number(ns)
			if _, twice := out[id]; !known || twice {
				ns.Close()
				continue
			}
			out[id] = ns
		}
	}
	return out, nil
}

// number is what the node's namespace calls another one (RTM_GETNSID); false
// when it has no name for it.
func (r *Reconciler) number(ns *nl.NS) (int32, bool) {
	const netnsaNSID, netnsaFD = 1, 3
	b, err := r.conn.Get(unix.RTM_GETNSID, func(b []byte) []byte {
		return nl.AppendAttr32(append(b, 0, 0, 0, 0), netnsaFD, uint32(ns.FD())) // struct rtgenmsg, padded
	})
	if err != nil || len(b) < 4 {
		return 0, false
	}
	id := int32(-1)
	nl.Attrs(b[4:], func(kind uint16, data []byte) {
		if kind == netnsaNSID {
			id = int32(nl.Uint32(data))
		}
	})
	return id, id >= 0
}
