package scenario

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// finding is a line of `muslinctl check -o json`.
type finding struct{ Severity, Class, Node, Object, Text string }

// answer is what `muslinctl explain -o json` says of one asker.
type answer struct {
	From                string
	Broken, Object, Fix string
}

// fault is something that is planted, has to be named, and is taken away again.
type fault struct {
	name        string
	plant, heal []step
	to          string // the node whose pod n1 asks for
	class       string
	object      string // part of what explain says is to be changed
	seen        string // part of the object that check names; empty: the same
}

// faultsAreNamed: each of twelve faults is planted on the running cluster and
// named by explain and by check, with the object to change; once it is healed
// both find nothing.
func (s story) faultsAreNamed(t *testing.T, ctx context.Context) {
	o := s.operator(t, ctx)
	if err := o.settled(ctx); err != nil {
		t.Fatal(err)
	}
	for _, f := range o.meshFaults() {
		o.play(t, ctx, f)
	}
	o.withoutMesh(t, ctx, func() {
		for _, f := range o.peerFaults() {
			o.play(t, ctx, f)
		}
	})
}

// play plants a fault, has it named, heals it and waits until nothing is wrong.
func (o operator) play(t *testing.T, ctx context.Context, f fault) {
	began := time.Now()
	t.Run(f.name, func(t *testing.T) {
		healed := false
		heal := func() {
			if healed {
				return
			}
			healed = true
			for _, do := range f.heal {
				if err := do(context.WithoutCancel(ctx)); err != nil {
					t.Errorf("heal: %v", err)
				}
			}
		}
		t.Cleanup(heal)
		target := o.podOn(t, ctx, f.to)
		for _, do := range f.plant {
			if err := do(ctx); err != nil {
				t.Fatalf("plant: %v", err)
			}
		}
		if err := o.eventually(ctx, 2*time.Minute, func() error { return o.explains(ctx, f, target) }); err != nil {
			t.Errorf("explain: %v", err)
		}
		if err := o.eventually(ctx, time.Minute, func() error { return o.checks(ctx, f) }); err != nil {
			t.Errorf("check: %v", err)
		}
		heal()
		if err := o.settled(ctx); err != nil {
			t.Errorf("after it was healed: %v", err)
		}
	})
	fmt.Printf("  %-20s %7.1fs\n", f.name, time.Since(began).Seconds())
}

func (o operator) explains(ctx context.Context, f fault, target Pod) error {
	var stories []answer
	if err := o.muslinctl(ctx, &stories, "explain", target.IP.String(), "--from", "n1"); err != nil {
		return err
	}
	for _, s := range stories {
		if s.Broken == f.class && strings.Contains(s.Object, f.object) {
			return nil
		}
	}
	return fmt.Errorf("got %+v, want %s of %s", stories, f.class, f.object)
}

func (o operator) checks(ctx context.Context, f fault) error {
	var findings []finding
	if err := o.muslinctl(ctx, &findings, "check"); err != nil {
		return err
	}
	want := f.seen
	if want == "" {
		want = f.object
	}
	if !slices.ContainsFunc(findings, func(g finding) bool { return g.Class == f.class && strings.Contains(g.Object, want) }) {
		return fmt.Errorf("got %+v, want %s of %s", findings, f.class, want)
	}
	return nil
}

