package scenario

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/muslin-net/muslin/hack/image"
	"github.com/muslin-net/muslin/hack/lab"
	"github.com/muslin-net/muslin/hack/lab/topology"
)

// MainJobOptions say which lab the main job is played on.
type MainJobOptions struct {
	Lab      lab.Options
	Topology string // path of the topology file
	Source   string // the checkout
	Out      io.Writer
}

// Report is what the main job saw.
type Report struct {
	Image    image.Report
	Phases   lab.Phases
	Nodes    string // kubectl get nodes
	Agents   string // kubectl get pods of the DaemonSet
	Sessions string
	Pods     []Pod
	Tries    []Try
	Trace    string
	Routes   string
	Routers  string
}

// MainJob brings a lab up, installs Muslin on it and looks at everything that
// has to work. The report is complete as far as the job came; the cluster stays
// up for a look around.
func MainJob(ctx context.Context, o MainJobOptions) (*Cluster, *Report, error) {
	c := &Cluster{Source: o.Source, Out: o.Out}
	r := &Report{}
	err := c.start(ctx, o, r)
	if err == nil {
		err = c.look(ctx, r)
	}
	r.Phases = c.Phases
	return c, r, err
}

// start builds, boots and installs.
func (c *Cluster) start(ctx context.Context, o MainJobOptions, r *Report) error {
	plan, err := topology.Read(o.Topology)
	if err != nil {
		return err
	}
	var muslin product
	if err := c.phase("image", func() (err error) {
		muslin, err = build(ctx, o.Source)
		r.Image = muslin.image
		return err
	}); err != nil {
		return err
	}
	o.Lab.Source, o.Lab.Progress = o.Source, o.Out
	if c.Lab, err = lab.New(plan, o.Lab); err != nil {
		return err
	}
	phases, err := c.Up(ctx)
	c.Phases = append(c.Phases, phases...)
	if err != nil {
		return err
	}
	return errors.Join(
		c.phase("load image", func() error { return c.Kube.Load(ctx, muslin.archive) }),
		c.phase("install", func() error { return c.Install(ctx) }),
	)
}

// look waits for the cluster and collects the report.
func (c *Cluster) look(ctx context.Context, r *Report) (err error) {
	steps := []struct {
		name string
		do   func() error
	}{
		{"nodes ready", func() error { return c.WaitReady(ctx) }},
		{"bgp sessions", func() error { return c.WaitSessions(ctx) }},
		{"8 pods", func() (err error) { r.Pods, err = c.Deploy(ctx, 8); return err }},
		{"connectivity matrix", func() (err error) {
			if r.Tries, err = c.Matrix(ctx, r.Pods); err != nil {
				return err
			}
			return failedTries(r.Tries)
		}},
		{"path and tables", func() error { return c.tables(ctx, r) }},
	}
	for _, s := range steps {
		if err := c.phase(s.name, s.do); err != nil {
			return err
		}
	}
	return nil
}

func failedTries(tries []Try) error {
	var errs []error
	for _, t := range tries {
		if !t.OK() {
			errs = append(errs, fmt.Errorf("%s: %s → %s: source %s, want %s: %w", t.Kind, t.From, t.To, t.Source, t.Want, orWrongSource(t.Err)))
		}
	}
	return errors.Join(errs...)
}

func orWrongSource(err error) error {
	if err == nil {
		return errors.New("connected from the wrong address")
	}
	return err
}

// tables reads what an operator would look at.
func (c *Cluster) tables(ctx context.Context, r *Report) error {
	var errs []error
	keep := func(into *string, out []byte, err error) {
		*into += string(out)
		errs = append(errs, err)
	}
	out, err := c.Kubectl(ctx, "", "get", "nodes", "-o", "wide")
	keep(&r.Nodes, out, err)
	out, err = c.Kubectl(ctx, "", "-n", Namespace, "get", "pods", "-o", "wide")
	keep(&r.Agents, out, err)
	from, to := acrossRacks(c, r.Pods)
	for _, ip := range to.IPs {
		out, err = c.Kubectl(ctx, "", "exec", from.Name, "--", "probe", "trace", ip.String())
		keep(&r.Trace, append([]byte(fmt.Sprintf("%s on %s → %s on %s\n", from.Name, from.Node, to.Name, to.Node)), out...), err)
	}
	for _, n := range c.FullNodes() {
		s, err := c.Agent(ctx, n)
		keep(&r.Sessions, []byte(sessionLines(s)), err)
		for _, family := range c.flags() {
			out, err = c.Machine(n).Exec(ctx, "ip", family, "route", "show", "proto", "109")
			keep(&r.Routes, append([]byte("# "+n+"\n"), out...), err)
		}
		errs = append(errs, c.noTunnels(ctx, n))
	}
	for _, router := range c.Topology().Routers {
		out, err = c.routerTable(ctx, router)
		keep(&r.Routers, append([]byte("# "+router.Name+" ("+string(router.Kind)+")\n"), out...), err)
	}
	return errors.Join(errs...)
}

