package kube

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/muslin-net/muslin/pkg/model"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	watchapi "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// SystemNamespace is the namespace Muslin is installed in, and the only one it reads
// Secrets of.
const SystemNamespace = "muslin-system"

// Options say what a Cluster watches.
type Options struct {
	// Node is the node whose agent this is: its Pods are watched. Empty (the
	// controller): none are.
	Node model.NodeName
	// Blocks says whose BlockAffinities are watched. An agent has those of its
	// own node from its allocator and needs none here.
	Blocks BlockScope
	// AllBlocksWhile asks for the BlockAffinities of every node, beside Blocks
	// and only while it says so of the cluster, of which it is shown BGP, Felix,
	// Peers and Pools; Cluster.AllBlocks has them. It has to be quick and pure.
	// nil: never.
	AllBlocksWhile func(model.Snapshot) bool
	// Policy asks for network policies and, with a Node or PolicyPeers, for the pods
	// and service accounts that they speak of; PolicyView has them. Without both policies have no rules.
	Policy, PolicyPeers bool
	// PolicyAll has all that any policy could speak of read, whether or not one does.
	PolicyAll bool
	// PolicyRelay has pods and service accounts be those of all nodes, whether or not a
	// policy asks for them, beside all that Policy has read without a Node: for a
	// relay, which answers agents that may know of a policy before. PolicyOwnPods has
	// pods be those of Node alone: a relay has the others.
	PolicyRelay, PolicyOwnPods bool
	// Balanced asks for every Service, for LoadBalancer IPAM; only without a Node.
	Balanced bool
	// Namespace of the Secrets that hold BGP passwords; muslin-system when empty.
	Namespace string
	// Component is the name in events and in the user agent, "muslin-agent" when empty.
	Component string
	// Logger is required.
	Logger *slog.Logger
}

// BlockScope says whose BlockAffinities a Cluster watches.
type BlockScope int

// The values of BlockScope.
const (
	NoBlocks  BlockScope = iota
	OwnBlocks            // those of Options.Node
	AllBlocks
)

// Cluster is what this process knows of the API server. It is made by New, and
// empty until Run runs. All methods may be called from any goroutine.
type Cluster struct {
	clients
	node      model.NodeName
	component string
	log       *slog.Logger

	silence    silence
	mu         sync.Mutex
	nodes      *table[model.Node]
	namespaces *table[Namespace]
	pods       *table[Pod] // nil without a node
	pools      *table[model.Pool]
	vanished   vanished
	bgp        *table[model.BGPConfiguration]
	peers      *table[model.BGPPeer]
	filters    *table[model.BGPFilter]
	felix      *table[model.FelixConfiguration]
	ipam       *table[model.IPAM]
	locked     *table[bool]
	reserved   *table[[]netip.Prefix]
	settings   *table[ControllerSettings] // nil with a node

	serviceCIDRs *table[[]model.ServiceCIDR]
	blocks       *table[model.Block]   // nil unless asked for
	requests     *table[StatusRequest] // nil without a node
	services     services
	balanced     balanced
	all          allBlocks
	secrets      secrets
	policies     policies
	sources      []source
	demands      []*demand
	aside        []source                 // nothing waits for these
	unread       []func() []model.Problem // of each table; called with mu held
	snapshot     *model.Snapshot          // nil: has to be built
	parts        parts
	synced       bool

	changed         chan struct{}
	requestsChanged chan struct{}
	ready           chan struct{}
}

// source feeds one table from the API server.
type source struct {
	name string
	List
	run    func(ctx context.Context)
	fill   func([]map[string]any) error // without a server
	synced func() bool                  // called with mu held
}

// New makes a Cluster for the server that cfg names. It opens no connection.
func New(cfg *rest.Config, o Options) (*Cluster, error) {
	if o.Logger == nil {
		return nil, errors.New("kube.New: no logger")
	}
	if o.Component == "" {
		o.Component = "muslin-agent"
	}
	if o.Namespace == "" {
		o.Namespace = SystemNamespace
	}
	own := rest.CopyConfig(cfg)
	own.UserAgent = o.Component
	if own.QPS == 0 {
		own.QPS, own.Burst = 50, 100
	}
	cl, err := newClients(own)
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		clients: cl, node: o.Node, component: o.Component, log: o.Logger,
		changed: make(chan struct{}, 1), ready: make(chan struct{}),
		vanished: vanished{gone: map[string]gonePool{}}, silence: silence{log: o.Logger, refused: map[*feed]error{}, later: map[*feed]int{}},
	}
	c.secrets.init(c, o.Namespace)
	c.addSources(o)
	return c, nil
}

