// Package conformance runs the suites of others against Muslin on a lab: cases of Kubernetes'
// own end to end suite, on network policy and on all else that is sig-network's part of
// Conformance, the Network Policy API's on ClusterNetworkPolicy, and cyclonus.
//
// It builds the suites, agnhost, which their pods run, and CoreDNS, which these cases ask, from
// the modules that hack/e2e, hack/clusterpolicy, hack/coredns and hack/tools/cyclonus pin; what else pods run is this machine's own; nothing is
// pulled. It decides nothing itself: the result is the suite's exit status.
//
// Footprint: a lab of its own, and the programs beside those of the labs.
package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/muslin-net/muslin/hack/lab"
	"github.com/muslin-net/muslin/hack/lab/kubelab"
	"github.com/muslin-net/muslin/hack/lab/topology"
	"github.com/muslin-net/muslin/hack/scenario"
)

// Options say what of the suites is run, and where.
type Options struct {
	Lab         lab.Options
	Topology    string   // path of the topology file
	Source      string   // the checkout
	Suites      []string // of Suites, in the order in which they run; empty: all, but for those that want addresses that the topology has not
	Focus, Skip string   // regular expressions on the names of Kubernetes' and the Network Policy API's cases; both empty: those of the suite
	Out         io.Writer
}

// Suites are the names of the suites.
func Suites() []string { return slices.Sorted(maps.Keys(suites)) }

// suitesFor are those that a lab can run.
func suitesFor(t *topology.Topology) []string {
	if len(t.Outside.Address.All()) == 2 {
		return Suites()
	}
	return slices.DeleteFunc(Suites(), func(name string) bool { return name == "dual-stack" })
}

var suites = map[string]func(context.Context, *scenario.Cluster, Options) error{
	"cluster-policy": clusterPolicy,
	"cyclonus":       cyclonus,
	"dual-stack":     kubernetes(`\[sig-network\].*\[Feature:IPv6DualStack\]`, "Feature:SCTPConnectivity"),
	"netpol":         kubernetes("Netpol", ""),
	"sig-network":    kubernetes(`\[sig-network\].*\[Conformance\]`, ""),
}

// Run brings a lab up, installs Muslin and the cluster's DNS and runs the suites on it. The
// lab stays up for a look around.
func Run(ctx context.Context, o Options) error {
	if err := build(ctx, o.Source, kubelab.SharedDir, o.Out); err != nil {
		return err
	}
	images, err := images(ctx, o.Source, kubelab.SharedDir)
	if err != nil {
		return err
	}
	c, _, err := scenario.MainJob(ctx, scenario.MainJobOptions{Lab: o.Lab, Topology: o.Topology, Source: o.Source, Out: o.Out})
	if err != nil {
		return err
	}
	if err := load(ctx, c, images); err != nil {
		return err
	}
	if err := startDNS(ctx, c); err != nil {
		return err
	}
	if len(o.Suites) == 0 {
		o.Suites = suitesFor(c.Topology())
	}
	var failed []error
	for _, name := range o.Suites {
		if err := suites[name](ctx, c, o); err != nil {
			failed = append(failed, fmt.Errorf("suite %s: %w", name, err))
		}
	}
	return errors.Join(failed...)
}

// kubernetes runs Kubernetes' own cases.
func kubernetes(focus, skip string) func(context.Context, *scenario.Cluster, Options) error {
	return func(ctx context.Context, c *scenario.Cluster, o Options) error {
		if o.Focus == "" && o.Skip == "" {
			o.Focus, o.Skip = focus, skip
		}
		// kubectl of the suite's own calls; the suite looks at the name.
		kubectl := filepath.Join(c.Dir(), "kubectl")
		if err := os.Symlink(filepath.Join(kubelab.SharedDir, "kubelab"), kubectl); err != nil && !os.IsExist(err) {
			return fmt.Errorf("name kubectl: %w", err)
		}
		return run(ctx, c, o, "e2e.test", "-kubeconfig="+c.Kubeconfig(), "-kubectl-path="+kubectl, "-provider=skeleton", "-ginkgo.no-color", "-ginkgo.silence-skips",
			"-ginkgo.focus="+o.Focus, "-ginkgo.skip="+o.Skip, "-report-dir="+c.Dir())
	}
}

// cyclonus runs the cases that cyclonus runs by default: it computes what a policy
// lets through, and compares that with what pods see.
func cyclonus(ctx context.Context, c *scenario.Cluster, o Options) error {
	return run(ctx, c, o, "cyclonus")
}

// run runs one of the programs that were built, beside the control plane.
func run(ctx context.Context, c *scenario.Cluster, o Options, program string, args ...string) error {
	suite := c.ControlPlane().CommandInNet(ctx, append([]string{filepath.Join(kubelab.SharedDir, program)}, args...)...)
	suite.Env = append(suite.Environ(), "KUBECONFIG="+c.Kubeconfig())
	suite.Stdout, suite.Stderr = o.Out, o.Out
	return suite.Run()
}

// build makes the suites and what their pods run in dir, for every lab of this machine.
func build(ctx context.Context, source, dir string, out io.Writer) error {
	note := func(format string, args ...any) { fmt.Fprintf(out, "\rbuild the suites: "+format, args...) }
	agnhost, err := agnhostModfile(ctx, source, dir, kernelHasSCTP())
	if err != nil {
		return err
	}
	modfiles := map[string]string{"agnhost": agnhost} // none is the module's own go.mod
	for _, p := range []struct{ name, module, verb, pkg string }{
		{"e2e.test", "hack/e2e", "test", "k8s.io/kubernetes/test/e2e"},
		{"cluster-policy.test", "hack/clusterpolicy", "test", "sigs.k8s.io/network-policy-api/conformance"},
		{"coredns", "hack/coredns", "build", "."},
		{"agnhost", "hack/e2e", "build", "k8s.io/kubernetes/test/images/agnhost"},
		{"cyclonus", "hack/tools/cyclonus", "build", "."},
		{"worker", "hack/tools/cyclonus", "build", "./worker"},
	} {
		args := []string{"-o", filepath.Join(dir, p.name), "-modfile=" + modfiles[p.name], "-mod=readonly", "-ldflags=-s -w"}
		if p.verb == "test" {
			args = append(args, "-c")
		}
		if err := kubelab.Go(ctx, filepath.Join(source, p.module), note, p.verb, append(args, p.pkg)...); err != nil {
			return fmt.Errorf("build %s: %w", p.name, err)
		}
	}
	fmt.Fprintln(out)
	return nil
}
