// Package cleanup takes back everything that Muslin put into the kernel of a
// node: the routes, the nftables tables, the tunnel devices and, when asked, the
// pods' links. It is the last thing that is done on a node that leaves Muslin.
//
// It decides nothing and has no footprint of its own: each room below felix
// removes what it recognises as its own, so that an object of anybody else's
// stays. It never runs beside a running agent, which would put everything back;
// whoever calls it sees to that.
//
// Sysctls stay as they are: a value has no owner, and forwarding may have been
// on before. A pod's link stays unless asked for: it goes with its pod anyway.
package cleanup

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/muslin-net/muslin/felix/nft"
	"github.com/muslin-net/muslin/felix/pod"
	"github.com/muslin-net/muslin/felix/policynft"
	"github.com/muslin-net/muslin/felix/route"
	"github.com/muslin-net/muslin/felix/tunnel"
)

// Options say what is to be removed, and where.
type Options struct {
	NetNS string // path of the node's network namespace; empty: the process's own
	// Pods has the links of all pods removed, too: pods that still run lose
	// their network.
	Pods bool
}

// Removed is what was there and is there no more.
type Removed struct {
	Routes  int      // routes of protocol model.RouteProtocol
	Table   bool     // the nftables table "inet muslin"
	Policy  bool     // the nftables table "inet muslin-policy"
	Tunnels []string // names of tunnel devices
	Pods    []string // names of the node's ends of pods' links
	// PodsLeft are links of pods that were not asked for and stay.
	PodsLeft []string
}

// Run removes everything and goes on after an error. It may be repeated: the
// absent is removed already.
func Run(ctx context.Context, o Options) (Removed, error) {
	var out Removed
	var errs [5]error
	// Routes over a tunnel go before the tunnel, so that each is counted.
	out.Routes, errs[0] = route.Remove(ctx, o.NetNS)
	out.Tunnels, errs[1] = tunnel.Remove(o.NetNS)
	out.Table, errs[2] = nft.Remove(o.NetNS)
	out.Policy, errs[4] = policynft.Remove(o.NetNS)
	out.Pods, out.PodsLeft, errs[3] = pods(ctx, o)
	return out, errors.Join(errs[:]...)
}

func pods(ctx context.Context, o Options) (removed, left []string, err error) {
	p, err := pod.New(pod.Options{NetNS: o.NetNS})
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	list, err := p.List(ctx)
	if err != nil {
		return nil, nil, err
	}
	var errs []error
	for _, e := range list {
		if !o.Pods {
			left = append(left, e.HostInterface)
		} else if err := p.Detach(ctx, e.ContainerID, e.Interface, e.HostInterface); err != nil {
			errs = append(errs, err)
		} else {
			removed = append(removed, e.HostInterface)
		}
	}
	return removed, left, errors.Join(errs...)
}

// String has one line for each kind of thing, for people.
func (r Removed) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "routes removed: %d\n", r.Routes)
	fmt.Fprintf(&b, "nftables table inet muslin removed: %t\n", r.Table)
	fmt.Fprintf(&b, "nftables table inet muslin-policy removed: %t\n", r.Policy)
	line := func(what string, names []string) {
		fmt.Fprintf(&b, "%s: %d", what, len(names))
		if len(names) > 0 {
			b.WriteString(" (" + strings.Join(names, ", ") + ")")
		}
		b.WriteByte('\n')
	}
	line("tunnel devices removed", r.Tunnels)
	line("pod links removed", r.Pods)
	if len(r.PodsLeft) > 0 {
		line("pod links left to go with their pods", r.PodsLeft)
	}
	return b.String()
}
