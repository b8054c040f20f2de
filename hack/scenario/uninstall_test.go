package scenario

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// remains are the places where Muslin leaves something on a node, each a command
// that prints nothing when nothing is left.
var remains = []string{
	"ip -4 route show proto 109", "ip -6 route show proto 109", "ip -o link show type vxlan", "ip -4 -o addr show dev tunl0",
	"nft list tables | grep -w muslin", "ip -o link show type veth | grep -w alias.muslin",
	"ls /opt/cni/bin/muslin /etc/cni/net.d/10-muslin.conflist /run/muslin/agent.sock /var/lib/muslin/cni-spool",
}

// uninstall takes Muslin away, and the pods of a rack talk on as long as nobody
// cleans up; then every node is cleaned, and nothing of ours remains. It is the end of a
// story.
func (s story) uninstall(t *testing.T, ctx context.Context) {
	muslin, err := build(ctx, s.Source)
	if err != nil {
		t.Fatal(err)
	}
	pods, err := s.Pods(ctx)
	if err != nil || len(pods) < 2 {
		t.Fatalf("pods: %v, %v", pods, err)
	}
	from, to := s.neighbours(t, slices.DeleteFunc(pods, func(p Pod) bool { return p.Node == "n4" }))                    // was cleaned up before
	s.kubectlOK(t, ctx, "", "delete", "-k", filepath.Join(s.Source, "manifests"), "--ignore-not-found", "--timeout=3m") // the namespace takes some of them away first
	if _, err := s.dialFromPod(ctx, from, to.IP); err != nil {
		t.Errorf("pods of one rack do not talk when Muslin is gone: %v", err)
	}
	for _, node := range s.FullNodes() {
		out, err := s.runOn(ctx, node, filepath.Join(muslin.dir, "muslin-agent"), "cleanup", "--pods")
		if err != nil {
			t.Errorf("clean up %s: %v: %s", node, err, out)
		}
		t.Logf("%s:\n%s", node, out)
		s.nothingRemains(t, ctx, node)
	}
}

// elsewhere leaves n4 to others than the agents.
const elsewhere = `{"spec":{"template":{"spec":{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[` +
	`{"matchExpressions":[{"key":"kubernetes.io/hostname","operator":"NotIn","values":["n4"]}]}]}}}}}}}`

// nodeCleanedUp: muslinctl takes Muslin from one node of a cluster that goes on
// without it there. The node is not given back.
func (s story) nodeCleanedUp(t *testing.T, ctx context.Context) {
	o := s.operator(t, ctx)
	if out, err := o.run(ctx, "node", "cleanup", "n4", "--pods"); err == nil {
		t.Errorf("a node whose agent runs is cleaned up: %s", out)
	}
	s.kubectlOK(t, ctx, "", "-n", "muslin-system", "patch", "daemonset", "muslin-agent", "-p", elsewhere)
	s.kubectlOK(t, ctx, "", "-n", "muslin-system", "rollout", "status", "daemonset/muslin-agent", "--timeout=3m")
	out, err := o.run(ctx, "node", "cleanup", "n4", "--pods")
	for deadline := time.Now().Add(time.Minute); err != nil && strings.Contains(err.Error(), "its agent runs") && time.Now().Before(deadline); {
		time.Sleep(300 * time.Millisecond)
		out, err = o.run(ctx, "node", "cleanup", "n4", "--pods")
	}
	if err != nil {
		t.Fatalf("node cleanup: %v: %s", err, out)
	}
	t.Log(out)
	s.nothingRemains(t, ctx, "n4")
}

// nothingRemains looks where Muslin leaves something on a node.
func (s story) nothingRemains(t *testing.T, ctx context.Context, node string) {
	t.Helper()
	for _, look := range remains {
		left, _ := s.Machine(node).Exec(ctx, "sh", "-c", look+" 2>/dev/null")
		if text := strings.TrimSpace(string(left)); text != "" {
			t.Errorf("%s: %s: %s", node, look, text)
		}
	}
}

// runOn copies a program to a node and runs it there, as an administrator does.
func (s story) runOn(ctx context.Context, node, binary string, args ...string) ([]byte, error) {
	file, err := os.Open(binary)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	const there = "/run/muslin-agent"
	put := s.Machine(node).Command(ctx, "sh", "-c", "cat > "+there+" && chmod 755 "+there)
	put.Stdin = file
	if out, err := put.CombinedOutput(); err != nil {
		return out, fmt.Errorf("copy %s to %s: %w", binary, node, err)
	}
	run := s.Machine(node).Command(ctx, append([]string{there}, args...)...)
	run.Env = append(run.Env, "MUSLIN_CNI_BIN=/opt/cni/bin", "MUSLIN_CNI_CONF=/etc/cni/net.d")
	return run.CombinedOutput()
}

// neighbours are pods on different nodes of one rack: no router is between them,
// whose routes go with the BGPPeers.
func (s story) neighbours(t *testing.T, pods []Pod) (from, to Pod) {
	t.Helper()
	for _, p := range pods {
		for _, q := range pods {
			if p.Node != q.Node && s.rack(p.Node) == s.rack(q.Node) {
				return p, q
			}
		}
	}
	t.Fatal("no two pods on different nodes of a rack")
	return from, to
}