func sessionLines(s AgentStatus) string {
	var b strings.Builder
	for _, p := range s.Peers {
		fmt.Fprintf(&b, "%-6s %-18s %-10s %s\n", s.Node, p.Address, p.Kind, p.State)
	}
	return b.String()
}

// acrossRacks picks two pods of different racks.
func acrossRacks(c *Cluster, pods []Pod) (from, to Pod) {
	from = pods[0]
	i := slices.IndexFunc(pods, func(p Pod) bool { return c.rack(p.Node) != c.rack(from.Node) })
	if i < 0 {
		return from, from
	}
	return from, pods[i]
}

// noTunnels fails when a node has a tunnel device or a bridge.
func (c *Cluster) noTunnels(ctx context.Context, node string) error {
	for _, kind := range []string{"ipip", "vxlan", "gre", "bridge"} {
		out, err := c.Machine(node).Exec(ctx, "ip", "-o", "link", "show", "type", kind)
		if err != nil {
			return err
		}
		if len(out) > 0 {
			return fmt.Errorf("node %s has a %s device: %s", node, kind, out)
		}
	}
	return nil
}

// flags are ip's of the families that the lab has.
func (c *Cluster) flags() []string {
	var out []string
	for _, a := range c.Topology().Outside.Address.All() {
		out = append(out, map[bool]string{true: "-4", false: "-6"}[a.Is4()])
	}
	return out
}

// routerTable shows a router's own view of what it learned by BGP.
func (c *Cluster) routerTable(ctx context.Context, r topology.Router) ([]byte, error) {
	if r.Kind == topology.BIRD {
		return c.Machine(r.Name).Exec(ctx, "birdc", "show", "route", "where", "source = RTS_BGP")
	}
	argv := []string{"vtysh"}
	for _, family := range c.flags() {
		argv = append(argv, "-c", "show bgp ipv"+family[1:]+" unicast")
	}
	return c.Machine(r.Name).Exec(ctx, argv...)
}

// String is the report as `make lab` prints it.
func (r *Report) String() string {
	var b strings.Builder
	section := func(title, body string) {
		if body != "" {
			fmt.Fprintf(&b, "\n%s\n%s\n%s", title, strings.Repeat("─", len([]rune(title))), body)
		}
	}
	section("Nodes", r.Nodes)
	section("muslin-system", r.Agents)
	section("BGP sessions", r.Sessions)
	section("Routes of protocol 109", r.Routes)
	section("What the routers learned", r.Routers)
	section("Path between racks", r.Trace)
	section("Connectivity", r.connectivity())
	section("Image", r.Image.String())
	section("Time", r.Phases.String())
	return b.String()
}

// connectivity sums the matrix up by kind.
func (r *Report) connectivity() string {
	type sum struct{ ok, all int }
	sums := map[string]*sum{}
	var order []string
	for _, t := range r.Tries {
		s := sums[t.Kind]
		if s == nil {
			s = &sum{}
			sums[t.Kind] = s
			order = append(order, t.Kind)
		}
		s.all++
		if t.OK() {
			s.ok++
		}
	}
	var b strings.Builder
	for _, k := range order {
		verdict := "ok"
		if sums[k].ok != sums[k].all {
			verdict = "FAILED"
		}
		fmt.Fprintf(&b, "%-35s %3d of %3d  %s\n", k, sums[k].ok, sums[k].all, verdict)
	}
	return b.String()
}

// Timeout bounds the main job, a cold build of Kubernetes included.
const Timeout = 40 * time.Minute
