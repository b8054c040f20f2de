package policyrelay

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/muslin-net/muslin/felix/policyrelay/relayrpc"
	"github.com/muslin-net/muslin/pkg/model"
)

// member is a pod as it travels: Addresses are those that nobody has a better claim
// to, contests the others.
type member struct {
	model.PolicyPod
	contests []contest
}

// contest is an address that is a pod's only for a node that has all pods with a better
// claim.
type contest struct {
	addr  netip.Addr
	nodes []model.NodeName // sorted
}

// on gives the pod as a node has to see it: what only its own pods contest is for the
// node to decide, which knows whether they have it.
func (m *member) on(node model.NodeName) *model.PolicyPod {
	if len(m.contests) == 0 {
		return &m.PolicyPod
	}
	p := m.PolicyPod
	for _, c := range m.contests {
		if !slices.ContainsFunc(c.nodes, func(n model.NodeName) bool { return n != node }) {
			p.Addresses = append(slices.Clip(p.Addresses), c.addr)
		}
	}
	return &p
}

// buckets are how many parts of a view are compared each by itself.
const buckets = 32

// digest is the sum of what is in a bucket: the sum of the digests of its pods, so
// that it can be kept while pods come and go.
type digest [2]uint64

func (d digest) plus(o digest) digest { return digest{d[0] + o[0], d[1] + o[1]} }

func (d digest) bytes() []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, d[0]), d[1])
}

// sumOf gives the digest of a pod: of all that travels.
func sumOf(m *member) digest {
	var b strings.Builder
	fmt.Fprintf(&b, "%q %q %q %q %d", m.Namespace, m.Name, m.Node, m.ServiceAccount, m.Created.Unix())
	for _, k := range slices.Sorted(maps.Keys(m.Labels)) {
		fmt.Fprintf(&b, " %q=%q", k, m.Labels[k])
	}
	fmt.Fprint(&b, m.Addresses, m.Ports)
	for _, c := range m.contests {
		fmt.Fprintf(&b, "%s%q", c.addr, c.nodes)
	}
	sum := sha256.Sum256([]byte(b.String()))
	return digest{binary.LittleEndian.Uint64(sum[:]), binary.LittleEndian.Uint64(sum[8:])}
}

// podKey is the name of a pod with its namespace.
type podKey struct{ namespace, name string }

func keyOf(p *model.PolicyPod) podKey { return podKey{p.Namespace, p.Name} }

func (k podKey) String() string { return k.namespace + "/" + k.name }

// bucket gives the bucket of a pod, by its name.
func (k podKey) bucket() int {
	sum := sha256.Sum256([]byte(k.String()))
	return int(sum[0] % buckets)
}

// better reports whether p is believed rather than o where both claim an address, as
// felix/policy has it of pods that have no sandbox on its node: whom a block gives it to,
// then the younger.
func better(p, o *model.PolicyPod, addr netip.Addr) bool {
	if a, b := slices.Contains(p.Leased, addr), slices.Contains(o.Leased, addr); a != b {
		return a
	}
	return cmp.Or(p.Created.Compare(o.Created), cmp.Compare(p.Namespace, o.Namespace), cmp.Compare(p.Name, o.Name)) > 0
}

// encoder collects pods for one Response; those of one workload share a Group.
type encoder struct {
	out    *relayrpc.Response
	groups map[string]uint32
}

func newEncoder() *encoder {
	return &encoder{&relayrpc.Response{}, map[string]uint32{}}
}

func (e *encoder) put(m *member, group string) {
	number, have := e.groups[group]
	if !have {
		number = uint32(len(e.out.Groups))
		e.groups[group] = number
		g := &relayrpc.Group{Namespace: m.Namespace, ServiceAccount: m.ServiceAccount, Labels: m.Labels}
		for _, p := range m.Ports {
			g.Ports = append(g.Ports, &relayrpc.Port{Name: p.Name, Protocol: uint32(p.Protocol), Port: uint32(p.Port)})
		}
		e.out.Groups = append(e.out.Groups, g)
	}
	p := &relayrpc.Pod{Group: number, Name: m.Name, Node: string(m.Node), Created: m.Created.Unix()}
	for _, a := range m.Addresses {
		p.Addresses = append(p.Addresses, a.AsSlice())
	}
	for _, c := range m.contests {
		w := &relayrpc.Contest{Address: c.addr.AsSlice()}
		for _, n := range c.nodes {
			w.Nodes = append(w.Nodes, string(n))
		}
		p.Contests = append(p.Contests, w)
	}
	e.out.Put = append(e.out.Put, p)
}

// decode gives the pods of a Response. Those of one group share their labels.
func decode(r *relayrpc.Response) ([]*member, error) {
	ports := make([][]model.NamedPort, len(r.Groups))
	for i, g := range r.Groups {
		for _, p := range g.Ports {
			ports[i] = append(ports[i], model.NamedPort{Name: p.Name, Protocol: uint8(p.Protocol), Port: uint16(p.Port)})
		}
	}
	var out []*member
	for _, p := range r.Put {
		if int(p.Group) >= len(r.Groups) {
			return nil, fmt.Errorf("pod %s is of a group that is not there", p.Name)
		}
		g := r.Groups[p.Group]
		m := &member{PolicyPod: model.PolicyPod{
			Namespace: g.Namespace, Name: p.Name, Node: model.NodeName(p.Node), ServiceAccount: g.ServiceAccount,
			Labels: g.Labels, Ports: ports[p.Group], Created: time.Unix(p.Created, 0),
		}}
		for _, b := range p.Addresses {
			a, ok := netip.AddrFromSlice(b)
			if !ok {
				return nil, fmt.Errorf("pod %s/%s has an address of %d bytes", g.Namespace, p.Name, len(b))
			}
			m.Addresses = append(m.Addresses, a)
		}
		for _, c := range p.Contests {
			a, ok := netip.AddrFromSlice(c.Address)
			if !ok {
				return nil, fmt.Errorf("pod %s/%s has an address of %d bytes", g.Namespace, p.Name, len(c.Address))
			}
			one := contest{addr: a}
			for _, n := range c.Nodes {
				one.nodes = append(one.nodes, model.NodeName(n))
			}
			m.contests = append(m.contests, one)
		}
		out = append(out, m)
	}
	return out, nil
}
