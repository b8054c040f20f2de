package app

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/selector"
)

const grace = 10 * time.Minute

var patient = waits{leak: grace, settle: time.Minute, again: grace}

// address is one allocation of a test's cluster.
type address struct{ addr, handle, node, pod string }

// blockOf makes a block with addresses, which are assigned one write apart.
func blockOf(t *testing.T, cidr, node string, list ...address) *ipam.Block {
	t.Helper()
	affinity := ""
	if node != "" {
		affinity = ipam.HostAffinity(model.NodeName(node))
	}
	b, err := ipam.NewBlock(netip.MustParsePrefix(cidr), affinity, then.Time)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range list {
		owner := ipam.Attribute{Handle: a.handle, Owner: map[string]string{"node": a.node}}
		if a.pod != "" {
			owner.Owner["pod"], owner.Owner["namespace"] = a.pod, "default"
		}
		if err := b.AssignAddr(netip.MustParseAddr(a.addr), owner); err != nil {
			t.Fatal(err)
		}
		b.Bump()
	}
	return b
}

// cluster is a world with nodes a and b and one pool.
func cluster(pods map[string]podFacts) world {
	return world{
		nodes: map[model.NodeName]map[string]string{"a": {"rack": "1"}, "b": nil},
		pools: []model.Pool{{Name: "p", CIDR: netip.MustParsePrefix("10.0.0.0/16")}, {Name: "six", CIDR: netip.MustParsePrefix("fd00::/64")}},
		pod: func(namespace, name string) (podFacts, bool) {
			p, ok := pods[name]
			return p, ok && namespace == "default"
		},
		taken: func(a netip.Addr) bool {
			for _, p := range pods {
				if !p.finished && slices.Contains(p.ips, a) {
					return true
				}
			}
			return false
		},
		bound: func(n model.NodeName) bool {
			for _, p := range pods {
				if !p.finished && !p.host && p.node == string(n) {
					return true
				}
			}
			return false
		},
	}
}

func ip(text string) []netip.Addr { return []netip.Addr{netip.MustParseAddr(text)} }

func surveyOf(w world, blocks ...*ipam.Block) *survey {
	s := newSurvey()
	for _, b := range blocks {
		s.add(b, w)
	}
	return s
}

// due plays judge over surveys that are the given times apart, all the same,
// and names what the last one releases.
func due(s *survey, w world, names []string, gaps ...time.Duration) (handles, orphans, blocks []string) {
	at := now
	m, v := evaluate(memory{}, s, w, names, at, patient)
	for _, gap := range gaps {
		at = at.Add(gap)
		m, v = evaluate(m, s, w, names, at, patient)
	}
	for _, leaks := range v.handles {
		handles = append(handles, leaks[0].alloc.Handle)
	}
	for _, b := range v.blocks {
		blocks = append(blocks, b.cidr.String())
	}
	return handles, v.orphans, blocks
}

func TestEvaluateAddresses(t *testing.T) {
	one := address{"10.0.0.1", "net.1", "a", "web"}
	for name, c := range map[string]struct {
		alloc []address
		six   []address
		pods  map[string]podFacts
		want  []string
	}{
		"pod has it":                    {[]address{one}, nil, map[string]podFacts{"web": {node: "a", ips: ip("10.0.0.1")}}, nil},
		"pod is gone":                   {[]address{one}, nil, nil, []string{"net.1"}},
		"pod has no network yet":        {[]address{one}, nil, map[string]podFacts{"web": {node: "a"}}, nil},
		"pod is not scheduled":          {[]address{one}, nil, map[string]podFacts{"web": {}}, nil},
		"pod has finished":              {[]address{one}, nil, map[string]podFacts{"web": {node: "a", ips: ip("10.0.0.1"), finished: true}}, []string{"net.1"}},
		"pod is elsewhere":              {[]address{one}, nil, map[string]podFacts{"web": {node: "b"}}, []string{"net.1"}},
		"pod has another address":       {[]address{one}, nil, map[string]podFacts{"web": {node: "a", ips: ip("10.0.0.9")}}, []string{"net.1"}},
		"no pod: a tunnel":              {[]address{{"10.0.0.1", "vxlan-tunnel-addr-a", "a", ""}}, nil, nil, nil},
		"no handle":                     {[]address{{"10.0.0.1", "", "a", "web"}}, nil, nil, nil},
		"another pod has it":            {[]address{one}, nil, map[string]podFacts{"other": {node: "b", ips: ip("10.0.0.1")}}, nil},
		"both families leaked":          {[]address{one}, []address{{"fd00::1", "net.1", "a", "web"}}, nil, []string{"net.1"}},
		"one family in use keeps both":  {[]address{one}, []address{{"fd00::1", "net.1", "a", "live"}}, map[string]podFacts{"live": {node: "a"}}, nil},
		"no handle is kept for another": {[]address{one, {"10.0.0.2", "net.2", "a", "live"}}, nil, map[string]podFacts{"live": {node: "a"}}, []string{"net.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := cluster(c.pods)
			s := surveyOf(w, blockOf(t, "10.0.0.0/26", "a", c.alloc...), blockOf(t, "fd00::/122", "a", c.six...))
			got, _, _ := due(s, w, nil, grace)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
			if early, _, _ := due(s, w, nil, grace/2, grace/2-1); early != nil {
				t.Errorf("before the grace was over: %v", early)
			}
			if once, _, _ := due(s, w, nil); once != nil {
				t.Errorf("seen once: %v", once)
			}
		})
	}
}

