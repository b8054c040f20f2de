package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"

	"github.com/muslin-net/muslin/hack/lab/fabric"
	"github.com/muslin-net/muslin/hack/lab/kube"
	"github.com/muslin-net/muslin/hack/lab/kubelab"
	"github.com/muslin-net/muslin/hack/lab/machine"
	"github.com/muslin-net/muslin/hack/lab/pod"
	"github.com/muslin-net/muslin/hack/lab/router"
	"github.com/muslin-net/muslin/hack/lab/topology"
)

// Defaults of Options.
const (
	DefaultName = "muslin"
	DefaultBase = "/var/lib/muslin-lab"
)

// Options say where a lab lives and what is put into its machines. The zero
// value is a lab called muslin in /var/lib/muslin-lab/muslin.
type Options struct {
	// Name is the prefix of everything the lab makes outside its directory.
	Name string
	// Dir is the state directory, by default DefaultBase/Name. It must be on a
	// real file system, not on an overlay or tmpfs. Programs built by the lab
	// are kept in its sibling "bin", shared between labs.
	Dir string
	// Source is a directory inside Muslin's source tree, by default the working
	// directory.
	Source string
	// Images are OCI archives that every full node imports at each boot.
	Images []string
	// Share lists host directories that every machine sees at the same path.
	Share []string
	// Light says what runs on light nodes.
	Light kube.Light
	// Progress receives one line for each phase of Up; nil is silence.
	Progress io.Writer
}

// Lab is one lab on this machine, up or not.
type Lab struct {
	// Fabric is the network between its machines.
	Fabric fabric.Fabric

	// Kube is the cluster on its machines; its API is the lab's own.
	Kube *kube.Cluster
	*kube.API

	site     *machine.Site
	source   string
	options  Options
	progress *progress
}

type state struct {
	Topology *topology.Topology
	Light    kube.Light
	Share    []string
	Source   string
}

var labName = regexp.MustCompile(`^[a-z][a-z0-9]{0,11}$`)

