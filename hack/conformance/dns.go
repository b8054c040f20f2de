package conformance

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"github.com/muslin-net/muslin/hack/scenario"
)

//go:embed coredns.yaml
var dnsObjects string

// startDNS brings CoreDNS up at the address that kubelets give to pods as their name server.
func startDNS(ctx context.Context, c *scenario.Cluster) error {
	if _, err := c.Kubectl(ctx, strings.ReplaceAll(dnsObjects, "CLUSTER_IP", c.Kube.DNS().String()), "apply", "-f", "-"); err != nil {
		return fmt.Errorf("install CoreDNS: %w", err)
	}
	if _, err := c.Kubectl(ctx, "", "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=5m"); err != nil {
		return fmt.Errorf("start CoreDNS: %w", err)
	}
	return nil
}
