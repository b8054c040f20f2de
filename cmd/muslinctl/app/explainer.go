package app

import (
	"context"
	"errors"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/muslin-net/muslin/cmd/muslinctl/agentview"
	"github.com/muslin-net/muslin/cmd/muslinctl/explain"
	"github.com/muslin-net/muslin/cmd/muslinctl/ipamview"
	"github.com/muslin-net/muslin/cmd/muslinctl/world"
	"github.com/muslin-net/muslin/felix/nodeview"
	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

// explainer collects facts. What agents have said is kept for its lifetime.
type explainer struct {
	*surveyor
	survey   *ipamview.Survey
	agents   []agentview.Agent
	pools    []model.Pool
	mu       sync.Mutex
	views    map[model.NodeName]func() (*nodeview.View, string)
	answered map[model.NodeName]func() map[netip.Addr]explain.Answer
	asking   *explain.End // the pod that asks; nil: nodes do
	policy   func() (world.Policy, error)
}

// explainer reads what every answer needs; v has the pods and nodes.
func (s *surveyor) explainer(ctx context.Context, v *ipamview.Survey) (*explainer, error) {
	e := &explainer{surveyor: s, survey: v, views: map[model.NodeName]func() (*nodeview.View, string){}, answered: map[model.NodeName]func() map[netip.Addr]explain.Answer{}}
	e.policy = sync.OnceValues(func() (world.Policy, error) { return world.ReadPolicy(ctx, s.client.Config, false) })
	var err error
	if e.agents, err = agentview.Agents(ctx, s.client); err != nil {
		return nil, err
	}
	e.pools, _, err = world.ReadPools(ctx, s.client)
	return e, errors.Join(err, s.affinities(ctx, v))
}

// common collects what does not depend on the asker.
func (e *explainer) common(ctx context.Context, ip netip.Addr) (explain.Facts, error) {
	f := explain.Facts{To: ip, Pools: e.pools, Nodes: map[model.NodeName]bool{}}
	for n := range e.survey.Nodes {
		f.Nodes[n] = true
	}
	if p, ok := e.survey.Pods[ip]; ok {
		f.Pod = podOf(p)
	}
	b, _, err := e.blockOf(ctx, ip)
	if err != nil {
		return f, err
	}
	if b != nil {
		f.Block = e.block(b, ip)
	}
	if f.Pod != nil {
		f.Owner, f.OwnerError = e.view(ctx, f.Pod.Node)
		f.Reach = e.reach(ctx, f.Owner)
	}
	return f, nil
}

func podOf(p ipamview.Pod) *explain.Pod {
	return &explain.Pod{Namespace: p.Namespace, Name: p.Name, Node: model.NodeName(p.Node), Phase: "Running"}
}

func (e *explainer) block(b *ipam.Block, ip netip.Addr) *explain.Block {
	owner, assigned := b.Owner(ip)
	out := &explain.Block{CIDR: b.CIDR(), Node: b.Node(), Handle: owner.Handle, Assigned: assigned, Affinities: map[model.NodeName]model.BlockState{}}
	for _, a := range e.survey.Affinities {
		if a.CIDR == b.CIDR() && a.Type == "host" {
			out.Affinities[a.Node] = a.State
		}
	}
	return out
}

// view is what the agent of a node says, asked once.
func (e *explainer) view(ctx context.Context, node model.NodeName) (*nodeview.View, string) {
	e.mu.Lock()
	ask := e.views[node]
	if ask == nil {
		ask = sync.OnceValues(func() (*nodeview.View, string) { return e.ask(ctx, node) })
		e.views[node] = ask
	}
	e.mu.Unlock()
	return ask()
}

func (e *explainer) ask(ctx context.Context, node model.NodeName) (*nodeview.View, string) {
	a, err := agentview.Of(e.agents, string(node))
	if err != nil {
		return nil, err.Error()
	}
	var v nodeview.View
	if err := a.Get(ctx, e.client, "/show", &v); err != nil {
		return nil, err.Error()
	}
	return &v, ""
}

// path has a node probe an address; size 0 leaves the large probe's to the node.
func (e *explainer) path(ctx context.Context, node model.NodeName, to netip.Addr, size int) (*nodeview.Path, error) {
	a, err := agentview.Of(e.agents, string(node))
	if err != nil {
		return nil, err
	}
	var p nodeview.Path
	return &p, a.Get(ctx, e.client, "/show/path?to="+url.QueryEscape(to.String())+"&size="+strconv.Itoa(size), &p)
}

// from adds what one asker sees.
func (e *explainer) from(ctx context.Context, f explain.Facts, node model.NodeName) explain.Facts {
	f.FromNode = node
	if f.From, f.FromError = e.view(ctx, node); f.From == nil {
		return f
	}
	if f.Pod != nil && f.Pod.Node != node {
		f.FromReach = e.reach(ctx, f.From)
	}
	size := f.From.State.MTU.Pod
	if f.Owner != nil {
		size = max(size, f.Owner.State.MTU.Pod)
	}
	if p, err := e.path(ctx, node, f.To, size); err == nil {
		f.Path = p
	}
	return e.evaluate(f)
}

// evaluate adds what network policy says of the pod that asks or, of a probe that was
// not answered, of the address it had.
func (e *explainer) evaluate(f explain.Facts) explain.Facts {
	if f.Pod == nil {
		return f
	}
	from := e.asking
	if from == nil && f.Path != nil && !f.Path.Small.OK && f.Path.Source.IsValid() && f.FromNode != f.Pod.Node {
		from = &explain.End{Addr: f.Path.Source}
	}
	if from == nil || from.Addr.Is4() != f.To.Is4() {
		return f
	}
	p, err := e.policy()
	if err != nil {
		f.PolicyError = err.Error()
		return f
	}
	j := explain.Evaluate(p.View, p.Nodes, *from, explain.End{Addr: f.To, Pod: f.Pod})
	f.Policy = &j
	return f
}

// reach finds out, once, what the peers of a node answer that are down: an echo,
// and whether their OPEN is refused.
func (e *explainer) reach(ctx context.Context, v *nodeview.View) map[netip.Addr]explain.Answer {
	if v == nil {
		return nil
	}
	e.mu.Lock()
	ask := e.answered[v.Node]
	if ask == nil {
		ask = sync.OnceValue(func() map[netip.Addr]explain.Answer { return e.answers(ctx, v) })
		e.answered[v.Node] = ask
	}
	e.mu.Unlock()
	return ask()
}

func (e *explainer) answers(ctx context.Context, v *nodeview.View) map[netip.Addr]explain.Answer {
	out := map[netip.Addr]explain.Answer{}
	before := map[netip.Addr]model.PeerStatus{}
	for _, p := range v.Peers {
		if p.Up() {
			continue
		}
		if path, err := e.path(ctx, v.Node, p.Address, 0); err == nil {
			out[p.Address] = explain.Answer{Echo: path.Small.OK}
		}
		if out[p.Address].Echo {
			before[p.Address] = p
		}
	}
	for range patience {
		if len(before) == 0 {
			break
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return out
		}
		for _, p := range e.sessionsNow(ctx, v.Node) {
			was, requested := before[p.Address]
			in, sent := p.MessagesIn-was.MessagesIn, p.MessagesOut-was.MessagesOut
			if !requested || p.Up() || in == 0 {
				continue
			}
			// An OPEN came, and an OPEN and a notification were sent.
			out[p.Address] = explain.Answer{Echo: true, Refused: sent == 2*in}
			delete(before, p.Address)
		}
	}
	return out
}

// patience is how often, a second apart, a session that is down is looked at
// for a new attempt; they are made every two or three seconds.
const patience = 6

// sessionsNow asks an agent for its sessions as they are now.
func (e *explainer) sessionsNow(ctx context.Context, node model.NodeName) []model.PeerStatus {
	var s liveStatus
	a, err := agentview.Of(e.agents, string(node))
	if err != nil || a.Get(ctx, e.client, "/status", &s) != nil {
		return nil
	}
	return s.Peers
}
