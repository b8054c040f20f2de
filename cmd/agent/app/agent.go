package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/muslin-net/muslin/bgp/gobgp"
	"github.com/muslin-net/muslin/felix/link"
	"github.com/muslin-net/muslin/felix/policyrelay"
	"github.com/muslin-net/muslin/felix/route"
	"github.com/muslin-net/muslin/ipam/alloc"
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
	// RelayToken is the file of the token for a policy relay; empty: the agent watches all
	// pods itself.
	RelayToken string
	// WithoutCapabilities names those that are not granted on purpose, as NET_RAW.
	WithoutCapabilities []string
	Version             string
	Logger              *slog.Logger

	patience time.Duration // with another agent of the node; 0: alonePatience
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
	gates     *gates
	metrics   *metrics
	registry  *prometheus.Registry
	scrapes   *metricsserver.Server
	apiConns  *apiConnections
	apiServer model.FailsafePort // where it is called
	cluster   *kube.Cluster
	alloc     *alloc.Allocator
	links     *link.Watcher
	in        *inputs
	routes    *route.Reconciler
	dataplane *dataplane
	policy    *policyLoop
	freed     *freed
	relay     *policyrelay.Client // nil: no relay
	bgp       *bgpLoop
	endpoints *endpoints
	pods      podInterfaces
	podCIDRs  *podCIDRs
	origin    *origin
	address   addressKeeper
	own       *nodeProblems
	without   []string // capabilities that are left out on purpose, with what is not there
	pulses    *pulses
	started   time.Time
	telling   sync.Mutex  // one tells the allocator what is in use at a time
	ipam      problemList // the allocator's problems, as logged
	gc        gcTuner
	last      *lastState
}

// Run runs the agent of a node until ctx ends. It returns nil then, and leaves
// the kernel as it is. It refuses to run beside another agent of the node.
func Run(ctx context.Context, cfg Config) error {
	release, err := cfg.alone(ctx, cmp.Or(cfg.patience, alonePatience))
	if err != nil {
		return err
	}
	defer release()
	a := &agent{cfg: cfg, log: cfg.Logger, registry: prometheus.NewRegistry(), ipam: problemList{log: cfg.Logger}}
	a.started = time.Now()
	a.origin = newOrigin(a.log)
	a.address = addressKeeper{writers: map[string]string{}}
	a.gates = newGates(gateCluster, gateKernel, gateBGP, gateSocket, gateConfig)
	a.own, a.pulses = newNodeProblems(a.log), newPulses(a.log)
	a.metrics = newMetrics(a.registry, a.reading)
	if err := a.connect(); err != nil {
		return err
	}
	set, err := effective()
	if err != nil {
		return err
	}
	lacking := a.checkCapabilities(set)
	g := task.Group{Logger: cfg.Logger}
	if err := a.build(); lacking && errors.Is(err, fs.ErrPermission) {
		g.Add(a.powerless(err)...)
		return g.Run(ctx)
	} else if err != nil {
		return err
	}
	defer a.close()
	g.Add(a.tasks()...)
	a.log.Info("agent starting", "node", cfg.Node, "version", cfg.Version, "gobgp", gobgp.Release())
	err = g.Run(ctx)
	a.log.Info("agent stopped; routes stay")
	return err
}

