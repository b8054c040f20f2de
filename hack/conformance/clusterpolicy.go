package conformance

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/muslin-net/muslin/hack/scenario"
)

// clusterPolicy runs the Network Policy API's suite, what is experimental included, with the
// CRD for that which the suite's module has.
func clusterPolicy(ctx context.Context, c *scenario.Cluster, o Options) error {
	dir, err := moduleDir(ctx, filepath.Join(o.Source, "hack/clusterpolicy"), "sigs.k8s.io/network-policy-api")
	if err != nil {
		return err
	}
	crd, err := os.ReadFile(filepath.Join(dir, "config/crd/experimental/policy.networking.k8s.io_clusternetworkpolicies.yaml"))
	if err != nil {
		return fmt.Errorf("find the CRD of ClusterNetworkPolicy: %w", err)
	}
	if _, err := c.Kubectl(ctx, string(crd), "apply", "--server-side", "-f", "-"); err != nil {
		return fmt.Errorf("install ClusterNetworkPolicy: %w", err)
	}
	if _, err := c.Kubectl(ctx, "", "wait", "--for=condition=Established", "crd/clusternetworkpolicies.policy.networking.k8s.io", "--timeout=1m"); err != nil {
		return fmt.Errorf("install ClusterNetworkPolicy: %w", err)
	}
	return run(ctx, c, o, "cluster-policy.test", selection(o)...)
}

// selection are the flags of a Go test that run the cases that focus and skip leave.
func selection(o Options) []string {
	args := []string{"-test.v", "-test.timeout=1h", "-all-features", "-test.run=^TestConformance$/" + o.Focus}
	if o.Skip != "" {
		args = append(args, "-test.skip=^TestConformance$/"+o.Skip)
	}
	return args
}

// moduleDir is where the go command keeps a module that another pins.
func moduleDir(ctx context.Context, pinnedBy, module string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-C", pinnedBy, "-modfile=", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("find module %s: %w", module, err)
	}
	return strings.TrimSpace(string(out)), nil
}
