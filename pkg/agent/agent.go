package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/muslin-net/muslin/bgp/gobgp"
	"github.com/muslin-net/muslin/felix/link"
	"github.com/muslin-net/muslin/felix/route"
	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/kubestore"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/metricsserver"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
	"github.com/prometheus/client_golang/prometheus"
)

// Config is what must be known before the API can be reached; everything else
// is an API object.
type Config struct {
	Node       model.NodeName // required
	Kubeconfig string         // empty: the pod's service account
	Socket     string         // unix socket of the CNI server
	Spool      string         // where DELs are recorded; empty: record.DefaultDir
	HTTPAddr   string         // loopback address of health and metrics
	ProcSys    string         // where sysctls are written: /proc/sys, or a mount of it
	CNI        CNIConfig
	// MeshPeers gives each peer series of its own in /metrics, those of a mesh too.
	MeshPeers bool
	Metrics   metricsserver.Settings // where others than the node's own get /metrics
	Version   string
	Logger    *slog.Logger
}

// CNIConfig says where the node keeps CNI's files. With an empty ConfDir the
// configuration is left to somebody else.
type CNIConfig struct {
	BinDir, ConfDir string
	Exclusive       bool   // configurations of others that sort before ours are moved away
	Source          string // of the plugin; default that of the image
}

// agent holds the rooms while they run.
type agent struct {
	cfg       Config
	log       *slog.Logger
	conds     *conditions
	metrics   *metrics
	registry  *prometheus.Registry
	scrapes   *metricsserver.Server
	apiConns  *apiConnections
	cluster   *kube.Cluster
	alloc     *ipam.Allocator
	links     *link.Watcher
	routes    *route.Reconciler
	plane     *plane
	policing  *policing
	speech    *speech
	endpoints *endpoints
	wires     wires
	podCIDRs  *podCIDRs
	origin    *origin
	address   addressKeeper
	own       *ownProblems
	pulses    *pulses
	owns      hint // look again at the node's own block and tunnel addresses
	sessions  hint // look again at the BGP sessions
	started   time.Time
	podMTU    mtu
	telling   sync.Mutex  // one tells the allocator what is in use at a time
	ipam      problemList // the allocator's problems, as logged
	collector collector
	last      *lastState
}

// Run runs the agent of a node until ctx ends. It returns nil then, and leaves
// the kernel as it is.
func Run(ctx context.Context, cfg Config) error {
	a := &agent{cfg: cfg, log: cfg.Logger, registry: prometheus.NewRegistry(), ipam: problemList{log: cfg.Logger}}
	a.owns, a.sessions, a.started = newHint(), newHint(), time.Now()
	a.origin = newOrigin(a.log)
	a.address = addressKeeper{look: newHint(), writers: map[string]string{}}
	a.conds = newConditions(gateCluster, gateKernel, gateBGP, gateSocket, gateConfig)
	a.own, a.pulses = newOwnProblems(a.log, a.conds.changed), newPulses(a.log)
	a.metrics = newMetrics(a.registry, a.reading)
	if err := a.build(); err != nil {
		return err
	}
	defer a.close()
	inputs := task.Func("ipam inputs", a.feedAllocator)
	g := task.Group{Logger: cfg.Logger}
	g.Add(
		task.Func("http", a.httpServer().run),
		task.Func("metrics", func(ctx context.Context, ready func()) error {
			ready()
			return a.scrapes.Run(ctx)
		}),
		a.links, a.routes,
		task.Func("last state", a.last.run(a.cluster.Ready(), a.snapshot)),
		a.last.soft(a.cluster, nothingAwaited),
		// The allocator is ready once it has stored what running pods have and
		// blocks lack: for that it has to know the pools.
		a.last.soft(inputs, a.cluster.Ready()), a.last.soft(a.alloc, inputs.Ready()),
		a.plane.nft, a.plane.tunnels, a.plane.podLinks, a.plane.radv, a.plane, a.speech,
		a.policing.sink, task.Func("network policy", a.policing.run), task.Func("denied packets", a.policing.hearDenied),
		a.last.release(func() { a.plane.look.notify(); a.speech.look.notify() }, a.cluster.Ready(), inputs.Ready(), a.alloc.Ready()),
		task.Func("node address", a.keepAddress),
		task.Func("status", a.reportStatus),
		task.Func("sweep", a.sweep),
		task.Func("own addresses", a.ownAddresses),
		task.Func("session events", a.tellSessions),
		task.Func("node statuses", a.fillNodeStatuses),
		task.Func("memory", a.collector.release),
	)
	g.Add(a.cniTasks()...)
	a.log.Info("agent starting", "node", cfg.Node, "version", cfg.Version, "gobgp", gobgp.Release())
	err := g.Run(ctx)
	a.log.Info("agent stopped; routes stay")
	return err
}

