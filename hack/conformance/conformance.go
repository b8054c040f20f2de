// Package conformance runs the suites of others on network policy against Muslin on a
// lab: Kubernetes' own end to end suite, and cyclonus.
//
// It builds the suites and agnhost, which their pods run, from the modules that hack/e2e
// and hack/tools/cyclonus pin; nothing is pulled. It decides nothing itself: the result
// is the suite's exit status, or for cyclonus its report.
//
// Footprint: a lab of its own, and the programs beside those of the labs.
package conformance

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/muslin-net/muslin/hack/image"
	"github.com/muslin-net/muslin/hack/lab"
	"github.com/muslin-net/muslin/hack/lab/kubelab"
	"github.com/muslin-net/muslin/hack/scenario"
)

// agnhostImages are the images that the suites ask for: of this version of Kubernetes,
// and of cyclonus. Both are the one agnhost.
var agnhostImages = []string{"registry.k8s.io/e2e-test-images/agnhost:2.63.0", "registry.k8s.io/e2e-test-images/agnhost:2.43"}

// Options say what of the suites is run, and where.
type Options struct {
	Lab         lab.Options
	Topology    string   // path of the topology file
	Source      string   // the checkout
	Suites      []string // of Suites, in the order in which they run
	Focus, Skip string   // regular expressions on the names of Kubernetes' cases
	Out         io.Writer
}

// Suites are the names of the suites.
func Suites() []string { return slices.Sorted(maps.Keys(suites)) }

var suites = map[string]func(context.Context, *scenario.Cluster, Options) error{"netpol": netpol, "cyclonus": cyclonus}

// Run brings a lab up, installs Muslin and runs the suites on it. The lab
// stays up for a look around.
func Run(ctx context.Context, o Options) error {
	dir := kubelab.SharedDir
	if err := build(ctx, o.Source, dir, o.Out); err != nil {
		return err
	}
	c, _, err := scenario.MainJob(ctx, scenario.MainJobOptions{Lab: o.Lab, Topology: o.Topology, Source: o.Source, Out: o.Out})
	if err != nil {
		return err
	}
	for i, ref := range agnhostImages {
		archive := filepath.Join(c.Dir(), fmt.Sprintf("agnhost-%d.tar", i))
		if err := writeImage(archive, ref, filepath.Join(dir, "agnhost")); err != nil {
			return err
		}
		if err := c.Load(ctx, archive); err != nil {
			return err
		}
	}
	var failed []error
	for _, name := range o.Suites {
		if err := suites[name](ctx, c, o); err != nil {
			failed = append(failed, fmt.Errorf("suite %s: %w", name, err))
		}
	}
	return errors.Join(failed...)
}

// netpol runs Kubernetes' own cases.
func netpol(ctx context.Context, c *scenario.Cluster, o Options) error {
	// kubectl of the suite's own calls; the suite looks at the name.
	kubectl := filepath.Join(c.Dir(), "kubectl")
	if err := os.Symlink(filepath.Join(kubelab.SharedDir, "kubelab"), kubectl); err != nil && !os.IsExist(err) {
		return fmt.Errorf("name kubectl: %w", err)
	}
	return run(ctx, c, o, "e2e.test", "-kubeconfig="+c.Kubeconfig(), "-kubectl-path="+kubectl, "-provider=skeleton", "-ginkgo.no-color",
		"-ginkgo.focus="+o.Focus, "-ginkgo.skip="+o.Skip, "-report-dir="+c.Dir())
}

// cyclonus runs the cases that cyclonus runs by default: it computes what a policy
// lets through, and compares that with what pods see. It asks for pods by address,
// since the lab has no DNS.
func cyclonus(ctx context.Context, c *scenario.Cluster, o Options) error {
	report := filepath.Join(c.Dir(), "cyclonus.xml")
	if err := run(ctx, c, o, "cyclonus", "generate", "--server-protocol=TCP,UDP", "--destination-type=pod-ip",
		"--perturbation-wait-seconds=1", "--job-timeout-seconds=1", "--junit-results-file="+report); err != nil {
		return err
	}
	return readReport(report)
}

// readReport is an error if a case of a report in JUnit's format failed, or if it has no case.
func readReport(path string) error {
	var report struct {
		Cases []struct {
			Name    string    `xml:"name,attr"`
			Failure *struct{} `xml:"failure"`
		} `xml:"testcase"`
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := xml.Unmarshal(text, &report); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if len(report.Cases) == 0 {
		return fmt.Errorf("%s: no case", path)
	}
	var failed []error
	for _, c := range report.Cases {
		if c.Failure != nil {
			failed = append(failed, fmt.Errorf("case %q failed", c.Name))
		}
	}
	return errors.Join(failed...)
}

// run runs one of the programs that were built, beside the control plane.
func run(ctx context.Context, c *scenario.Cluster, o Options, program string, args ...string) error {
	suite := c.CommandInNet(ctx, c.Topology().ControlPlane.Name, append([]string{filepath.Join(kubelab.SharedDir, program)}, args...)...)
	suite.Env = append(suite.Environ(), "KUBECONFIG="+c.Kubeconfig())
	suite.Stdout, suite.Stderr = o.Out, o.Out
	return suite.Run()
}

// build makes the suites and agnhost in dir, for every lab of this machine.
func build(ctx context.Context, source, dir string, out io.Writer) error {
	note := func(format string, args ...any) { fmt.Fprintf(out, "\rbuild the suites: "+format, args...) }
	for _, p := range []struct{ name, module, verb, pkg string }{
		{"e2e.test", "hack/e2e", "test", "k8s.io/kubernetes/test/e2e"},
		{"agnhost", "hack/e2e", "build", "k8s.io/kubernetes/test/images/agnhost"},
		{"cyclonus", "hack/tools/cyclonus", "build", "github.com/mattfenwick/cyclonus/cmd/cyclonus"},
	} {
		args := []string{"-o", filepath.Join(dir, p.name), "-modfile=", "-mod=readonly", "-ldflags=-s -w"}
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

// writeImage makes an image of agnhost: the program alone, which is all that the
// cases on network policy run.
func writeImage(archive, ref, program string) error {
	_, err := image.WriteFile(archive, image.Spec{
		Ref: ref, Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}, Env: []string{"PATH=/"},
		Files: []image.File{{Path: "/agnhost", Source: program}}, Compression: image.None,
	})
	if err != nil {
		return fmt.Errorf("write image %s: %w", ref, err)
	}
	return nil
}