// New returns a lab of the topology; nothing is started.
func New(plan *topology.Topology, options Options) (*Lab, error) {
	l, err := prepare(options)
	if err != nil {
		return nil, err
	}
	l.assemble(plan)
	l.source, err = kubelab.FindSource(options.Source)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Open returns the lab that an earlier process brought up. Only Name, Dir and
// Progress of the options count.
func Open(options Options) (*Lab, error) {
	l, err := prepare(options)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(l.site.StateFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open lab %s: it is not up (no %s in %s)", l.Name(), filepath.Base(l.site.StateFile()), l.Dir())
	}
	if err != nil {
		return nil, fmt.Errorf("open lab %s: %w", l.Name(), err)
	}
	var known state
	if err := json.Unmarshal(data, &known); err != nil {
		return nil, fmt.Errorf("open lab %s: %w", l.Name(), err)
	}
	l.options.Light, l.site.Share, l.source = known.Light, known.Share, known.Source
	l.assemble(known.Topology)
	return l, nil
}

// Down removes the lab called so in the options, whatever is left of it, also
// after a crash or half an Up. It needs no state file and may be called any
// number of times.
func Down(ctx context.Context, options Options) error {
	l, err := prepare(options)
	if err != nil {
		return err
	}
	return l.Down(ctx)
}

func prepare(options Options) (*Lab, error) {
	if options.Name == "" {
		options.Name = DefaultName
	}
	if !labName.MatchString(options.Name) {
		return nil, fmt.Errorf("lab name %q: want 1 to 12 of a-z and 0-9, a letter first", options.Name)
	}
	if options.Dir == "" {
		options.Dir = filepath.Join(DefaultBase, options.Name)
	}
	dir, err := filepath.Abs(options.Dir)
	if err != nil {
		return nil, fmt.Errorf("lab directory %s: %w", options.Dir, err)
	}
	site := &machine.Site{Dir: dir, Share: options.Share, Fabric: fabric.Fabric{Lab: options.Name}}
	return &Lab{site: site, options: options, progress: newProgress(options.Progress)}, nil
}

// assemble stands the parts on each other.
func (l *Lab) assemble(plan *topology.Topology) {
	l.site.Fabric.Topology = plan
	l.Fabric, l.Kube = l.site.Fabric, kube.New(l.site, l.options.Light, l.progress.note)
	l.API = l.Kube.API
}

// Name returns the prefix of the lab's namespaces and cgroups.
func (l *Lab) Name() string { return l.site.Fabric.Lab }

// Dir returns the state directory.
func (l *Lab) Dir() string { return l.site.Dir }

// Topology returns the lab's topology; callers must not change it.
func (l *Lab) Topology() *topology.Topology { return l.Fabric.Topology }

// Machine returns a machine of the lab: nodes, routers, outside host, control plane.
func (l *Lab) Machine(name string) machine.Machine { return l.site.Machine(name) }

// Pod returns a pod of a light node, plugged or not.
func (l *Lab) Pod(node, namespace, name string) pod.Pod {
	return pod.Pod{Node: l.Machine(node), Namespace: namespace, Name: name}
}

// Up builds what is missing, starts everything and returns when all nodes are
// registered and, in the case of light ones, Ready. Full nodes stay NotReady
// until a pod network is installed. The phases come back also on failure; what
// stands then is left for inspection and removed by Down.
func (l *Lab) Up(ctx context.Context) (Phases, error) {
	unlock, err := l.site.Lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if left, err := l.site.Leftovers(); err != nil {
		return nil, err
	} else if len(left) > 0 {
		return nil, fmt.Errorf("lab %s is up, or was not taken down (%s is there): take it down first", l.Name(), left[0])
	}
	steps := []struct {
		name string
		do   func(context.Context) error
	}{
		{"check programs", func(context.Context) error { return CheckDeps() }},
		{"raise limits", l.raiseLimits},
		{"build kubernetes", l.buildKubelab},
		{"build lab programs", l.buildPrograms},
		{"write configuration", l.writeConfiguration},
		{"lay the fabric", func(context.Context) error { return l.Fabric.Build() }},
		{"start routers", l.startRouters},
		{"start control plane", l.Kube.StartControlPlane},
		{"start full nodes", l.Kube.StartFullNodes},
		{"start light nodes", l.Kube.StartLightNodes},
	}
	for _, step := range steps {
		if err := l.progress.phase(step.name, func() error { return step.do(ctx) }); err != nil {
			return l.progress.phases, fmt.Errorf("lab %s: %s: %w", l.Name(), step.name, err)
		}
	}
	return l.progress.phases, nil
}

// Down ends every process of the lab and removes its namespaces, cgroups,
// mounts and files. Shared programs in the sibling directory bin stay. It goes
// on after an error, and removing what is absent is success.
func (l *Lab) Down(ctx context.Context) error {
	unlock, err := l.site.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := l.site.Remove(ctx); err != nil {
		return fmt.Errorf("take lab %s down: %w", l.Name(), err)
	}
	return nil
}

// writeConfiguration writes the state directory: the disk and spec of every machine.
func (l *Lab) writeConfiguration(context.Context) error {
	if err := os.MkdirAll(l.site.ImageDir(), 0o755); err != nil {
		return err
	}
	if err := l.saveState(); err != nil {
		return err
	}
	if err := l.Kube.StoreImages(append(kube.ToolArchives(l.site.BinDir()), l.options.Images...)); err != nil {
		return err
	}
	outside := l.Machine(l.Topology().Outside.Name)
	if err := outside.Make(outside.Spec()); err != nil {
		return err
	}
	for _, r := range l.Topology().Routers {
		if err := router.Make(l.Machine(r.Name), l.Topology()); err != nil {
			return err
		}
	}
	return l.Kube.WriteDisks()
}

// startRouters starts the routers and the outside host, and waits until the
// routers have each other's routes.
func (l *Lab) startRouters(ctx context.Context) error {
	names := []string{l.Topology().Outside.Name}
	for _, r := range l.Topology().Routers {
		names = append(names, r.Name)
	}
	if err := l.site.Start(ctx, names); err != nil {
		return err
	}
	return router.WaitRoutes(ctx, l.Fabric)
}

func (l *Lab) saveState() error {
	known := state{Topology: l.Topology(), Light: l.options.Light, Share: l.site.Share, Source: l.source}
	data, err := json.MarshalIndent(known, "", "  ")
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return os.WriteFile(l.site.StateFile(), data, 0o600)
}
