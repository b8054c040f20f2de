package app

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/explain"
	"github.com/muslin-net/muslin/cmd/muslinctl/ipamview"
	"github.com/muslin-net/muslin/felix/nodeview"
	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/model"
)

func (t *Tool) policy() *cobra.Command {
	return group("policy", "Understand network policy", "Understand network policy: what decides about a connection, out of all tiers and policies, and what was denied.", t.policyDenied(), t.policyExplain())
}

func (t *Tool) policyExplain() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "explain SOURCE DESTINATION [PORT[/PROTOCOL]]",
		Short: "Say which policy allows or drops a connection",
		Long: `Say which tier, policy and rule decides about the first packet of a connection:
at the pod that sends it (egress), and at the pod that receives it (ingress). Both
have to allow. It is decided from the objects as the agents do it; where the agent
of a pod's node answers, it is said whether the kernel there was told the same.

SOURCE and DESTINATION are pods, [NAMESPACE/]NAME, or addresses, also such as are
outside the cluster. A connection to a Service is judged by the pod behind it: give
that. PROTOCOL is tcp (default), udp or sctp. Without PORT it is an ICMP echo.

The exit code is 4 when the connection is dropped, or a kernel was told something
else.`,
		Example: `  muslinctl policy explain shop/web-0 shop/db-0 5432
  muslinctl policy explain shop/web-0 kube-system/coredns-7c 53/udp
  muslinctl policy explain 192.0.2.10 shop/web-0 443 -o json`,
		Args: usage(cobra.RangeArgs(2, 3)),
		RunE: func(c *cobra.Command, args []string) error { return t.runPolicyExplain(c.Context(), args, format) },
	}
	c.Flags().StringVarP(&format, "output", "o", "", "json")
	return c
}

func (t *Tool) runPolicyExplain(ctx context.Context, args []string, format string) error {
	k, err := packetOf(args[2:])
	if err != nil {
		return err
	}
	s, err := t.surveyor()
	if err != nil {
		return err
	}
	v := &ipamview.Survey{Pods: map[netip.Addr]ipamview.Pod{}, Nodes: map[model.NodeName]ipamview.Node{}}
	if err := errors.Join(s.pods(ctx, v), s.nodes(ctx, v)); err != nil {
		return err
	}
	from, to, err := t.ends(v, args[0], args[1])
	if err != nil {
		return err
	}
	e, err := s.explainer(ctx, v)
	if err != nil {
		return err
	}
	w, err := e.policy()
	if err != nil {
		return err
	}
	for _, c := range w.CIDRs {
		if c.CIDR.Contains(to.Addr) {
			return api.Usagef("%s is the address of a Service: ask for a pod behind it", to.Addr)
		}
	}
	if k.Protocol == 0 {
		k = explain.Echo(from.Addr, to.Addr)
	}
	k.Source, k.Destination = from.Addr, to.Addr
	story := explain.TellPolicy(explain.Evaluate(w.View, w.Nodes, from, to), k, func(n model.NodeName) (*nodeview.View, string) { return e.view(ctx, n) })
	if err := t.writeStories([]explain.Story{story}, format); err != nil {
		return err
	}
	switch story.Broken {
	case "":
		return nil
	case explain.PolicyDenies:
		return &FindingsError{args[0] + " to " + args[1] + ": dropped by network policy"}
	}
	return &FindingsError{args[0] + " to " + args[1] + ": a kernel was told something else than the objects say"}
}

// packetOf reads PORT[/PROTOCOL]; without it Protocol is 0. The source port is one
// out of those that are used for connections.
func packetOf(args []string) (policy.Packet, error) {
	if len(args) == 0 {
		return policy.Packet{}, nil
	}
	number, name, given := strings.Cut(args[0], "/")
	port, err := strconv.ParseUint(number, 10, 16)
	if !given {
		name = "tcp"
	}
	protocol := map[string]uint8{"tcp": 6, "udp": 17, "sctp": 132}[strings.ToLower(name)]
	if err != nil || port == 0 || protocol == 0 {
		return policy.Packet{}, api.Usagef("%q: want a port from 1 to 65535, and /tcp, /udp or /sctp or nothing behind it", args[0])
	}
	return policy.Packet{Protocol: protocol, SourcePort: 49152, DestinationPort: uint16(port)}, nil
}

// ends finds both ends, by addresses of one family; IPv4 comes first.
func (t *Tool) ends(v *ipamview.Survey, source, destination string) (from, to explain.End, err error) {
	var ends [2][]netip.Addr
	for i, target := range []string{source, destination} {
		if a, err := netip.ParseAddr(target); err == nil {
			ends[i] = []netip.Addr{a.Unmap()}
		} else if ends[i] = podAddrs(v, target, t.flags.Namespace); len(ends[i]) == 0 {
			return from, to, api.Usagef("%q is neither an address nor a running pod with one of its own (-n NAMESPACE, or NAMESPACE/POD)", target)
		}
	}
	for _, a := range ends[0] {
		for _, b := range ends[1] {
			if a.Is4() == b.Is4() {
				return endOf(v, a), endOf(v, b), nil
			}
		}
	}
	return from, to, api.Usagef("%s and %s have no IP version in common", source, destination)
}

func endOf(v *ipamview.Survey, a netip.Addr) explain.End {
	if p, ok := v.Pods[a]; ok {
		return explain.End{Addr: a, Pod: podOf(p)}
	}
	return explain.End{Addr: a}
}