// tasks are the whole of the agent, in the order of their start. Values flow down;
// what stands in brackets is a cell, which has one writer (see inputs), and whoever
// reads one waits for the next:
//
//	 API server     file     allocator     kernel      CNI server     BGP peers
//	     │           │           │           │             │              │
//	[cluster]     [saved]     [held]      [host]        [pods]          [rib]
//	     └───────────┴───────────┴─────┬─────┴─────────────┴──────────────┘
//	                             inputs.gather
//	        ┌──────────────────────────┼────────────────────────┐
//	        ▼                          ▼                        ▼
//	     bgpLoop                   dataplane                policyLoop
//	  bgp.DesiredOn              felix.Desired            policy.Engine
//	        │     ───[config]───▶      │                        │
//	        │     ◀──[floating]──      │                        │
//	        ▼                          ▼                        ▼
//	  gobgp.Speaker      sysctl tunnel nft podlink       policynft.Sink
//	                     route radv    │                        │
//	                                   └─── endpoints.settle ───┘ ──▶ ADD is answered
//
// A task that is soft does not hold up those after it while the state on disk is
// in force.
func (a *agent) tasks() []task.Task {
	feed := task.Func("ipam inputs", a.feedAllocator)
	return append([]task.Task{
		task.Func("http", a.httpServer().run),
		task.Func("metrics", func(ctx context.Context, ready func()) error {
			ready()
			return a.scrapes.Run(ctx)
		}),

		// Sources, each with the cell that it fills.
		a.links, task.Func("host", a.followHost), // kernel ──▶ [host]
		a.routes, // adopts what an earlier process installed
		task.Func("last state", a.last.run(a.cluster.Ready(), a.in.gather)), // file ──▶ [saved]
		a.last.soft(a.cluster, nothingAwaited),                              // API server ──▶ rows
		task.Func("ipam holdings", a.followHoldings),                        // allocator ──▶ [held]
		a.last.soft(feed, a.cluster.Ready()),                                // rows ──▶ allocator ──▶ [cluster]
		// The allocator is ready once it has stored what running pods have and
		// blocks lack: for that it has to know the pools.
		a.last.soft(a.alloc, feed.Ready()),

		// Those who decide, behind their sinks.
		a.dataplane.nft, a.dataplane.tunnels, a.dataplane.podLinks, a.dataplane.radv,
		a.dataplane, // inputs ──▶ felix.Desired ──▶ kernel; [floating], [up], [holes]
		a.bgp,       // inputs ──▶ bgp.DesiredOn ──▶ peers; [config], [rib]
		task.Func("policy relay", a.policy.relayed.run),
		a.policy.sink, a.policy, // policies, pods ──▶ policy.Engine ──▶ kernel
		task.Func("denied packets", a.policy.receiveDenied),

		// From here on the state on disk is out of force.
		a.last.release(a.cluster.Ready(), feed.Ready(), a.alloc.Ready()),
		task.Func("node address", a.keepAddress),    // inputs ──▶ annotations of the Node
		task.Func("status", a.reportStatus),         // problems, gates, drain ──▶ conditions of the Node
		task.Func("sweep", a.sweep),                 // what an earlier process left in the allocator
		task.Func("own addresses", a.ownAddresses),  // [cluster], [held], [up] ──▶ allocator ──▶ [tunnels]; annotations
		task.Func("session events", a.tellSessions), // [rib] ──▶ Events
		task.Func("node statuses", a.fillNodeStatuses),
		task.Func("memory", a.gc.release),
		task.Func("preflight", a.preflight), // kernel, host ──▶ problems
	}, a.cniTasks()...)
}

func (a *agent) httpServer() *httpServer {
	return &httpServer{
		addr: a.cfg.HTTPAddr, logger: a.log, gates: a.gates, pulses: a.pulses, reg: a.registry, status: a.status, show: a.handleShow,
		listened: func(err error) {
			a.own.http.setOne(err, nodeProblem(a.cfg.Node, "MUSLIN_HTTP_ADDR", "PortTaken",
				fmt.Sprintf("%v: free %s, or set another MUSLIN_HTTP_ADDR and the same port in the DaemonSet's probes", err, a.cfg.HTTPAddr)))
		},
	}
}

// connect opens what speaks with the API server. Nothing runs yet.
func (a *agent) connect() (err error) {
	rest, err := kube.LoadConfig(a.cfg.Kubeconfig)
	if err != nil {
		return err
	}
	if a.apiConns, err = newAPIConnections(rest); err != nil {
		return err
	}
	if a.apiServer, err = apiServerPort(rest.Host); err != nil {
		return err
	}
	if a.cluster, err = kube.New(rest, kube.Options{Node: a.cfg.Node, AllBlocksWhile: a.asksForBlocks, Policy: true, PolicyOwnPods: a.cfg.RelayToken != "", Logger: a.log}); err != nil {
		return err
	}
	if a.scrapes, err = metricsserver.New(a.cfg.Metrics, a.registry, rest, a.log, func(err error) {
		a.own.metrics.setOne(err, nodeProblem(a.cfg.Node, "MUSLIN_METRICS_ADDR", "MetricsNotServed", fmt.Sprintf("%v: Prometheus gets no metrics of this node", err)))
	}); err != nil {
		return err
	}
	if a.relay, err = a.cfg.relay(rest); err != nil {
		return err
	}
	store, err := kubestore.New(rest, kubestore.Options{Logger: a.log, Node: a.cfg.Node})
	if err != nil {
		return err
	}
	a.alloc = alloc.New(a.cfg.Node, store)
	return nil
}

