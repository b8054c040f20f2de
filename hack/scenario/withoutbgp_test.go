package scenario

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// shut drops at a node all that comes from other nodes, or from pods otherwise than
// through the tunnel, but UDP 4789.
const shut = `table inet shut { chain prerouting { type filter hook prerouting priority -400; policy accept;
	iifname { "lo", "vxlan.calico", "cali*" } accept
	ip saddr { %[1]s } udp dport 4789 accept
	ip saddr { %[1]s, 10.244.0.0/16 } counter drop
}; }`

// withoutBGP: nobody speaks BGP, and nothing but VXLAN's port is open between nodes.
// Pods reach each other and the outside; the first agent's death, again and again,
// loses nothing, and neither does the way there.
func (s story) withoutBGP(t *testing.T, ctx context.Context) {
	o := s.operator(t, ctx)
	from, to := acrossRacks(s.Cluster, s.report.Pods)
	s.setVXLAN(t, ctx, "Always")
	ping := s.startPing(t, ctx, from, to)
	s.apply(t, ctx, "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\nspec: {programClusterRoutes: Enabled}\n")
	s.eachNode(t, ctx, "knows the blocks of all", func(node string) error {
		out, err := o.run(ctx, "node", "show", node, "ipam")
		if err == nil && !strings.Contains(out, "blocks of other nodes") {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
	s.setMesh(t, ctx, false)
	for _, r := range s.Topology().Racks {
		s.delete(t, ctx, "bgppeer.projectcalico.org", "rack-"+r.Name)
	}
	s.shutBetweenNodes(t, ctx)
	s.eachNode(t, ctx, "sends through the tunnel, by IPAM", func(node string) error {
		out, err := o.run(ctx, "node", "show", node, "routes")
		if err == nil && strings.Count(out, "# from IPAM") < len(s.FullNodes())-1 {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
	s.podsReach(t, ctx)
	for range 3 {
		s.killAgent(t, ctx, from.Node)
	}
	if r := ping(); r.Lost != 0 || r.Failed != 0 || r.Sent == 0 {
		t.Errorf("ping: %+v, want none lost", r)
	}
	s.withBGPAgain(t, ctx)
}

// withBGPAgain puts the cluster back.
func (s story) withBGPAgain(t *testing.T, ctx context.Context) {
	t.Helper()
	s.eachNode(t, ctx, "is open", func(node string) error {
		_, err := s.Machine(node).Exec(ctx, "nft", "delete", "table", "inet", "shut")
		return err
	})
	s.setMesh(t, ctx, true)
	s.apply(t, ctx, s.routerPeers())
	if err := s.WaitSessions(ctx); err != nil {
		t.Fatal(err)
	}
	s.patch(t, ctx, "felixconfiguration.projectcalico.org", `{"spec":{"programClusterRoutes":null}}`)
	s.setVXLAN(t, ctx, "Never")
}

// podsReach looks at the connections that need no router to know the pods.
func (s story) podsReach(t *testing.T, ctx context.Context) {
	t.Helper()
	tries, err := s.Matrix(ctx, s.report.Pods)
	if err != nil {
		t.Fatal(err)
	}
	looked := 0
	for _, try := range tries {
		switch {
		case strings.HasPrefix(try.Kind, "pod to pod"), strings.HasPrefix(try.Kind, "pod to outside"):
			looked++
			if !try.OK() {
				t.Errorf("%s: %s to %s: source %s, want %s: %v", try.Kind, try.From, try.To, try.Source, try.Want, try.Err)
			}
		case try.Kind == "node to pod" && try.Err != nil: // from another node its source is the tunnel's address
			t.Errorf("%s: %s to %s: %v", try.Kind, try.From, try.To, try.Err)
		}
	}
	if looked == 0 {
		t.Error("nothing was tried")
	}
}

// shutBetweenNodes loads shut on every node.
func (s story) shutBetweenNodes(t *testing.T, ctx context.Context) {
	t.Helper()
	for _, node := range s.FullNodes() {
		var others []string
		for _, o := range s.FullNodes() {
			if o != node {
				others = append(others, netip.PrefixFrom(s.nodeAddr(o), 32).String())
			}
		}
		if out, err := s.Machine(node).Exec(ctx, "nft", fmt.Sprintf(shut, strings.Join(others, ", "))); err != nil {
			t.Fatalf("%s: %s: %v", node, out, err)
		}
	}
}

// killAgent kills a node's agent, and waits for the next to be ready.
func (s story) killAgent(t *testing.T, ctx context.Context, node string) {
	t.Helper()
	pid := s.agentPID(t, ctx, node)
	if _, err := s.Machine(node).Exec(ctx, "kill", "-9", pid); err != nil {
		t.Fatal(err)
	}
	s.eachNode(t, ctx, "has its agent", func(n string) error {
		if now, err := s.findAgent(ctx, n); n == node && (err != nil || now == pid) {
			return fmt.Errorf("agent %q: %w", now, err)
		}
		status, err := s.Agent(ctx, n)
		if err == nil && len(status.Waiting) > 0 {
			err = fmt.Errorf("waits for %q", status.Waiting)
		}
		return err
	})
}

// eachNode waits until all nodes are as they should be.
func (s story) eachNode(t *testing.T, ctx context.Context, what string, check func(node string) error) {
	t.Helper()
	for _, node := range s.FullNodes() {
		if err := s.eventually(ctx, 2*time.Minute, func() error { return check(node) }); err != nil {
			t.Fatalf("node %s %s: in vain: %v", node, what, err)
		}
	}
}

func (s story) setMesh(t *testing.T, ctx context.Context, on bool) {
	t.Helper()
	s.patch(t, ctx, "bgpconfiguration.projectcalico.org", fmt.Sprintf(`{"spec":{"nodeToNodeMeshEnabled":%t}}`, on))
}

func (s story) patch(t *testing.T, ctx context.Context, kind, patch string) {
	t.Helper()
	if _, err := s.Kubectl(ctx, "", "patch", kind, "default", "--type=merge", "-p", patch); err != nil {
		t.Fatal(err)
	}
}