func (c *Cluster) addSources(o Options) {
	c.nodes = add(c, feed{client: c.core, resource: "nodes", expect: &corev1.Node{}}, stripNode, readNode)
	c.namespaces = add(c, feed{client: c.core, resource: "namespaces", expect: &corev1.Namespace{}}, stripNamespace, readNamespace)
	c.pools = add(c, c.kind("IPPool"), stripObject, readPool)
	c.bgp = add(c, c.kind("BGPConfiguration"), stripObject, readBGPConfiguration)
	c.peers = add(c, c.kind("BGPPeer"), stripObject, readPeer)
	c.filters = add(c, c.kind("BGPFilter"), stripObject, readFilter)
	c.felix = add(c, c.kind("FelixConfiguration"), stripObject, readFelix)
	if o.Node != "" {
		own := feed{client: c.core, resource: "pods", expect: &corev1.Pod{}, fields: fields.OneTermEqualSelector("spec.nodeName", string(o.Node)).String()}
		c.pods = add(c, own, stripPod, readPod)
		c.pods.note = c.notePod
		c.services.init(c, o.Node)
		c.addStatusRequests()
	} else {
		var s source
		c.settings, s = newTable(c, c.kind("KubeControllersConfiguration"), stripObject, readControllers)
		c.aside = append(c.aside, s)
		if o.Balanced {
			c.balanced.init(c)
		}
	}
	c.locked = add(c, c.kind("ClusterInformation"), stripObject, readLocked)
	c.ipam = add(c, c.kind("IPAMConfiguration"), stripObject, readIPAM)
	c.reserved = add(c, c.kind("IPReservation"), stripObject, readReservation)
	c.addServiceCIDRs()
	if o.Blocks != NoBlocks {
		blocks := c.kind("BlockAffinity")
		if o.Blocks == OwnBlocks {
			blocks.fields = fields.OneTermEqualSelector("spec.node", string(o.Node)).String()
		}
		c.blocks = add(c, blocks, stripObject, readAffinity)
	}
	if o.AllBlocksWhile != nil {
		c.all.init(c, o.AllBlocksWhile)
	}
	if o.Policy {
		c.policies.all = o.PolicyAll
		c.policies.init(c, o)
	}
}

// feed says what a table is filled from.
type feed struct {
	client    *rest.RESTClient
	older     *rest.RESTClient // requested where client's version is not served; nil: nobody
	resource  string
	namespace string
	expect    runtime.Object
	fields    string           // field selector
	labels    string           // label selector
	absent    func(error) bool // errors that are as good as an empty list; nil: none
	answer    func(error)      // announced how each request to the server went
}

func (c *Cluster) kind(kind string) feed {
	return feed{client: c.v3, resource: resources[kind], expect: &object{}}
}

// add makes a table and the source that feeds it, which runs with the cluster.
func add[T any](c *Cluster, f feed, strip cache.TransformFunc, read func(any) reading[T]) *table[T] {
	t, s := newTable(c, f, strip, read)
	c.sources = append(c.sources, s)
	return t
}

// newTable makes a table and the source that feeds it.
func newTable[T any](c *Cluster, f feed, strip cache.TransformFunc, read func(any) reading[T]) (*table[T], source) {
	t := &table[T]{mu: &c.mu, read: read, strip: strip, note: c.noteChange, rows: map[string]row[T]{}}
	c.unread = append(c.unread, t.allProblems)
	return t, source{
		name: f.resource,
		List: List{Path: f.client.Get().Resource(f.resource).URL().Path, Fields: f.fields, Labels: f.labels},
		run: func(ctx context.Context) {
			if t.via != nil {
				c.mirror(ctx, f, t.via)
				return
			}
			c.mirror(ctx, f, t)
		},
		fill:   func(list []map[string]any) error { return t.fill(f, list) },
		synced: func() bool { return t.synced },
	}
}

// mirror keeps a store like the server's objects until ctx ends.
func (c *Cluster) mirror(ctx context.Context, f feed, store cache.ReflectorStore) {
	lw := f.listWatch(f.client)
	if f.older != nil {
		orElse(lw, f.listWatch(f.older))
	}
	tell(lw, func(err error) {
		if f.answer != nil {
			f.answer(err)
		}
		if f.absent != nil && f.absent(err) {
			err = nil
		}
		c.silence.received(&f, err)
	})
	defer c.silence.forget(&f)
	r := cache.NewReflectorWithOptions(lw, f.expect, store, cache.ReflectorOptions{
		Name:            f.resource,
		TypeDescription: f.resource,
		Backoff:         Backoff(),
	})
	r.RunWithContext(ctx)
}