func (a *agent) httpServer() *httpServer {
	return &httpServer{
		addr: a.cfg.HTTPAddr, logger: a.log, conds: a.conds, pulses: a.pulses, reg: a.registry, status: a.status, show: a.handleShow,
		heard: func(err error) {
			a.own.http.setOne(err, a.nodeProblem("MUSLIN_HTTP_ADDR", "PortTaken",
				fmt.Sprintf("%v: free %s, or set another MUSLIN_HTTP_ADDR and the same port in the DaemonSet's probes", err, a.cfg.HTTPAddr)))
		},
	}
}

// build opens what the rooms need. Nothing runs yet.
func (a *agent) build() (err error) {
	rest, err := kube.LoadConfig(a.cfg.Kubeconfig)
	if err != nil {
		return err
	}
	if a.apiConns, err = newAPIConnections(rest); err != nil {
		return err
	}
	if a.cluster, err = kube.New(rest, kube.Options{Node: a.cfg.Node, AllBlocksWhile: asksForOrigin, Policy: true, Logger: a.log}); err != nil {
		return err
	}
	if a.scrapes, err = metricsserver.New(a.cfg.Metrics, a.registry, rest, a.log, func(err error) {
		a.own.metrics.setOne(err, a.nodeProblem("MUSLIN_METRICS_ADDR", "MetricsNotServed", fmt.Sprintf("%v: Prometheus gets no metrics of this node", err)))
	}); err != nil {
		return err
	}
	store, err := kubestore.New(rest, kubestore.Options{Logger: a.log})
	if err != nil {
		return err
	}
	a.alloc = ipam.NewAllocator(a.cfg.Node, store)
	if a.links, err = link.New(link.Options{Logger: a.log}); err != nil {
		return fmt.Errorf("open link watcher: %w", err)
	}
	if a.routes, err = route.New(route.Options{Logger: a.log}); err != nil {
		return fmt.Errorf("open route reconciler: %w", err)
	}
	a.last = newLastState(a.cfg.statePath(), a.cfg.Node, a.log, a.conds.changed)
	a.podCIDRs = newPodCIDRs()
	a.endpoints, err = a.adoptEndpoints()
	if err != nil {
		return fmt.Errorf("adopt pods: %w", err)
	}
	a.endpoints.told = a.tellLive
	a.tellLive()
	a.speech = newSpeech(a)
	a.alloc.SetElsewhere(a.speech.hears)
	if a.plane, err = newPlane(a); err != nil {
		return err
	}
	if a.policing, err = newPolicing(a); err != nil {
		return err
	}
	a.endpoints.why = a.policing.waiting
	a.podCIDRs.changed = func() { a.tellLive(); a.plane.look.notify(); a.speech.look.notify() }
	return nil
}

func (a *agent) close() {
	for _, c := range []interface{ Close() error }{a.links, a.routes, a.plane, a.policing.sink, a.wires} {
		if err := c.Close(); err != nil {
			a.log.Warn("close", "error", err)
		}
	}
}

