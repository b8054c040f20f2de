package app

import (
	"context"
	"net/netip"
	"time"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// routesInStatus is how many routes of each family a CalicoNodeStatus gets: an
// object has to fit into etcd.
const routesInStatus = 2500

// fillNodeStatuses answers the CalicoNodeStatuses of this node, each at its own
// period. One with period 0 is left alone.
func (a *agent) fillNodeStatuses(ctx context.Context, ready func()) error {
	ready()
	due := map[string]time.Time{}
	requested := map[string]kube.StatusRequest{}
	task.Loop(ctx, func(ctx context.Context) task.Next {
		return task.Next{After: a.answerDue(ctx, a.cluster.StatusRequests(), requested, due)}
	}, a.cluster.StatusRequestsChanged())
	return nil
}

// answerDue answers the requests whose time has come, and those that are new or
// have changed. It returns how long there is nothing to do; 0 means: until a
// request changes.
func (a *agent) answerDue(ctx context.Context, requests []kube.StatusRequest, requested map[string]kube.StatusRequest, due map[string]time.Time) time.Duration {
	now := time.Now()
	there := map[string]bool{}
	var wait time.Duration
	for _, r := range requests {
		there[r.Name] = true
		if r.Period == 0 {
			continue
		}
		if !sameRequest(requested[r.Name], r) || !now.Before(due[r.Name]) {
			requested[r.Name], due[r.Name] = r, now.Add(r.Period)
			short, cancel := context.WithTimeout(ctx, 10*time.Second)
			err := a.cluster.WriteNodeStatus(short, r.Name, a.nodeStatus(r))
			cancel()
			if err != nil && ctx.Err() == nil {
				a.log.Warn("node status not written", "object", r.Name, "error", err)
				due[r.Name] = now.Add(min(r.Period, 10*time.Second))
			}
		}
		if left := max(time.Until(due[r.Name]), time.Millisecond); wait == 0 || left < wait {
			wait = left
		}
	}
	for name := range requested {
		if !there[name] {
			delete(requested, name)
			delete(due, name)
		}
	}
	return wait
}

func sameRequest(a, b kube.StatusRequest) bool {
	if a.Name != b.Name || a.Period != b.Period || len(a.Classes) != len(b.Classes) {
		return false
	}
	for _, c := range a.Classes {
		if !b.Wants(c) {
			return false
		}
	}
	return true
}

// nodeStatus is the answer to one request.
func (a *agent) nodeStatus(r kube.StatusRequest) kube.NodeStatus {
	out := kube.NodeStatus{LastUpdated: metav1.Now()}
	if r.Wants(kube.ClassAgent) {
		self, _ := a.cluster.Snapshot().Node(a.cfg.Node)
		config, since := a.bgp.configured()
		out.Agent = daemons(self, config, "muslin "+a.cfg.Version, a.started, since)
	}
	if r.Wants(kube.ClassBGP) {
		out.BGP = sessionsOf(a.bgp.peers())
	}
	if r.Wants(kube.ClassRoutes) {
		in := a.in.gather()
		learned, _ := in.rib.routes()
		out.Routes = routesOf(a.dataplane.desired(), learned, in.host)
	}
	return out
}

// daemons is the one speaker in the words of Calico's two. It is ready for a
// family that the node has, once it is configured.
func daemons(self model.Node, config bgp.Config, version string, started, configured time.Time) *kube.DaemonStatus {
	one := func(address netip.Prefix) kube.Daemon {
		if !address.IsValid() || config.ASN == 0 {
			return kube.Daemon{State: "NotReady"}
		}
		return kube.Daemon{
			State: "Ready", Version: version, RouterID: config.RouterID.String(),
			BootTime: moment(started), ReconfigurationWas: moment(configured),
		}
	}
	return &kube.DaemonStatus{V4: one(self.IPv4), V6: one(self.IPv6)}
}

func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// sessionsOf sorts the sessions by the family of the peer's address.
func sessionsOf(peers []model.PeerStatus) *kube.BGPStatus {
	out := &kube.BGPStatus{}
	for _, p := range peers {
		list, up, down := &out.PeersV4, &out.EstablishedV4, &out.NotEstablishedV4
		if !p.Address.Is4() {
			list, up, down = &out.PeersV6, &out.EstablishedV6, &out.NotEstablishedV6
		}
		row := kube.NodePeer{PeerIP: p.Address.String(), Type: string(p.Kind), State: string(p.State), Since: moment(p.Since)}
		if p.Up() {
			*up++
		} else {
			*down++
			row.LastError = p.LastError
		}
		*list = append(*list, row)
	}
	return out
}

// What Calico puts where a route has no gateway.
const noGateway = "N/A"

// routesOf lists the ways that packets take (FIB): this node's own, what peers
// announced, and what others wrote; and what peers told and is not used (RIB).
func routesOf(state felix.State, learned []model.Learned, host model.Host) *kube.RouteStatus {
	out := &kube.RouteStatus{}
	received := make(map[netip.Prefix]model.Learned, len(learned))
	for _, l := range learned {
		received[l.Prefix] = l
	}
	used := map[netip.Prefix]bool{}
	for _, r := range state.Routes {
		l, isLearned := received[r.Prefix]
		used[r.Prefix] = true
		if len(r.NextHops) == 0 {
			add(out, kube.NodeRoute{Type: "FIB", Gateway: noGateway, Interface: "blackhole", LearnedFrom: kube.LearnedFrom{SourceType: "Static"}}, r.Prefix)
		}
		for _, hop := range r.NextHops {
			row := kube.NodeRoute{Type: "FIB", Gateway: gateway(hop.Gateway), Interface: hop.Device, LearnedFrom: kube.LearnedFrom{SourceType: "Kernel"}}
			if isLearned && hop.Gateway.IsValid() {
				row.LearnedFrom = source(l, hop.Gateway)
			}
			add(out, row, r.Prefix)
		}
	}
	for _, l := range learned {
		for _, hop := range l.NextHops {
			if !used[l.Prefix] {
				add(out, kube.NodeRoute{Type: "RIB", Gateway: hop.String(), LearnedFrom: source(l, hop)}, l.Prefix)
			}
		}
	}
	addHost(out, host)
	return out
}

// addHost adds connected routes and those of others.
func addHost(out *kube.RouteStatus, host model.Host) {
	names := map[int]string{}
	for _, l := range host.Links {
		names[l.Index] = l.Name
	}
	for _, r := range host.Routes {
		row := kube.NodeRoute{Type: "FIB", Gateway: noGateway, Interface: names[r.LinkIndex], LearnedFrom: kube.LearnedFrom{SourceType: "Direct"}}
		if len(r.Gateways) == 0 {
			add(out, row, r.Prefix)
		}
		for _, g := range r.Gateways {
			row.Gateway, row.LearnedFrom.SourceType = g.String(), "Kernel"
			add(out, row, r.Prefix)
		}
	}
}

// source is the peer that told of the way over a next hop. A tunnelled route
// has another gateway than it was told with; its first peer stands for it.
func source(l model.Learned, hop netip.Addr) kube.LearnedFrom {
	out := kube.LearnedFrom{SourceType: "BGPPeer"}
	if l.Mesh {
		out.SourceType = "NodeMesh"
	}
	for i, from := range l.From {
		if i == 0 || l.NextHops[i] == hop {
			out.PeerIP = from.WithZone("").String()
		}
	}
	return out
}

func gateway(a netip.Addr) string {
	if !a.IsValid() {
		return noGateway
	}
	return a.String()
}

func add(out *kube.RouteStatus, row kube.NodeRoute, to netip.Prefix) {
	row.Destination = to.String()
	list := &out.V4
	if !to.Addr().Is4() {
		list = &out.V6
	}
	if len(*list) < routesInStatus {
		*list = append(*list, row)
	}
}