// An address that was assigned anew, or whose pod came back for one look, has
// its grace from the start.
func TestGraceStartsAnew(t *testing.T) {
	w := cluster(nil)
	first := blockOf(t, "10.0.0.0/26", "a", address{"10.0.0.1", "net.1", "a", "web"})
	m, _ := evaluate(memory{}, surveyOf(w, first), w, nil, now, patient)
	again := first.Clone()
	again.ReleaseHandle("net.1", now, 0)
	again.Bump()
	again.Assign(1, ipam.Attribute{Handle: "net.1", Owner: map[string]string{"node": "a", "pod": "web", "namespace": "default"}}, func(a netip.Addr) bool { return a.String() != "10.0.0.1" })
	if m, v := evaluate(m, surveyOf(w, again), w, nil, now.Add(grace), patient); len(v.handles) != 0 || len(m.handles) != 1 {
		t.Errorf("assigned anew: %+v %+v", m, v)
	}
	lives := cluster(map[string]podFacts{"web": {node: "a"}})
	m, _ = evaluate(m, surveyOf(lives, first), lives, nil, now.Add(grace/2), patient)
	if _, v := evaluate(m, surveyOf(w, first), w, nil, now.Add(grace), patient); len(v.handles) != 0 {
		t.Errorf("its pod was seen meanwhile: %+v", v)
	}
}

func TestEvaluateOrphans(t *testing.T) {
	w := cluster(map[string]podFacts{"web": {node: "a"}})
	s := surveyOf(w, blockOf(t, "10.0.0.0/26", "a", address{"10.0.0.1", "net.Used", "a", "web"}))
	names := []string{"net.used", "net.empty"}
	if _, got, _ := due(s, w, names, grace/2, grace/2); !slices.Equal(got, []string{"net.empty"}) {
		t.Errorf("got %v", got)
	}
	if _, got, _ := due(s, w, names, grace-1); got != nil {
		t.Errorf("early: %v", got)
	}
	// A survey without a list of handles forgets nothing.
	m, _ := evaluate(memory{}, s, w, names, now, patient)
	m, _ = evaluate(m, s, w, nil, now.Add(grace/2), patient)
	if _, v := evaluate(m, s, w, names, now.Add(grace), patient); len(v.orphans) != 1 {
		t.Errorf("forgotten: %+v", v)
	}
}