func (o operator) podOn(t *testing.T, ctx context.Context, node string) Pod {
	t.Helper()
	pods, err := o.Pods(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pods {
		if p.Node == node {
			return p
		}
	}
	t.Fatalf("no pod on %s", node)
	return Pod{}
}

// blockOf asks a node for its block, which is its blackhole route.
func (o operator) blockOf(node string) string {
	out, err := o.Machine(node).Exec(context.Background(), "ip", "route", "show", "type", "blackhole", "proto", "109")
	if err != nil || len(out) == 0 {
		return "none"
	}
	return strings.Fields(string(out))[1]
}

// agentPID sets $agent to the process of the node's agent.
const agentPID = "agent=$(pgrep -o -f '^/usr/bin/muslin-agent( run)?$'); "

const defaultPool = "ippool.projectcalico.org/default-ipv4-ippool"

// meshFaults concern blocks, the kernels and what lies between the nodes.
func (o operator) meshFaults() []fault {
	block := o.blockOf("n3")
	claim := "n2-" + strings.NewReplacer(".", "-", "/", "-").Replace(block)
	return []fault{
		{
			name: "pool not exported", to: "n3", class: "NotExported", object: "IPPool default-ipv4-ippool: spec.disableBGPExport",
			plant: []step{o.patched(defaultPool, `{"spec":{"disableBGPExport":true}}`)},
			heal:  []step{o.patched(defaultPool, `{"spec":{"disableBGPExport":false}}`)},
		},
		{
			name: "stale owner", to: "n3", class: "StaleOwner", object: "block " + block,
			plant: []step{o.applied(`{apiVersion: projectcalico.org/v3, kind: BlockAffinity, metadata: {name: ` + claim + `},
  spec: {cidr: ` + block + `, node: n2, state: confirmed, type: host, deleted: false}}`)},
			heal: []step{o.deleted("blockaffinity.projectcalico.org/" + claim)},
		},
		{
			// A fresh agent leaves alone what somebody else has put there.
			name: "repair blocked", to: "n3", class: "NotInstalled", object: "static on node n1", seen: "route " + block,
			plant: []step{
				o.on("n1", agentPID+"kill -STOP $agent; until [ -z \"$(grep -L '^State:.T' /proc/$agent/task/*/status)\" ]; do sleep 0.05; done; "+
					"ip route del "+block+" proto 109; ip route add blackhole "+block+" proto static metric 1024"),
				o.restarted("n1"),
			},
			heal: []step{o.on("n1", agentPID+"kill -CONT $agent; ip route del "+block+" proto static metric 1024")},
		},
		{
			name: "shadowed", to: "n3", class: "Shadowed", object: "static on node n1", seen: "route " + block,
			plant: []step{o.on("n1", "ip route add "+block+" via 10.1.1.12 proto static metric 5")},
			heal:  []step{o.on("n1", "ip route del "+block+" proto static metric 5")},
		},
		{
			// Another program's device holds the VNI and the port. Muslin's own may
			// linger from an earlier part.
			name: "tunnel missing", to: "n3", class: "TunnelMissing", object: "link vxlan.calico on node n1", seen: "link vxlan.calico",
			plant: []step{o.on("n1", "ip link del vxlan.calico 2>/dev/null || true; ip link add foreign type vxlan id 4096 dstport 4789"), o.patched(defaultPool, `{"spec":{"vxlanMode":"Always"}}`)},
			heal:  []step{o.patched(defaultPool, `{"spec":{"vxlanMode":"Never"}}`), o.on("n1", "ip link del foreign")},
		},
		{
			name: "default drop", to: "n3", class: "Dropped", object: "nftables table inet wall, chain gate on node n3",
			plant: []step{o.on("n3", "nft 'table inet wall { chain gate { type filter hook forward priority 0; policy drop; }; }'")},
			heal:  []step{o.on("n3", "nft delete table inet wall")},
		},
		{
			name: "neighbour", to: "n2", class: "Unresolved", object: "link eth0 of node n1",
			plant: []step{o.on("n1", "nft 'table arp wall { chain gate { type filter hook input priority 0; arp saddr ip 10.1.1.12 drop; }; }'; ip neigh flush to 10.1.1.12")},
			heal:  []step{o.on("n1", "nft delete table arp wall")},
		},
		{
			name: "mtu", to: "n3", class: "MTUTooSmall", object: "between node n1 and node n3",
			plant: []step{o.on("tor1", "ip link set core mtu 1400")},
			heal:  []step{o.on("tor1", "ip link set core mtu 1500")},
		},
	}
}

// peerFaults concern the session with a rack's router, which is the only way.
func (o operator) peerFaults() []fault {
	const peer = "bgppeer.projectcalico.org/rack-r2"
	return []fault{
		{
			name: "filter", to: "n3", class: "FilterRejects", object: "BGPFilter no-pods: spec.exportV4[0]",
			plant: []step{
				o.applied(`{apiVersion: projectcalico.org/v3, kind: BGPFilter, metadata: {name: no-pods},
  spec: {exportV4: [{cidr: 10.244.0.0/16, matchOperator: In, action: Reject}]}}`),
				o.patched(peer, `{"spec":{"filters":["no-pods"]}}`),
			},
			heal: []step{o.patched(peer, `{"spec":{"filters":null}}`), o.deleted("bgpfilter.projectcalico.org/no-pods")},
		},
		{
			name: "peer down", to: "n3", class: "PeerDown", object: "BGPPeer rack-r2",
			plant: []step{o.on("tor2", "nft 'table inet wall { chain gate { type filter hook input priority 0; tcp dport 179 ip saddr 10.1.2.0/24 reject with tcp reset; tcp sport 179 ip saddr 10.1.2.0/24 reject with tcp reset; }; }'; vtysh -c 'clear bgp *'")},
			heal:  []step{o.on("tor2", "nft delete table inet wall")},
		},
		{
			name: "wrong AS", to: "n3", class: "WrongAS", object: "BGPPeer rack-r2: spec.asNumber",
			plant: []step{o.patched(peer, `{"spec":{"asNumber":65199}}`)},
			heal:  []step{o.patched(peer, `{"spec":{"asNumber":65102}}`)},
		},
		{
			name: "wrong password", to: "n3", class: "WrongPassword", object: "BGPPeer rack-r2: spec.password",
			plant: []step{
				o.applied(`{apiVersion: v1, kind: Secret, metadata: {name: wrong, namespace: ` + Namespace + `}, stringData: {password: guess}}`),
				o.patched(peer, `{"spec":{"password":{"secretKeyRef":{"name":"wrong","key":"password"}}}}`),
			},
			heal: []step{o.patched(peer, `{"spec":{"password":null}}`), o.deleted("-n", Namespace, "secret/wrong")},
		},
	}
}

// withoutMesh has the racks' routers be the only way between nodes for a while.
func (o operator) withoutMesh(t *testing.T, ctx context.Context, tell func()) {
	t.Helper()
	set := func(ctx context.Context, mesh bool, own int) {
		for _, do := range []step{
			o.patched("bgppeer.projectcalico.org/rack-r1", fmt.Sprintf(`{"spec":{"numAllowedLocalASNumbers":%d}}`, own)),
			o.patched("bgppeer.projectcalico.org/rack-r2", fmt.Sprintf(`{"spec":{"numAllowedLocalASNumbers":%d}}`, own)),
			o.patched("bgpconfiguration.projectcalico.org/default", fmt.Sprintf(`{"spec":{"nodeToNodeMeshEnabled":%t}}`, mesh)),
			o.settled,
		} {
			if err := do(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	defer set(context.WithoutCancel(ctx), true, 0)
	set(ctx, false, 1)
	tell()
}