// snapshot is the cluster as the API server tells it, with the blocks as the
// allocators know them: their own writes are there at once. The floating
// addresses of this node's pods, and those they have without IPAM, are announced
// as borrowed ones are. The pods themselves are there if BGP asks for them.
func (a *agent) snapshot() model.Snapshot {
	if s, ok := a.last.snapshot(a.liveAddrs); ok {
		return s
	}
	s := a.cluster.Snapshot()
	s.Blocks, s.Borrowed = a.alloc.Blocks(), slices.Concat(a.alloc.Borrowed(), a.plane.floating.get())
	s.Blocks = append(s.Blocks, a.podCIDRs.blocks(a.cfg.Node)...)
	s.Workloads = a.workloads(s)
	return s
}

// feedAllocator hands the allocator what it needs from the cluster, and tells
// the data plane and BGP to look again, whenever the cluster or the blocks
// change. An assignment inside a block that the node has is neither.
func (a *agent) feedAllocator(ctx context.Context, ready func()) error {
	blocksKnown := a.alloc.Ready()
	for {
		s := a.cluster.Snapshot()
		if self, ok := findNode(s, a.cfg.Node); ok {
			a.alloc.SetNode(self)
			a.learnPodCIDRs(self, s.Pools)
		}
		a.alloc.SetReservations(s.Reserved)
		a.alloc.SetConfig(ipamConfig(s.IPAM))
		a.alloc.SetPools(s.Pools) // last: with them it stores what running pods have
		held := holdingsOf(a.alloc)
		a.origin.learn(s, a.cfg.Node, held.blocks, a.cluster.AllBlocks())
		a.ipam.set(held.problems)
		a.conds.pass(gateCluster)
		ready()
		a.plane.look.notify()
		a.speech.look.notify()
		a.conds.changed.notify()
		a.address.look.notify()
		a.owns.notify()
		a.last.look.notify()
		for same := true; same; {
			select {
			case <-ctx.Done():
				return nil
			case <-a.cluster.Changed():
				same = false
			case <-a.alloc.Changed():
				same = held.equal(holdingsOf(a.alloc))
			case <-blocksKnown:
				blocksKnown, same = nil, false
			}
		}
	}
}

// holdings are what of the allocator's addresses others are told about.
type holdings struct {
	blocks   []model.Block
	borrowed []netip.Prefix
	problems []model.Problem
}

func holdingsOf(alloc *ipam.Allocator) holdings {
	return holdings{alloc.Blocks(), alloc.Borrowed(), alloc.Problems()}
}

func (h holdings) equal(o holdings) bool {
	return slices.Equal(h.blocks, o.blocks) && slices.Equal(h.borrowed, o.borrowed) && slices.Equal(h.problems, o.problems)
}

func ipamConfig(c model.IPAM) ipam.Config {
	return ipam.Config{
		StrictAffinity: c.StrictAffinity, AutoAllocateBlocks: c.AutoAllocateBlocks,
		MaxBlocksPerHost: c.MaxBlocksPerHost, CooldownSeconds: c.CooldownSeconds,
		Locked: c.Locked,
	}
}

func findNode(s model.Snapshot, name model.NodeName) (model.Node, bool) {
	for _, n := range s.Nodes {
		if n.Name == name {
			return n, true
		}
	}
	return model.Node{}, false
}

// status is the agent's own view.
func (a *agent) status() Status {
	s := Status{Node: a.cfg.Node, Version: a.cfg.Version, Waiting: a.conds.waiting(), Peers: a.speech.peers(), Blocks: a.alloc.Blocks(), Origin: a.origin.status(), Refused: a.speech.refused(), Policy: a.policing.size()}
	s.Policy.DeniedIngress, s.Policy.DeniedEgress = a.policing.dropped()
	for _, p := range a.problems() {
		s.Problems = append(s.Problems, p.String())
	}
	return s
}

// problems are everything that could not be honoured, from every room.
func (a *agent) problems() []model.Problem {
	var all []model.Problem
	for _, list := range [][]model.Problem{a.cluster.Problems(), a.alloc.Problems(), a.plane.problems.get(), a.speech.problems.get(), a.policing.found(), a.own.get(), a.last.problems.get()} {
		all = append(all, list...)
	}
	return all
}

// retryAfter is how long a loop waits before it tries again what failed.
const retryAfter = time.Second
