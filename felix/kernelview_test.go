package felix_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/pkg/model"
)

// kernelView reads all that is ours in a node's kernel, without starting a
// process, so that a repair can be timed.
type kernelView struct {
	ns   *nl.NS
	conn *nl.Conn
}

func newKernelView(t testing.TB, path string) *kernelView {
	t.Helper()
	ns, err := nl.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := nl.Dial(ns, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); ns.Close() })
	return &kernelView{ns, conn}
}

// snapshot is our routes, our tunnels with all that is on them, and our table,
// as text that is the same for the same state.
func (x *node) snapshot() string {
	v := x.view
	lines, err := v.links()
	if err == nil {
		var more []string
		more, err = v.routes()
		lines = append(lines, more...)
	}
	if err == nil {
		var more []string
		more, err = v.table()
		lines = append(lines, more...)
	}
	if err != nil {
		return "cannot be read: " + err.Error() // as in the middle of a change
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (v *kernelView) links() ([]string, error) {
	names := map[int]string{}
	var lines []string
	ours := func(name string) bool { return strings.HasPrefix(name, "vxlan") || strings.HasPrefix(name, "cali") }
	err := v.conn.DumpAll(unix.RTM_GETLINK, unix.SizeofIfInfomsg, func() { clear(names) }, func(b []byte) {
		l := nl.ParseLink(b)
		if names[l.Index] = l.Name; ours(l.Name) {
			lines = append(lines, fmt.Sprintf("link %s up %t mtu %d %s %s", l.Name, l.AdminUp, l.MTU, l.MAC, l.Alias))
		}
	})
	if err != nil {
		return nil, err
	}
	err = v.conn.DumpAll(unix.RTM_GETADDR, unix.SizeofIfAddrmsg, func() {}, func(b []byte) {
		name := names[int(nl.Uint32(b[4:]))]
		if p := nl.ParseAddress(b); ours(name) && (!p.Addr().IsLinkLocalUnicast() || p.Addr() == felix.PodGateway6) {
			lines = append(lines, "address "+p.String()+" "+name)
		}
	})
	if err != nil {
		return nil, err
	}
	const ndmsg = 12
	err = v.conn.DumpAll(unix.RTM_GETNEIGH, ndmsg, func() {}, func(b []byte) {
		name := names[int(nl.Uint32(b[4:]))]
		if !ours(name) || b[8]&unix.NUD_PERMANENT == 0 || b[10] == unix.RTN_MULTICAST {
			return
		}
		line := "neighbour " + name
		nl.Attrs(b[ndmsg:], func(kind uint16, data []byte) {
			if kind == unix.NDA_DST || kind == unix.NDA_LLADDR {
				line += fmt.Sprintf(" %x", data)
			}
		})
		lines = append(lines, line)
	})
	return lines, err
}

func (v *kernelView) routes() ([]string, error) {
	var lines []string
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		req := nl.AppendHeader(nil, unix.RTM_GETROUTE, unix.NLM_F_DUMP)
		req = append(req, family, 0, 0, 0, unix.RT_TABLE_MAIN, model.RouteProtocol, 0, 0, 0, 0, 0, 0)
		err := v.conn.Dump(nl.EndMessage(req, 0), func() {}, func(m nl.Message) {
			if r, h, ok := nl.ParseRoute(m.Data); ok && h.Protocol == model.RouteProtocol {
				for i := range r.NextHops {
					if r.NextHops[i].OnLink { // a tunnel that is made anew has another index
						r.NextHops[i].Link = 0
					}
					if r.Prefix.IsSingleIP() && r.Prefix.Addr().Is6() && !r.LinkScope {
						r.NextHops[i].Link = 0 // the other end of the tunnel
					}
				}
				lines = append(lines, "route "+r.String())
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return lines, nil
}

func (v *kernelView) table() ([]string, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(v.ns.FD()))
	if err != nil {
		return nil, err
	}
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, c := range chains {
		if c.Table.Name != felix.TableName {
			continue
		}
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			return nil, err
		}
		for i, r := range rules {
			lines = append(lines, fmt.Sprintf("rule %s %d %x", c.Name, i, r.UserData))
		}
	}
	table := &nftables.Table{Name: felix.TableName, Family: nftables.TableFamilyINet}
	sets, err := conn.GetSets(table)
	if err != nil {
		return nil, err
	}
	for _, s := range sets {
		elements, err := conn.GetSetElements(s)
		if err != nil {
			return nil, err
		}
		for _, e := range elements {
			lines = append(lines, fmt.Sprintf("element %s %x %x %t", s.Name, e.Key, e.KeyEnd, e.IntervalEnd))
		}
	}
	return lines, nil
}