// build opens what the rooms need of the kernel. Nothing runs yet.
func (a *agent) build() (err error) {
	if a.links, err = link.New(link.Options{Logger: a.log}); err != nil {
		return fmt.Errorf("open link watcher: %w", err)
	}
	if a.routes, err = route.New(route.Options{Logger: a.log}); err != nil {
		return fmt.Errorf("open route reconciler: %w", err)
	}
	a.last = newLastState(a.cfg.statePath(), a.cfg.Node, a.log)
	a.podCIDRs = newPodCIDRs()
	a.freed = newFreed(time.Now())
	a.endpoints, err = a.adoptEndpoints()
	if err != nil {
		return fmt.Errorf("adopt pods: %w", err)
	}
	a.in = &inputs{
		node: a.cfg.Node, read: func() { a.readHost(); a.readHoldings() },
		pods: &a.endpoints.set, podCIDRs: &a.podCIDRs.inUse, saved: &a.last.inForce, origin: &a.origin.view,
	}
	a.endpoints.onChange = a.tellLive
	a.tellLive()
	a.bgp = newBGPLoop(a)
	a.alloc.SetElsewhere(a.bgp.announced)
	if a.dataplane, err = newDataplane(a); err != nil {
		return err
	}
	if a.policy, err = newPolicyLoop(a); err != nil {
		return err
	}
	a.endpoints.why = a.policy.waiting
	a.podCIDRs.changed = a.tellLive
	return nil
}

func (a *agent) close() {
	for _, c := range []interface{ Close() error }{a.links, a.routes, a.dataplane, a.policy.sink, a.pods} {
		if err := c.Close(); err != nil {
			a.log.Warn("close", "error", err)
		}
	}
}

// feedAllocator hands the allocator what it needs from the cluster, and then the
// data plane and BGP what there is of it, whenever the cluster or the blocks
// change.
func (a *agent) feedAllocator(ctx context.Context, ready func()) error {
	blocksKnown := a.alloc.Ready()
	task.Loop(ctx, func(context.Context) task.Next {
		select {
		case <-blocksKnown:
			blocksKnown = nil // that is no news any more
		default:
		}
		s := a.cluster.Snapshot()
		by := assignedOf(s, a.cfg.Node)
		if by.self.Name != "" {
			a.learnPodCIDRs(by.self, by.pools)
		}
		if a.in.assign.Set(by) {
			a.assign(by)
		}
		a.readHoldings()
		next := task.Next{Changed: []<-chan struct{}{blocksKnown}}
		held := get(&a.in.held, &next.Changed)
		all := a.cluster.AllBlocks()
		a.origin.learn(s, a.cfg.Node, held.blocks, all)
		a.ipam.set(held.problems)
		a.gates.pass(gateCluster)
		a.in.learn(cluster{s, a.cluster.Pods(), all})
		ready()
		return next
	}, a.cluster.Changed())
	return nil
}

// assign hands the allocator what it is decided by.
func (a *agent) assign(by assigned) {
	if by.self.Name != "" {
		a.alloc.SetNode(by.self)
	}
	a.alloc.SetReservations(by.reserved)
	a.alloc.SetConfig(ipamConfig(by.ipam))
	a.alloc.SetPools(by.pools) // last: with them it stores what running pods have
}

// readHoldings takes in what the allocator has by now.
func (a *agent) readHoldings() {
	a.in.held.Update(func() holdings {
		return holdings{a.alloc.Blocks(), a.alloc.Borrowed(), a.alloc.Problems()}
	})
}

// followHoldings keeps them as the allocator's. An assignment inside a block that
// the node has changes nothing of them.
func (a *agent) followHoldings(ctx context.Context, ready func()) error {
	ready()
	task.Loop(ctx, func(context.Context) task.Next {
		a.readHoldings()
		return task.Next{}
	}, a.alloc.Changed())
	return nil
}

// holdings are what of the allocator's addresses others are told about.
type holdings struct {
	blocks   []model.Block
	borrowed []netip.Prefix
	problems []model.Problem
}

func ipamConfig(c model.IPAM) alloc.Config {
	return alloc.Config{
		StrictAffinity: c.StrictAffinity, AutoAllocateBlocks: c.AutoAllocateBlocks,
		MaxBlocksPerHost: c.MaxBlocksPerHost, CooldownSeconds: c.CooldownSeconds,
		Locked: c.Locked,
	}
}

// status is the agent's own view.
func (a *agent) status() Status {
	s := Status{Node: a.cfg.Node, Version: a.cfg.Version, Waiting: a.gates.waiting(), Peers: a.bgp.peers(), Blocks: a.alloc.Blocks(), Origin: a.origin.status(), Refused: a.bgp.refused(), Policy: a.policy.size(), Without: a.without}
	s.Policy.DeniedIngress, s.Policy.DeniedEgress = a.policy.dropped()
	for _, p := range a.problems() {
		s.Problems = append(s.Problems, p.String())
	}
	return s
}

// problems are everything that could not be honoured, from every room.
func (a *agent) problems() []model.Problem {
	var all []model.Problem
	own, _ := a.own.get()
	for _, list := range [][]model.Problem{a.cluster.Problems(), a.alloc.Problems(), a.dataplane.problems.get(), a.bgp.problems.get(), a.policy.problems.get(), own, a.last.problems.get()} {
		all = append(all, list...)
	}
	return all
}

// retryAfter is how long a loop waits before it tries again what failed.
const retryAfter = time.Second
