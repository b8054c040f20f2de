package scenario

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muslin-net/muslin/hack/lab/kube"
)

// hostPort: kubelet and containerd give the plugin's result to CNI's portmap,
// which is chained behind it. A pod's port is open on its node's address, for
// another rack, for a host outside and for the node itself, and nothing of it is
// left behind the pod.
func (s story) hostPort(t *testing.T, ctx context.Context) {
	const node, port = "n1", "18080"
	target := s.nodeAddr(node).String() + ":" + port
	s.apply(t, ctx, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: host-port}
spec:
  nodeName: %s
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: %q, imagePullPolicy: Never, args: [serve], ports: [{containerPort: %d, hostPort: %s}]}]
`, node, kube.ProbeImage, echoPort, port))
	remove := sync.OnceFunc(func() { s.delete(t, ctx, "pod", "host-port") })
	t.Cleanup(remove)
	if _, err := s.Kubectl(ctx, "", "wait", "--for=condition=Ready", "pod/host-port", "--timeout=60s"); err != nil {
		t.Fatal(err)
	}
	ask := func(from string) (string, error) {
		out, err := s.Machine(from).Exec(ctx, "probe", "dial", "-timeout", "2s", target)
		return string(out), err
	}
	for _, from := range []string{"n3", s.Topology().Outside.Name, node} {
		if answer, err := ask(from); err != nil || !strings.Contains(answer, "host-port") {
			t.Errorf("from %s: answer %q, error %v", from, answer, err)
		}
	}
	if rules := s.ruleset(t, ctx, node); !strings.Contains(rules, port) {
		t.Errorf("no rule of %s names port %s:\n%s", node, port, rules)
	}
	remove()
	if err := s.eventually(ctx, time.Minute, func() error {
		if answer, err := ask("n3"); err == nil {
			return fmt.Errorf("port %s of %s still answers: %s", port, node, answer)
		}
		if rules := s.ruleset(t, ctx, node); strings.Contains(rules, port) {
			return fmt.Errorf("a rule of %s still names port %s:\n%s", node, port, rules)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// ruleset is all that a node has in nftables.
func (s story) ruleset(t *testing.T, ctx context.Context, node string) string {
	t.Helper()
	out, err := s.Machine(node).Exec(ctx, "nft", "list", "ruleset")
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
