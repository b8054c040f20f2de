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
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/hack/lab/fabric"
	"github.com/muslin-net/muslin/hack/lab/internal/cgroup"
	"github.com/muslin-net/muslin/hack/lab/internal/netns"
	"github.com/muslin-net/muslin/hack/lab/kubelab"
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
	Light LightOptions
	// Progress receives one line for each phase of Up; nil is silence.
	Progress io.Writer
}

// LightOptions say what runs on light nodes. The environment of all programs
// holds NODE_NAME and KUBECONFIG.
type LightOptions struct {
	// Setup programs run once at each boot, one after the other, before Agent;
	// such as one that installs the CNI plugin.
	Setup [][]string
	// Agent is the argv of the agent; empty runs none.
	Agent []string
	// Env is added to the environment, as KEY=value.
	Env []string
}

// Lab is one lab on this machine, up or not.
type Lab struct {
	// Fabric is the network between its machines.
	Fabric fabric.Fabric

	name     string
	dir      string
	source   string
	topology *topology.Topology
	options  Options
	progress *progress

	// keepers are the children of this process that are process 1 of a
	// machine; they are waited for, so that none stays a zombie.
	keepers sync.WaitGroup
}

// stateFile holds what a later process needs to know of a lab that is up.
const stateFile = "lab.json"

type state struct {
	Topology *topology.Topology
	Light    LightOptions
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
	l.topology, l.Fabric.Topology = plan, plan
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
	data, err := os.ReadFile(filepath.Join(l.dir, stateFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open lab %s: it is not up (no %s in %s)", l.name, stateFile, l.dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open lab %s: %w", l.name, err)
	}
	var known state
	if err := json.Unmarshal(data, &known); err != nil {
		return nil, fmt.Errorf("open lab %s: %w", l.name, err)
	}
	l.topology, l.Fabric.Topology, l.source = known.Topology, known.Topology, known.Source
	l.options.Light, l.options.Share = known.Light, known.Share
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
	return &Lab{Fabric: fabric.Fabric{Lab: options.Name}, name: options.Name, dir: dir, options: options, progress: newProgress(options.Progress)}, nil
}

// Name returns the prefix of the lab's namespaces and cgroups.
func (l *Lab) Name() string { return l.name }

// Dir returns the state directory.
func (l *Lab) Dir() string { return l.dir }

// Topology returns the lab's topology; callers must not change it.
func (l *Lab) Topology() *topology.Topology { return l.topology }

// Kubeconfig returns the path of the administrator's kubeconfig. The server in
// it is reachable from the lab's machines only: see DialContext and Kubectl.
func (l *Lab) Kubeconfig() string { return filepath.Join(l.dir, "admin.kubeconfig") }

// LogDir returns where the logs of a machine's services are.
func (l *Lab) LogDir(machine string) string { return filepath.Join(l.dir, "logs", machine) }

// Up builds what is missing, starts everything and returns when all nodes are
// registered and, in the case of light ones, Ready. Full nodes stay NotReady
// until a pod network is installed. The phases come back also on failure; what
// stands then is left for inspection and removed by Down.
func (l *Lab) Up(ctx context.Context) (Phases, error) {
	unlock, err := l.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if left, err := l.leftovers(); err != nil {
		return nil, err
	} else if len(left) > 0 {
		return nil, fmt.Errorf("lab %s is up, or was not taken down (%s is there): take it down first", l.name, left[0])
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
		{"start control plane", l.startControlPlane},
		{"start full nodes", l.startFullNodes},
		{"start light nodes", l.startLightNodes},
	}
	for _, step := range steps {
		if err := l.progress.phase(step.name, func() error { return step.do(ctx) }); err != nil {
			return l.progress.phases, fmt.Errorf("lab %s: %s: %w", l.name, step.name, err)
		}
	}
	return l.progress.phases, nil
}

// Down ends every process of the lab and removes its namespaces, cgroups,
// mounts and files. Shared programs in the sibling directory bin stay. It goes
// on after an error, and removing what is absent is success.
func (l *Lab) Down(ctx context.Context) error {
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	prefix := l.name + "-"
	var errs []error
	spaces, err := netns.List(prefix)
	errs = append(errs, err)
	groups, err := cgroup.List(prefix)
	errs = append(errs, err)
	var group errgroup.Group
	group.SetLimit(parallel)
	results := make([]error, len(groups)+len(spaces))
	for i, name := range groups {
		group.Go(func() error { results[i] = cgroup.Remove(name); return nil })
	}
	_ = group.Wait()
	for i, name := range spaces {
		group.Go(func() error {
			results[len(groups)+i] = errors.Join(killInNetns(ctx, name), netns.Delete(name))
			return nil
		})
	}
	_ = group.Wait()
	errs = append(errs, results...)
	errs = append(errs, l.killRecorded(), l.removeDir())
	l.keepers.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("take lab %s down: %w", l.name, err)
	}
	return nil
}

// removeDir removes the state directory. Nothing is mounted there for the
// host: the machines' mounts went with their namespaces.
func (l *Lab) removeDir() error {
	if err := os.RemoveAll(l.dir); err != nil {
		return fmt.Errorf("remove state: %w", err)
	}
	return nil
}

// leftovers names what is there of a lab: namespaces, cgroups, state.
func (l *Lab) leftovers() ([]string, error) {
	prefix := l.name + "-"
	spaces, err := netns.List(prefix)
	if err != nil {
		return nil, err
	}
	groups, err := cgroup.List(prefix)
	if err != nil {
		return nil, err
	}
	var left []string
	for _, name := range spaces {
		left = append(left, "network namespace "+name)
	}
	for _, name := range groups {
		left = append(left, "cgroup "+name)
	}
	if _, err := os.Stat(filepath.Join(l.dir, stateFile)); err == nil {
		left = append(left, filepath.Join(l.dir, stateFile))
	}
	return left, nil
}

// lock keeps two processes from changing the same lab at once.
func (l *Lab) lock() (unlock func(), err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("the lab needs root: it makes namespaces, mounts and cgroups")
	}
	path := l.dir + ".lock"
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("lock lab %s: %w", l.name, err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock lab %s: %w", l.name, err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		return nil, fmt.Errorf("lock lab %s: another process is changing it: %w", l.name, err)
	}
	if info, err := os.Stat(path); err != nil || !sameFile(file, info) {
		file.Close() // its holder has just removed it
		return nil, fmt.Errorf("lock lab %s: another process is changing it", l.name)
	}
	return func() {
		_ = os.Remove(path) // while held, so that nobody's new lock is removed
		file.Close()
	}, nil
}

func sameFile(file *os.File, info os.FileInfo) bool {
	own, err := file.Stat()
	return err == nil && os.SameFile(own, info)
}

func (l *Lab) saveState() error {
	known := state{Topology: l.topology, Light: l.options.Light, Share: l.options.Share, Source: l.source}
	data, err := json.MarshalIndent(known, "", "  ")
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return os.WriteFile(filepath.Join(l.dir, stateFile), data, 0o600)
}