func TestEvaluateBlocks(t *testing.T) {
	rack1, err := selector.Parse("rack == '1'")
	if err != nil {
		t.Fatal(err)
	}
	used := func(cidr string) address {
		return address{netip.MustParsePrefix(cidr).Addr().String(), "net." + cidr, "a", "web"}
	}
	full := func(cidr, node string) *ipam.Block { return blockOf(t, cidr, node, used(cidr)) }
	empty := func(cidr, node string) *ipam.Block { return blockOf(t, cidr, node) }
	exclude := func(cidr string) func(*model.Pool) {
		return func(p *model.Pool) { p.Excluded = []netip.Prefix{netip.MustParsePrefix(cidr)} }
	}
	for name, c := range map[string]struct {
		blocks []*ipam.Block
		change func(*model.Pool)
		want   []string
		atOnce bool
	}{
		"the last one stays":              {[]*ipam.Block{empty("10.0.0.0/26", "a")}, nil, nil, false},
		"one of two empty ones stays":     {[]*ipam.Block{empty("10.0.0.0/26", "a"), empty("10.0.0.64/26", "a")}, nil, []string{"10.0.0.64/26"}, false},
		"the empty one beside a used one": {[]*ipam.Block{empty("10.0.0.0/26", "a"), full("10.0.0.64/26", "a")}, nil, []string{"10.0.0.0/26"}, false},
		"used ones stay":                  {[]*ipam.Block{full("10.0.0.0/26", "a"), full("10.0.0.64/26", "a")}, nil, nil, false},
		"one of each family stays":        {[]*ipam.Block{empty("10.0.0.0/26", "a"), empty("fd00::/122", "a")}, nil, nil, false},
		"one of each node stays":          {[]*ipam.Block{empty("10.0.0.0/26", "a"), empty("10.0.0.64/26", "b")}, nil, nil, false},
		"of nobody":                       {[]*ipam.Block{empty("10.0.0.0/26", ""), full("10.0.0.64/26", "")}, nil, []string{"10.0.0.0/26"}, false},
		"outside every pool":              {[]*ipam.Block{empty("10.0.9.0/26", "a"), empty("192.168.0.0/26", "a")}, nil, []string{"192.168.0.0/26"}, false},
		"the pool selects a, not b":       {[]*ipam.Block{empty("10.0.0.0/26", "a"), empty("10.0.0.64/26", "b"), full("10.0.0.128/26", "b")}, func(p *model.Pool) { p.NodeSelector = rack1 }, []string{"10.0.0.64/26"}, false},
		"a router is in it":               {[]*ipam.Block{empty("10.0.0.0/26", "a"), empty("10.0.0.64/26", "b")}, exclude("10.0.0.1/32"), []string{"10.0.0.0/26"}, false},
		"a router is in it, and a pod":    {[]*ipam.Block{full("10.0.0.0/26", "a")}, exclude("10.0.0.1/32"), nil, false},
		"it lies in a nodes' subnet":      {[]*ipam.Block{empty("10.0.0.0/26", "a"), empty("10.0.1.0/26", "a")}, exclude("10.0.0.0/24"), []string{"10.0.0.0/26"}, false},
		"the pool is being deleted":       {[]*ipam.Block{empty("10.0.0.0/26", "a"), full("10.0.0.64/26", "a")}, func(p *model.Pool) { p.Deleting = true }, []string{"10.0.0.0/26"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := cluster(map[string]podFacts{"web": {node: "a"}})
			if c.change != nil {
				c.change(&w.pools[0])
			}
			s := surveyOf(w, c.blocks...)
			_, _, got := due(s, w, nil, grace)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
			if _, _, early := due(s, w, nil, grace-1); early != nil != c.atOnce {
				t.Errorf("before the grace was over: %v", early)
			}
		})
	}
	t.Run("written to meanwhile", func(t *testing.T) {
		w := cluster(nil)
		b := empty("10.0.0.0/26", "")
		m, _ := evaluate(memory{}, surveyOf(w, b), w, nil, now, patient)
		b.Bump()
		if _, v := evaluate(m, surveyOf(w, b), w, nil, now.Add(grace), patient); len(v.blocks) != 0 {
			t.Errorf("%+v", v)
		}
	})
}

func TestUsage(t *testing.T) {
	w := cluster(map[string]podFacts{"web": {node: "a"}})
	s := surveyOf(w, blockOf(t, "10.0.0.0/26", "a", address{"10.0.0.1", "h1", "a", "web"}, address{"10.0.0.2", "h2", "b", ""}, address{"10.0.0.3", "h3", "a", "gone"}), blockOf(t, "10.0.9.0/26", ""), blockOf(t, "192.0.2.0/26", "b"))
	want := map[place]usage{
		{"p", "a"}:    {inUse: 2, blocks: 1, candidates: 1},
		{"p", "b"}:    {inUse: 1, borrowed: 1},
		{"p", ""}:     {blocks: 1},
		{noPool, "b"}: {blocks: 1},
	}
	if d := cmp.Diff(want, s.usage, cmp.AllowUnexported(place{}, usage{})); d != "" {
		t.Error(d)
	}
}

