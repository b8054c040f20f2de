package alloc

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

// Request asks for addresses for one owner.
type Request struct {
	// Handle identifies the owner: asking again for the same handle gives the
	// same addresses.
	Handle string
	// Attrs are kept with the addresses: "pod", "namespace", "type". "node" and
	// "timestamp" are added.
	Attrs map[string]string

	V4, V6           int      // how many addresses of each family, 0 to 4096
	PoolsV4, PoolsV6 []string // names or prefixes of pools; empty: any that fits
	NamespaceLabels  map[string]string

	// Addrs asks for exactly these addresses; V4, V6 and the pools are then
	// not looked at, and reservations do not count.
	Addrs []netip.Addr

	Use model.Use // UseWorkload if empty

	// Chosen, if set, hears of the addresses when they are chosen and before they
	// are stored, so that a caller can work ahead: only when all are new and come
	// from this node's own blocks. It may be called more than once, from any
	// goroutine, with other addresses when a write has met another's; what Assign
	// returns is what counts. It must not block, and is not called after Assign
	// has returned.
	Chosen func([]netip.Addr)
}

// object names the owner in messages.
func (r Request) object() model.Ref {
	if pod := r.Attrs["pod"]; pod != "" {
		return model.Ref{Kind: "Pod", Namespace: r.Attrs["namespace"], Name: pod}
	}
	return model.Ref{Kind: "IPAMHandle", Name: r.Handle}
}

func (r Request) validate() error {
	bad := func(field, detail string, args ...any) error {
		return &ipam.Error{Code: ipam.CodeBadRequest, Object: r.object(), Field: field, Detail: fmt.Sprintf(detail, args...)}
	}
	const most = 4096
	switch {
	case r.Handle == "":
		return bad("handle", "it is empty")
	case len(ipam.HandleName(r.Handle)) > ipam.MaxObjectName:
		return bad("handle", "it is %d bytes long; want at most %d", len(r.Handle), ipam.MaxObjectName)
	case r.V4 < 0 || r.V6 < 0 || r.V4 > most || r.V6 > most:
		return bad("count", "%d and %d addresses are asked for; want 0 to %d of each family", r.V4, r.V6, most)
	case len(r.Addrs) == 0 && r.V4 == 0 && r.V6 == 0:
		return bad("count", "no address is asked for")
	}
	for i, a := range r.Addrs {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" || slices.Contains(r.Addrs[:i], a) {
			return bad("addrs", "%q is not an address, or listed twice", a)
		}
	}
	return nil
}

// attribute is what is written beside the addresses.
func (r Request) attribute(node model.NodeName, now time.Time) ipam.Attribute {
	owner := map[string]string{"node": string(node), "timestamp": now.UTC().String()}
	for k, v := range r.Attrs {
		owner[k] = v
	}
	return ipam.Attribute{Handle: r.Handle, Owner: owner}
}

// query is what the request asks of pools in a family.
func (r Request) query(f model.Family, labels map[string]string) poolQuery {
	q := poolQuery{family: f, use: r.Use, node: labels, namespace: r.NamespaceLabels, wanted: model.OfFamily(f, r.PoolsV4, r.PoolsV6)}
	if q.use == "" {
		q.use = model.UseWorkload
	}
	return q
}

// count is how many addresses of a family are asked for.
func (r Request) count(f model.Family) int { return model.OfFamily(f, r.V4, r.V6) }