// errNoWatch is what client-go calls a watch without events: it timed out.
var errNoWatch = errors.New("the request for a watch was not answered")

// Backoff is for a reflector: an API server that comes back, or a CRD that is installed
// late, is noticed within 7.5 s, the cap and its jitter.
func Backoff() *wait.Backoff {
	return &wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 8, Cap: 5 * time.Second}
}

// Watch sends the request for a watch once: client-go would ten times if it times out,
// for minutes where packets are lost, and then tell of no error. A reflector tries again.
func Watch(ctx context.Context, r *rest.Request) (watchapi.Interface, error) {
	w, err := r.MaxRetries(0).Watch(ctx)
	if _, begun := w.(*watchapi.StreamWatcher); err == nil && !begun {
		return nil, errNoWatch
	}
	return w, err
}

func (f *feed) listWatch(client *rest.RESTClient) *cache.ListWatch {
	selected := func(o *metav1.ListOptions) { o.FieldSelector, o.LabelSelector = f.fields, f.labels }
	lw := cache.NewFilteredListWatchFromClient(client, f.resource, f.namespace, selected)
	lw.WatchFuncWithContext = func(ctx context.Context, o metav1.ListOptions) (watchapi.Interface, error) {
		selected(&o)
		o.Watch = true
		return Watch(ctx, client.Get().Namespace(f.namespace).Resource(f.resource).VersionedParams(&o, metav1.ParameterCodec))
	}
	return lw
}

// orElse asks other whenever the server does not have what lw asks for.
func orElse(lw, other *cache.ListWatch) {
	list, watch := lw.ListWithContextFunc, lw.WatchFuncWithContext
	lw.ListWithContextFunc = func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		out, err := list(ctx, o)
		if apierrors.IsNotFound(err) {
			return other.ListWithContextFunc(ctx, o)
		}
		return out, err
	}
	lw.WatchFuncWithContext = func(ctx context.Context, o metav1.ListOptions) (watchapi.Interface, error) {
		out, err := watch(ctx, o)
		if apierrors.IsNotFound(err) {
			return other.WatchFuncWithContext(ctx, o)
		}
		return out, err
	}
}

// tell has answer told how each list and each start of a watch went.
func tell(lw *cache.ListWatch, answer func(error)) {
	list, watch := lw.ListWithContextFunc, lw.WatchFuncWithContext
	lw.ListWithContextFunc = func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		out, err := list(ctx, o)
		answer(err)
		return out, err
	}
	lw.WatchFuncWithContext = func(ctx context.Context, o metav1.ListOptions) (watchapi.Interface, error) {
		out, err := watch(ctx, o)
		answer(err)
		return out, err
	}
}

// Run watches until ctx ends, and returns nil then.
func (c *Cluster) Run(ctx context.Context) error {
	ctx = klog.NewContext(ctx, logr.FromSlogHandler(levelFilter{c.log.Handler()}))
	var wg sync.WaitGroup
	for _, s := range slices.Concat(c.sources, c.aside) {
		wg.Go(func() { s.run(ctx) })
	}
	for _, d := range c.demands {
		wg.Go(func() { d.run(ctx) })
	}
	wg.Go(func() { c.secrets.run(ctx) })
	wg.Wait()
	return nil
}

// Ready is closed once every source has listed its objects.
func (c *Cluster) Ready() <-chan struct{} { return c.ready }

// Synced reports whether every source has listed its objects at least once.
func (c *Cluster) Synced() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.synced
}

// Waiting names the sources that have not listed yet, for a readiness message.
func (c *Cluster) Waiting() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, s := range c.sources {
		if !s.synced() {
			out = append(out, s.name)
		}
	}
	for _, d := range c.demands {
		if !d.aside {
			out = append(out, d.waiting()...)
		}
	}
	if len(out) == 0 && !c.secrets.tried() {
		out = append(out, "secrets")
	}
	return out
}

// String names the cluster as a task.
func (c *Cluster) String() string { return "cluster data" }

// Changed has a value whenever the snapshot may differ from the last one taken.
func (c *Cluster) Changed() <-chan struct{} { return c.changed }

// noteChange drops the snapshot. The caller holds mu.
func (c *Cluster) noteChange() {
	c.snapshot, c.all.last = nil, nil
	c.checkSynced()
	c.wake()
}

// wake says that there is something new.
func (c *Cluster) wake() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
	c.balanced.wake()
}

// checkSynced closes ready when the last source has listed. The caller holds mu.
func (c *Cluster) checkSynced() {
	c.secrets.want(c.passwordSecrets())
	for _, d := range c.demands {
		d.decide()
	}
	if c.synced || !c.secrets.tried() {
		return
	}
	for _, s := range c.sources {
		if !s.synced() {
			return
		}
	}
	for _, d := range c.demands {
		if !d.aside && len(d.waiting()) > 0 {
			return
		}
	}
	c.synced = true
	c.snapshot = nil
	close(c.ready)
	c.wake()
}