func TestUsageMetrics(t *testing.T) {
	m := &usageMetrics{}
	pools := []model.Pool{
		{Name: "p", CIDR: netip.MustParsePrefix("10.0.0.0/24"), BlockSize: 26}, {Name: "all", CIDR: netip.MustParsePrefix("10.1.0.0/30"), BlockSize: 30},
		{Name: "six", CIDR: netip.MustParsePrefix("fd00::/64"), BlockSize: 122}, {Name: "none", CIDR: netip.MustParsePrefix("10.2.0.0/31"), BlockSize: 32},
	}
	var reserved []netip.Prefix
	for _, text := range []string{"10.0.0.8/30", "10.0.0.8/29", "10.0.0.9/32", "10.0.0.255/32", "10.1.0.0/16", "fd00::/120", "192.0.2.0/24"} {
		reserved = append(reserved, netip.MustParsePrefix(text))
	}
	m.set(model.Snapshot{Pools: pools, Reserved: reserved}, map[place]usage{
		{"p", "a"}: {inUse: 2, blocks: 1, candidates: 1}, {"six", "a"}: {inUse: 3, blocks: 1}, {"p", ""}: {inUse: 1, borrowed: 1},
	})
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, one := range f.GetMetric() {
			labels := make([]string, 0, 2)
			for _, l := range one.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			got[f.GetName()+" "+strings.Join(labels, " ")] = one.GetGauge().GetValue()
		}
	}
	want := map[string]float64{
		"ipam_allocations_in_use p a": 2, "ipam_allocations_in_use six a": 3, "ipam_allocations_in_use p unknown_node": 1,
		"ipam_allocations_borrowed p a": 0, "ipam_allocations_borrowed six a": 0, "ipam_allocations_borrowed p unknown_node": 1,
		"ipam_blocks p a": 1, "ipam_blocks six a": 1, "ipam_blocks p unknown_node": 0,
		"ipam_allocations_gc_candidates p a": 1, "ipam_allocations_gc_candidates six a": 0, "ipam_allocations_gc_candidates p unknown_node": 0,
		"ipam_allocations_per_node a": 5, "ipam_allocations_per_node unknown_node": 1,
		"ipam_allocations_borrowed_per_node a": 0, "ipam_allocations_borrowed_per_node unknown_node": 1,
		"ipam_blocks_per_node a": 2, "ipam_blocks_per_node unknown_node": 0,
		"ipam_ippool_size p": 256, "ipam_ippool_size all": 4, "ipam_ippool_size six": 1 << 64, "ipam_ippool_size none": 2,
		"muslin_ippool_blocks_free p": 3, "muslin_ippool_blocks_free all": 1, "muslin_ippool_blocks_free six": 1 << 58, "muslin_ippool_blocks_free none": 2,
		"ipam_ippool_reserved p": 9, "ipam_ippool_reserved all": 4, "ipam_ippool_reserved six": 256, "ipam_ippool_reserved none": 0,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestLeakGrace(t *testing.T) {
	for text, want := range map[string]time.Duration{
		`{}`:                                   defaultLeakGrace,
		`{"spec":{"controllers":{"node":{}}}}`: defaultLeakGrace,
		`{"spec":{"controllers":{"node":{"leakGracePeriod":"90s"}}}}`:  90 * time.Second,
		`{"spec":{"controllers":{"node":{"leakGracePeriod":"0s"}}}}`:   0,
		`{"spec":{"controllers":{"node":{"leakGracePeriod":"soon"}}}}`: -1,
		`{"spec":{"controllers":{"node":{"leakGracePeriod":"-1s"}}}}`:  -1,
	} {
		got, err := readLeakGrace([]byte(text))
		if want < 0 != (err != nil) || err == nil && got != want {
			t.Errorf("%s: %v %v, want %v", text, got, err, want)
		}
	}
}

func TestFinalizers(t *testing.T) {
	yes, no := true, false
	pool := func(finalizer, deleting bool) []kube.Reported {
		r := reported("IPPool", "p")
		r.Meta.Deleting = deleting
		if finalizer {
			r.Meta.Finalizers = []string{"other", PoolFinalizer}
		}
		return []kube.Reported{r}
	}
	for name, c := range map[string]struct {
		pools        []kube.Reported
		inUse        *bool
		uninstalling bool
		want         []finalize
	}{
		"has blocks":                    {pool(false, false), &yes, false, []finalize{{"p", "p", true}}},
		"has blocks and the finalizer":  {pool(true, false), &yes, false, nil},
		"has none":                      {pool(false, false), &no, false, nil},
		"has none any more":             {pool(true, false), &no, false, []finalize{{"p", "p", false}}},
		"deleted, has blocks":           {pool(true, true), &yes, false, nil},
		"deleted, is empty":             {pool(true, true), &no, false, []finalize{{"p", "p", false}}},
		"deleted, too late for one":     {pool(false, true), &yes, false, nil},
		"cannot be read":                {pool(false, false), nil, false, nil},
		"cannot be read, has it":        {pool(true, false), nil, false, nil},
		"uninstall":                     {pool(true, true), &yes, true, []finalize{{"p", "p", false}}},
		"uninstall, cannot be read":     {pool(true, true), nil, true, []finalize{{"p", "p", false}}},
		"uninstall, before its delete":  {pool(true, false), &yes, true, []finalize{{"p", "p", false}}},
		"uninstall, without":            {pool(false, false), &yes, true, nil},
		"another kind is nobody's here": {[]kube.Reported{reported("BGPPeer", "p")}, &yes, false, nil},
	} {
		got := finalizers(c.pools, func(string) *bool { return c.inUse }, c.uninstalling)
		if d := cmp.Diff(c.want, got, cmp.AllowUnexported(finalize{})); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}
