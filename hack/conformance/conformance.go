// Package conformance runs Kubernetes' own end to end suite against Muslin on a lab.
//
// It builds the suite and agnhost, which the suite's pods run, from hack/e2e; nothing
// is pulled. It judges nothing itself: the suite's exit status is the result.
//
// Footprint: a lab of its own, and the two programs beside those of the labs.
package conformance

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/muslin-net/muslin/hack/image"
	"github.com/muslin-net/muslin/hack/lab"
	"github.com/muslin-net/muslin/hack/lab/kubelab"
	"github.com/muslin-net/muslin/hack/scenario"
)

// agnhostImage is the image that the suite of this version of Kubernetes asks for.
const agnhostImage = "registry.k8s.io/e2e-test-images/agnhost:2.63.0"

// Options say what of the suite is run, and where.
type Options struct {
	Lab         lab.Options
	Topology    string // path of the topology file
	Source      string // the checkout
	Focus, Skip string // regular expressions on the names of cases
	Out         io.Writer
}

// Run brings a lab up, installs Muslin and runs the suite's cases on it. The lab
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
	archive := filepath.Join(c.Dir(), "agnhost.tar")
	if err := writeImage(archive, filepath.Join(dir, "agnhost")); err != nil {
		return err
	}
	if err := c.Load(ctx, archive); err != nil {
		return err
	}
	// kubectl of the suite's own calls; the suite looks at the name.
	kubectl := filepath.Join(c.Dir(), "kubectl")
	if err := os.Symlink(filepath.Join(dir, "kubelab"), kubectl); err != nil && !os.IsExist(err) {
		return fmt.Errorf("name kubectl: %w", err)
	}
	suite := c.CommandInNet(ctx, c.Topology().ControlPlane.Name, filepath.Join(dir, "e2e.test"),
		"-kubeconfig="+c.Kubeconfig(), "-kubectl-path="+kubectl, "-provider=skeleton", "-ginkgo.no-color",
		"-ginkgo.focus="+o.Focus, "-ginkgo.skip="+o.Skip, "-report-dir="+c.Dir())
	suite.Stdout, suite.Stderr = o.Out, o.Out
	if err := suite.Run(); err != nil {
		return fmt.Errorf("suite, focus %q: %w", o.Focus, err)
	}
	return nil
}

// build makes the suite and agnhost in dir, for every lab of this machine.
func build(ctx context.Context, source, dir string, out io.Writer) error {
	note := func(format string, args ...any) { fmt.Fprintf(out, "\rbuild the suite: "+format, args...) }
	module := filepath.Join(source, "hack", "e2e")
	for name, args := range map[string][]string{
		"e2e.test": {"test", "-c", "k8s.io/kubernetes/test/e2e"},
		"agnhost":  {"build", "k8s.io/kubernetes/test/images/agnhost"},
	} {
		verb := args[0]
		args = append([]string{"-o", filepath.Join(dir, name), "-modfile=", "-mod=readonly", "-ldflags=-s -w"}, args[1:]...)
		if err := kubelab.Go(ctx, module, note, verb, args...); err != nil {
			return fmt.Errorf("build %s: %w", name, err)
		}
	}
	fmt.Fprintln(out)
	return nil
}

// writeImage makes the image of agnhost: the program alone, which is all that the
// cases on network policy run.
func writeImage(archive, program string) error {
	_, err := image.WriteFile(archive, image.Spec{
		Ref: agnhostImage, Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}, Env: []string{"PATH=/"},
		Files: []image.File{{Path: "/agnhost", Source: program}}, Compression: image.None,
	})
	if err != nil {
		return fmt.Errorf("write image %s: %w", agnhostImage, err)
	}
	return nil
}