// Snapshot gives what is known now. It is built when something changed and
// shared otherwise: nobody may change it.
func (c *Cluster) Snapshot() model.Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.snapshot == nil {
		s := c.build()
		c.snapshot = &s
	}
	return *c.snapshot
}

// Problems gives what could not be read, of every kind that is watched, sorted by
// kind and name, and last that the server does not answer, while it does not.
func (c *Cluster) Problems() []model.Problem {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []model.Problem
	for _, of := range c.unread {
		out = append(out, of()...)
	}
	slices.SortStableFunc(out, func(a, b model.Problem) int {
		return cmp.Or(cmp.Compare(a.Object.Kind, b.Object.Kind), cmp.Compare(a.Object.Namespace, b.Object.Namespace), cmp.Compare(a.Object.Name, b.Object.Name))
	})
	return append(out, c.silence.problems(c.node)...)
}

// parts are what of a Snapshot is made of tables otherwise than as they are.
type parts struct {
	pools        derived[[]model.Pool] // those in force
	assigned     derived[assigned]
	nodes        []model.Node // whose addresses are of the revision subnets
	subnets      revision
	bgp          derived[[]model.BGPConfiguration]
	peers        derived[[]model.BGPPeer]
	namespaces   derived[map[string]map[string]string]
	serviceCIDRs derived[[]model.ServiceCIDR]
	blocks       derived[[]model.Block]
}

// build puts the tables together. What is made of tables that are as they were is
// shared with the Snapshot of before. The caller holds mu.
func (c *Cluster) build() model.Snapshot {
	s := model.Snapshot{
		Synced:     c.synced,
		Nodes:      c.nodes.values(),
		BGP:        c.parts.bgp.at(c.bgp.rev+c.secrets.rev, c.withMeshPasswords),
		Peers:      c.parts.peers.at(c.peers.rev+c.secrets.rev, c.withPasswords),
		Filters:    c.filters.values(),
		Felix:      c.felix.values(),
		Namespaces: c.parts.namespaces.at(c.namespaces.rev, c.namespaceLabels),
		IPAM:       model.IPAM{AutoAllocateBlocks: true},

		ServiceCIDRs: c.parts.serviceCIDRs.at(c.serviceCIDRs.rev, func() []model.ServiceCIDR { return slices.Concat(c.serviceCIDRs.values()...) }),
	}
	s.Pools = c.parts.pools.at(c.pools.rev, c.poolsInForce)
	a := c.parts.assigned.at(c.pools.rev+c.reserved.rev+c.subnets(s.Nodes)+c.bgp.rev+c.peers.rev+c.serviceCIDRs.rev, func() assigned { return c.assigned(s) })
	s.Pools, s.Reserved = a.pools, a.reserved
	if r, ok := c.ipam.rows["default"]; ok && r.ok {
		s.IPAM = r.value
	}
	s.IPAM.Locked = c.locked.rows["default"].value
	if c.blocks != nil {
		s.Blocks = c.parts.blocks.at(c.blocks.rev, func() []model.Block { return sortedBlocks(slices.Clone(c.blocks.values())) })
	}
	if c.services.demand != nil {
		s.Services = c.services.all()
	}
	return s
}

func (c *Cluster) withMeshPasswords() []model.BGPConfiguration {
	out := slices.Clone(c.bgp.values())
	for i := range out {
		out[i].MeshPassword = c.secrets.fill(out[i].MeshPassword)
	}
	return out
}

func (c *Cluster) withPasswords() []model.BGPPeer {
	out := slices.Clone(c.peers.values())
	for i := range out {
		out[i].Password = c.secrets.fill(out[i].Password)
	}
	return out
}

func (c *Cluster) namespaceLabels() map[string]map[string]string {
	out := make(map[string]map[string]string, len(c.namespaces.rows))
	for name, r := range c.namespaces.rows {
		out[name] = r.value.Labels
	}
	return out
}

// passwordSecrets names the Secrets that BGP passwords refer to. The caller
// holds mu.
func (c *Cluster) passwordSecrets() map[string]bool {
	names := map[string]bool{}
	note := func(p *model.PasswordRef) {
		if p != nil {
			names[p.SecretName] = true
		}
	}
	for _, r := range c.bgp.rows {
		note(r.value.MeshPassword)
	}
	for _, r := range c.peers.rows {
		note(r.value.Password)
	}
	return names
}
