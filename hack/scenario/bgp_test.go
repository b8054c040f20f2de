package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/hack/lab/fabric"
)

// spoken is what TestWhatIsSpoken tells in chapters.
type spoken struct{ *LightCluster }

// TestWhatIsSpoken: services, the route origin check, CalicoNodeStatus, events
// and drain, as the routers of two racks, the kernels and the API server see
// them. Four agents, BIRD and FRR.
func TestWhatIsSpoken(t *testing.T) {
	t.Parallel() // mostly waits; beside other labs
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	c := lightCluster(t, ctx, "bgpsc", "testdata/four-light.yaml")
	if err := c.StartAgents(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AwaitFullTables(ctx, 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	s := spoken{c}
	tellChapters(t, ctx, []chapter{
		{"services", s.services}, {"node status", s.nodeStatus}, {"origin", s.origin}, {"interface", s.interfaces}, {"bad input", s.badInput}, {"balanced", s.balanced}, {"events", s.events}, {"drain", s.drain},
	})
}

const (
	serviceRange = "10.96.0.0/16"
	sharedIP     = "198.51.100.7"
	sharedHost   = sharedIP + "/32"
)

// await waits for something to be true of the cluster, with a bound that only
// ends what will never come.
func (s spoken) await(t *testing.T, ctx context.Context, what string, check func() error) {
	t.Helper()
	if err := s.eventually(ctx, 45*time.Second, check); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func (s spoken) address(node string) netip.Addr {
	n, _ := s.Topology().Node(node)
	return n.Address.V4
}

// bird gives the nodes of rack r1 that tor1 has heard a prefix from.
func (s spoken) bird(ctx context.Context, prefix string) ([]string, error) {
	out, err := s.Machine("tor1").Exec(ctx, "birdc", "show", "route", prefix, "all")
	if err != nil && !strings.Contains(string(out), "Network not found") {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	var from []string
	for _, node := range []string{"a1", "a2"} {
		if strings.Contains(string(out), "via "+s.address(node).String()+" ") {
			from = append(from, node)
		}
	}
	return from, nil
}

// frrPath is what FRR says of a path.
type frrPath struct {
	PeerID    string `json:"peerId"`
	Community struct {
		String string `json:"string"`
	} `json:"community"`
	Peer struct {
		PeerID string `json:"peerId"`
	} `json:"peer"`
}

// frr gives the nodes of rack r2 that tor2 has heard a prefix from.
func (s spoken) frr(ctx context.Context, prefix string) ([]string, map[string]string, error) {
	out, err := s.Machine("tor2").Exec(ctx, "vtysh", "-c", "show bgp ipv4 unicast "+prefix+" json")
	if err != nil {
		return nil, nil, err
	}
	var view struct {
		Paths []frrPath `json:"paths"`
	}
	if err := json.Unmarshal(out, &view); err != nil {
		return nil, nil, fmt.Errorf("read %q: %w", out, err)
	}
	var from []string
	communities := map[string]string{}
	for _, node := range []string{"b1", "b2"} {
		for _, p := range view.Paths {
			if p.Peer.PeerID == s.address(node).String() {
				from = append(from, node)
				communities[node] = p.Community.String
			}
		}
	}
	return from, communities, nil
}

// received waits until BIRD has a prefix from just these nodes of its rack, and
// FRR from those of its own.
func (s spoken) received(t *testing.T, ctx context.Context, prefix string, want ...string) {
	t.Helper()
	s.await(t, ctx, prefix, func() error {
		bird, err := s.bird(ctx, prefix)
		if err != nil {
			return err
		}
		frr, _, err := s.frr(ctx, prefix)
		if err != nil {
			return err
		}
		if got := slices.Concat(bird, frr); !slices.Equal(got, want) {
			return fmt.Errorf("the routers hear it from %v, want %v", got, want)
		}
		return nil
	})
}

const sharedService = `apiVersion: v1
kind: Service
metadata: {name: shared, namespace: default}
spec: {type: LoadBalancer, externalTrafficPolicy: Local, ports: [{port: 80}]}
`

// endpoints makes an EndpointSlice of a service, with an endpoint on each node.
func endpoints(nodes ...string) string {
	var list []string
	for i, n := range nodes {
		list = append(list, fmt.Sprintf("{addresses: [10.244.77.%d], nodeName: %s, conditions: {ready: true}}", i+1, n))
	}
	return fmt.Sprintf(`apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: shared, namespace: default, labels: {kubernetes.io/service-name: shared}}
addressType: IPv4
ports: [{port: 80}]
endpoints: [%s]
`, strings.Join(list, ", "))
}

// services: the range of cluster addresses comes from every node, the address
// of a service with local traffic from the nodes that serve it.
func (s spoken) services(t *testing.T, ctx context.Context) {
	s.received(t, ctx, serviceRange)
	s.kubectl(t, ctx, "", "patch", "bgpconfiguration.projectcalico.org", "default", "--type=merge", "-p",
		`{"spec":{"serviceClusterIPs":[{"cidr":"`+serviceRange+`"}],"serviceLoadBalancerIPs":[{"cidr":"198.51.100.0/24"}]}}`)
	s.received(t, ctx, serviceRange, "a1", "a2", "b1", "b2")
	s.received(t, ctx, "198.51.100.0/24", "a1", "a2", "b1", "b2")

	s.kubectl(t, ctx, sharedService, "apply", "-f", "-")
	s.kubectl(t, ctx, "", "patch", "service", "shared", "--subresource=status", "--type=merge", "-p",
		`{"status":{"loadBalancer":{"ingress":[{"ip":"`+sharedIP+`"}]}}}`)
	s.kubectl(t, ctx, endpoints("a1", "b1"), "apply", "-f", "-")
	s.received(t, ctx, sharedHost, "a1", "b1")
	s.kubectl(t, ctx, endpoints("b1", "b2"), "apply", "-f", "-")
	s.received(t, ctx, sharedHost, "b1", "b2")
}

// agentView is what the chapters ask of an agent's own status.
type agentView struct {
	Origin struct {
		Mode     string
		Standing int
		Total    map[string]int
		Refused  []struct{ Prefix, Reason string }
	}
	Problems []string
}

func (s spoken) view(ctx context.Context, node string) (v agentView, err error) {
	out, err := s.Machine(node).Exec(ctx, filepath.Join(s.bin, "muslin-agent"), "status")
	if err != nil {
		return v, err
	}
	return v, json.Unmarshal(out, &v)
}

// origin: a router announces a pod prefix that IPAM knows nothing of, half of
// another node's block, and a default route, which the nodes have already.
func (s spoken) origin(t *testing.T, ctx context.Context) {
	const stray = "10.244.200.0/26"
	block, err := s.blockOf(ctx, "a2")
	if err != nil {
		t.Fatal(err)
	}
	half := netip.PrefixFrom(netip.MustParsePrefix(block).Addr(), 27).String()
	// routed tells whether both are in the kernel; the half without the stray, or
	// the other way round, is an error.
	routed := func(node string) (bool, error) {
		routes, err := s.Fabric.Routes(node)
		if err != nil {
			return false, err
		}
		has := func(p string) bool {
			return slices.ContainsFunc(routes, func(r fabric.Route) bool { return r.To.String() == p })
		}
		if has(stray) != has(half) {
			return false, fmt.Errorf("%s: of %s and %s one is in the kernel", node, stray, half)
		}
		return has(stray), nil
	}
	defaults := func() string {
		out, err := s.Machine("b1").Exec(ctx, "ip", "-4", "route", "show", "default")
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	before := defaults()
	counted := func(node string, mode string, installed bool) func() error {
		return func() error {
			v, err := s.view(ctx, node)
			if err != nil {
				return err
			}
			has, err := routed(node)
			if err != nil {
				return err
			}
			var refused []string
			for _, r := range v.Origin.Refused {
				refused = append(refused, r.Prefix)
			}
			slices.Sort(refused)
			want := []string{half, stray}
			slices.Sort(want)
			if v.Origin.Mode != mode || v.Origin.Standing != 2 || v.Origin.Total["NoBlock"] < 2 || !slices.Equal(refused, want) || has != installed {
				return fmt.Errorf("%s: origin check %+v, routes in the kernel: %v", node, v.Origin, has)
			}
			if node == "b1" && (!strings.Contains(strings.Join(v.Problems, "\n"), "default route that is not Muslin's") || defaults() != before) {
				return fmt.Errorf("%s: default route %q, before %q, problems %q", node, defaults(), before, v.Problems)
			}
			return nil
		}
	}
	mode := func(m string) {
		t.Helper()
		s.kubectl(t, ctx, "", "annotate", "bgpconfiguration.projectcalico.org", "default", "--overwrite", "muslin.io/origin-check="+m)
	}
	for _, p := range []string{stray, half, "0.0.0.0/0"} {
		s.inject(t, ctx, "network "+p)
	}
	s.await(t, ctx, "check off", func() error {
		if has, err := routed("b1"); err != nil || !has {
			return fmt.Errorf("the stray prefix is not installed: %w", err)
		}
		return nil
	})
	mode("Warn")
	s.await(t, ctx, "warn", counted("b1", "Warn", true))
	mode("Enforce")
	s.await(t, ctx, "enforce", counted("b1", "Enforce", false))
	s.await(t, ctx, "enforce in the other rack", counted("a1", "Enforce", false))
	metric := s.metric(t, ctx, "b1", `muslin_bgp_origin_refusals_total{reason="NoBlock"}`)
	if metric == "" || metric == "0" {
		t.Errorf("metric of refusals: %q", metric)
	}
	// tor2 tells b1 what it has from the other rack, where our own AS is.
	// The agent counts them again only so often.
	s.await(t, ctx, "metric of loops", func() error {
		if n := s.metric(t, ctx, "b1", `muslin_bgp_refused_prefixes{peer="10.1.2.1",reason="as path loop"}`); n == "" || n == "0" {
			return fmt.Errorf("it is %q", n)
		}
		return nil
	})
	if _, err := s.AwaitFullTables(ctx, time.Minute); err != nil {
		t.Errorf("routes that ipam confirms: %v", err)
	}
	// A block that is made while the check is on gets through.
	if _, err := s.AddLightPod(ctx, "a2", "late"); err != nil {
		t.Fatal(err)
	}
	mode("Off")
	s.await(t, ctx, "off again", func() error {
		if has, err := routed("b1"); err != nil || !has {
			return fmt.Errorf("the stray prefix is not back: %w", err)
		}
		return nil
	})
	for _, p := range []string{stray, half, "0.0.0.0/0"} {
		s.inject(t, ctx, "no network "+p)
	}
}

// interfaces: a filter on the link that a prefix would be reached over; then the
// path to the router changes to another link, and back.
func (s spoken) interfaces(t *testing.T, ctx context.Context) {
	const rack, tor2, prefix = "bgppeer.projectcalico.org/rack-r2", "10.1.2.1", "203.0.113.0/24"
	const other = "192.0.2.128/25" // which no rule is about
	links, err := s.Machine("b1").Exec(ctx, "ip", "-o", "route", "get", tor2)
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(links), " dev ")
	uplink, _, _ := strings.Cut(after, " ")
	filter := func(pattern string) {
		t.Helper()
		s.kubectl(t, ctx, `{apiVersion: projectcalico.org/v3, kind: BGPFilter, metadata: {name: link},
 spec: {importV4: [{interface: "`+pattern+`", cidr: `+prefix+`, matchOperator: Equal, action: Reject}]}}`, "apply", "-f", "-")
	}
	installed := func(what string, want bool) {
		t.Helper()
		s.await(t, ctx, what, func() error {
			routes, err := s.Fabric.Routes("b1")
			if err != nil {
				return err
			}
			has := func(p string) bool {
				return slices.ContainsFunc(routes, func(r fabric.Route) bool { return r.To.String() == p })
			}
			if has(prefix) != want || !has(other) {
				return fmt.Errorf("installed: %v, and %v what no rule is about", has(prefix), has(other))
			}
			return nil
		})
	}
	filter("other*")
	s.kubectl(t, ctx, "", "patch", rack, "--type=merge", "-p", `{"spec":{"filters":["link"]}}`)
	s.inject(t, ctx, "network "+prefix)
	s.inject(t, ctx, "network "+other)
	installed("another link", true)
	filter(uplink)
	installed("the uplink", false)
	s.await(t, ctx, "counted", func() error {
		if n := s.metric(t, ctx, "b1", `muslin_bgp_refused_prefixes{peer="`+tor2+`",reason="filter link importV4[0]"}`); n != "1" {
			return fmt.Errorf("metric of refused prefixes: %q", n)
		}
		return nil
	})
	filter(uplink[:2] + "*")
	installed("a pattern", false)
	filter("way-*")
	installed("no longer", true)
	// A link that leads nowhere takes the address over, in the kernel's eyes.
	s.exec(t, ctx, "b1", "ip", "link", "add", "way-0", "type", "veth", "peer", "name", "nowhere")
	s.exec(t, ctx, "b1", "ip", "link", "set", "nowhere", "up")
	s.exec(t, ctx, "b1", "ip", "link", "set", "way-0", "up")
	s.exec(t, ctx, "b1", "ip", "route", "add", tor2+"/32", "dev", "way-0", "metric", "1")
	installed("another way", false)
	s.exec(t, ctx, "b1", "ip", "link", "del", "way-0")
	installed("the old way", true)
	s.inject(t, ctx, "no network "+prefix)
	s.inject(t, ctx, "no network "+other)
	s.kubectl(t, ctx, "", "patch", rack, "--type=merge", "-p", `{"spec":{"filters":null}}`)
	s.kubectl(t, ctx, "", "delete", "bgpfilter.projectcalico.org", "link")
}

func (s spoken) exec(t *testing.T, ctx context.Context, node string, words ...string) {
	t.Helper()
	if out, err := s.Machine(node).Exec(ctx, words...); err != nil {
		t.Fatalf("%v: %v\n%s", words, err, out)
	}
}

// badInput: what the schema cannot refuse is shown as a condition that names the
// field, and the session goes on with what was good last.
func (s spoken) badInput(t *testing.T, ctx context.Context) {
	s.startController(t, "a1")
	const peer, config = "bgppeer.projectcalico.org/rack-r2", "bgpconfiguration.projectcalico.org/default"
	const flaps = `muslin_bgp_peer_flaps_total{asn="65102",kind="NodePeer",peer="10.1.2.1"}`
	block, err := s.blockOf(ctx, "b1")
	if err != nil {
		t.Fatal(err)
	}
	before := s.metric(t, ctx, "b1", flaps)
	if before == "" {
		t.Fatalf("no %s", flaps)
	}
	for _, bad := range []struct{ object, spec, undo, field string }{
		{peer, `{"nodeSelector":"rack =="}`, `{"nodeSelector":"rack == 'r2'"}`, "spec.nodeSelector"},
		{peer, `{"filters":["absent"]}`, `{"filters":null}`, "spec.filters[0]"},
		{peer, `{"reachableBy":"fd00::1"}`, `{"reachableBy":null}`, "spec.reachableBy"},
		{config, `{"prefixAdvertisements":[{"cidr":"10.244.0.0/16","communities":["absent"]}]}`, `{"prefixAdvertisements":null}`, "spec.prefixAdvertisements[0].communities[0]"},
	} {
		s.kubectl(t, ctx, "", "patch", bad.object, "--type=merge", "-p", `{"spec":`+bad.spec+`}`)
		s.accepted(t, ctx, bad.object, "False", bad.field)
		s.received(t, ctx, block, "b1")
		s.kubectl(t, ctx, "", "patch", bad.object, "--type=merge", "-p", `{"spec":`+bad.undo+`}`)
		s.accepted(t, ctx, bad.object, "True", "")
	}
	if after := s.metric(t, ctx, "b1", flaps); after != before {
		t.Errorf("the session was lost %s times before, %s now", before, after)
	}
}

// accepted waits for an object's condition of that name.
func (s spoken) accepted(t *testing.T, ctx context.Context, object, status, field string) {
	t.Helper()
	s.await(t, ctx, object, func() error {
		out, err := s.Kubectl(ctx, "", "get", object, "-o", `jsonpath={range .status.conditions[?(@.type=="Accepted")]}{.status} {.reason} {.message}{end}`)
		if err == nil && (!strings.HasPrefix(string(out), status+" ") || !strings.Contains(string(out), field)) {
			err = fmt.Errorf("condition Accepted is %q, want %s and %q", out, status, field)
		}
		return err
	})
}

// inject changes what tor2 announces.
func (s spoken) inject(t *testing.T, ctx context.Context, line string) {
	t.Helper()
	_, err := s.Machine("tor2").Exec(ctx, "vtysh", "-c", "configure terminal", "-c", "router bgp 65102", "-c", "no bgp network import-check", "-c", "address-family ipv4 unicast", "-c", line)
	if err != nil {
		t.Fatal(err)
	}
}

func (s spoken) metric(t *testing.T, ctx context.Context, node, name string) string {
	t.Helper()
	out, err := s.Machine(node).CommandInNet(ctx, "curl", "-sf", "http://127.0.0.1:9109/metrics").Output()
	if err != nil {
		t.Fatalf("metrics of %s: %v", node, err)
	}
	for line := range strings.SplitSeq(string(out), "\n") {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return value
		}
	}
	return ""
}

const statusOfB1 = `apiVersion: projectcalico.org/v3
kind: CalicoNodeStatus
metadata: {name: b1}
spec: {node: b1, classes: [Agent, BGP, Routes], updatePeriodSeconds: 1}
`

// nodeStatus: an object that asks for it holds what the node knows, and keeps
// up with it.
func (s spoken) nodeStatus(t *testing.T, ctx context.Context) {
	s.kubectl(t, ctx, statusOfB1, "apply", "-f", "-")
	block, err := s.blockOf(ctx, "a1")
	if err != nil {
		t.Fatal(err)
	}
	s.await(t, ctx, "status of b1", func() error {
		out, err := s.Kubectl(ctx, "", "get", "caliconodestatus", "b1", "-o", "json")
		if err != nil {
			return err
		}
		var got struct {
			Status struct {
				LastUpdated string
				Agent       struct {
					BIRDV4 struct{ State, RouterID, Version string }
				}
				BGP struct {
					NumberEstablishedV4 int
					PeersV4             []struct{ PeerIP, Type, State string }
				}
				Routes struct {
					RoutesV4 []struct {
						Type, Destination, Gateway, Interface string
						LearnedFrom                           struct{ SourceType, PeerIP string }
					}
				}
			}
		}
		if err := json.Unmarshal(out, &got); err != nil {
			return err
		}
		st := got.Status
		if st.LastUpdated == "" || st.Agent.BIRDV4.State != "Ready" || st.Agent.BIRDV4.RouterID != s.address("b1").String() {
			return fmt.Errorf("agent: %+v", st.Agent)
		}
		if st.BGP.NumberEstablishedV4 != 4 || len(st.BGP.PeersV4) != 4 { // three nodes, one router
			return fmt.Errorf("bgp: %+v", st.BGP)
		}
		for _, r := range st.Routes.RoutesV4 {
			if r.Type == "FIB" && r.Destination == block && r.Gateway != "" && r.Interface != "" && r.LearnedFrom.PeerIP != "" {
				return nil
			}
		}
		return fmt.Errorf("no way to %s: %+v", block, st.Routes)
	})
}

// blockOf is a block of a node.
func (s spoken) blockOf(ctx context.Context, node string) (string, error) {
	out, err := s.Kubectl(ctx, "", "get", "blockaffinities.projectcalico.org", "-o", `jsonpath={range .items[?(@.spec.node=="`+node+`")]}{.spec.cidr}{"\n"}{end}`)
	if err != nil {
		return "", err
	}
	blocks := strings.Fields(string(out))
	if len(blocks) == 0 {
		return "", fmt.Errorf("%s has no block", node)
	}
	return blocks[0], nil
}

// events: a router that resets a session is seen in the events of its BGPPeer;
// the first establishment was none.
func (s spoken) events(t *testing.T, ctx context.Context) {
	answer := func() (string, error) {
		out, err := s.Kubectl(ctx, "", "get", "events", "-n", "default", "--field-selector", "involvedObject.kind=BGPPeer,involvedObject.name=rack-r2",
			"-o", `jsonpath={range .items[*]}{.reason} {.message}{"\n"}{end}`)
		return string(out), err
	}
	if before, err := answer(); err != nil || before != "" {
		t.Errorf("events before anything happened: %q, %v", before, err)
	}
	if _, err := s.Machine("tor2").Exec(ctx, "vtysh", "-c", "clear bgp "+s.address("b2").String()); err != nil {
		t.Fatal(err)
	}
	s.await(t, ctx, "events of the session", func() error {
		text, err := answer()
		if err != nil {
			return err
		}
		for _, want := range []string{"BGPSessionLost session of b2 with ", "BGPSessionEstablished session of b2 with "} {
			if strings.Count(text, want) != 1 {
				return fmt.Errorf("want one %q in:\n%s", want, text)
			}
		}
		return nil
	})
	if _, err := s.AwaitFullTables(ctx, time.Minute); err != nil {
		t.Fatal(err)
	}
}

// drain: the node that a shared address is reached through is drained, first by
// asking and then for good, while a host outside pings that address.
func (s spoken) drain(t *testing.T, ctx context.Context) {
	s.received(t, ctx, sharedHost, "b1", "b2")
	for _, n := range []string{"b1", "b2"} {
		if _, err := s.Machine(n).Exec(ctx, "ip", "address", "add", sharedHost, "dev", "lo"); err != nil {
			t.Fatal(err)
		}
	}
	drained := "b1"
	var paths []string
	s.await(t, ctx, "tor2 routes the shared address", func() (err error) {
		if paths, err = s.paths(ctx); err == nil && len(paths) == 0 {
			err = fmt.Errorf("no way")
		}
		return err
	})
	if !slices.Contains(paths, drained) {
		drained = paths[0]
	}
	block, err := s.blockOf(ctx, drained)
	if err != nil {
		t.Fatal(err)
	}
	ping := s.pingFromOutside(t, ctx, sharedIP)
	const steady = time.Second // of traffic before, between and after the steps
	time.Sleep(steady)
	s.kubectl(t, ctx, "", "annotate", "node", drained, "muslin.io/drain=Shutdown")
	s.await(t, ctx, "tor2 prefers another way", func() error {
		_, communities, err := s.frr(ctx, block)
		if err != nil {
			return err
		}
		// The other node announces the shared address unmarked, and this one goes on.
		_, shared, err := s.frr(ctx, sharedHost)
		if err != nil {
			return err
		}
		if c, there := shared[drained]; !there || c != "graceful-shutdown" {
			return fmt.Errorf("%s announces the shared address: %v, with communities %q", drained, there, c)
		}
		if paths, err = s.paths(ctx); err != nil {
			return err
		}
		if c := communities[drained]; c != "graceful-shutdown" || len(paths) == 0 || slices.Contains(paths, drained) {
			return fmt.Errorf("communities of %s's block: %q; ways to the shared address: %v", drained, c, paths)
		}
		return nil
	})
	s.drainIs(t, ctx, drained, "Shutdown")
	time.Sleep(steady)
	s.kubectl(t, ctx, "", "annotate", "node", drained, "--overwrite", "muslin.io/drain=Withdrawn")
	s.await(t, ctx, "tor2 hears nothing of it", func() error {
		for _, prefix := range []string{sharedHost, serviceRange, block} {
			from, _, err := s.frr(ctx, prefix)
			if err != nil {
				return err
			}
			if slices.Contains(from, drained) {
				return fmt.Errorf("%s from %v", prefix, from)
			}
		}
		return nil
	})
	s.drainIs(t, ctx, drained, "Withdrawn")
	time.Sleep(steady)
	result := ping()
	t.Logf("drain of %s: %d sent, %d lost, longest %.1f ms", drained, result.Sent, result.Lost, result.MaxMs)
	if result.Lost != 0 || result.Failed != 0 || result.Sent == 0 {
		t.Errorf("ping: %+v, want none lost", result)
	}
	s.kubectl(t, ctx, "", "annotate", "node", drained, "muslin.io/drain-")
	s.drainIs(t, ctx, drained, "")
	s.received(t, ctx, sharedHost, "b1", "b2")
	if _, err := s.AwaitFullTables(ctx, time.Minute); err != nil {
		t.Fatal(err)
	}
}

// drainIs waits until the agent confirms a step of the drain on its node.
func (s spoken) drainIs(t *testing.T, ctx context.Context, node, step string) {
	t.Helper()
	s.await(t, ctx, "drain of "+node, func() error {
		out, err := s.Kubectl(ctx, "", "get", "node", node, "-o", `jsonpath={.metadata.annotations.muslin\.io/drain-state}`)
		if err == nil && string(out) != step {
			err = fmt.Errorf("muslin.io/drain-state is %q, want %q", out, step)
		}
		return err
	})
}

// paths are the nodes that tor2's kernel sends the shared address to.
func (s spoken) paths(ctx context.Context) ([]string, error) {
	out, err := s.Machine("tor2").Exec(ctx, "ip", "-json", "route", "get", sharedIP)
	if err != nil {
		return nil, err
	}
	all, err := s.Machine("tor2").Exec(ctx, "ip", "route", "show", sharedHost)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, n := range []string{"b1", "b2"} {
		via := s.address(n).String()
		if strings.Contains(string(all), "via "+via+" ") || strings.Contains(string(out), `"`+via+`"`) {
			found = append(found, n)
		}
	}
	return found, nil
}

func (s spoken) pingFromOutside(t *testing.T, ctx context.Context, target string) func() pingResult {
	t.Helper()
	return s.pingFrom(t, ctx, "outside", "", target)
}
