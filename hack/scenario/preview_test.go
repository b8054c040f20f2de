package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// alteration is something that is previewed, then applied, then taken back.
type alteration struct {
	name        string
	does        string // part of what is foretold, so that nothing is no answer
	yaml        string
	apply, undo []step
}

// prediction is what `muslinctl preview -o json` says.
type prediction struct {
	Sessions []struct {
		Node, Peer, What, Why string
		Gains, Loses          []string
	}
	Paths []struct{ Node, Block, What, To string }
}

// previewsComeTrue: what preview says of ten changes is what the sessions, the
// routers' tables and the nodes' kernels do once they are applied.
func (s story) previewsComeTrue(t *testing.T, ctx context.Context) {
	o := s.operator(t, ctx)
	if err := o.settled(ctx); err != nil {
		t.Fatal(err)
	}
	for _, c := range o.changes() {
		began := time.Now()
		t.Run(c.name, func(t *testing.T) { o.predict(t, ctx, c) })
		fmt.Printf("  %-20s %7.1fs\n", c.name, time.Since(began).Seconds())
	}
}

// predict previews a change, makes it and looks; a session that is lost
// meanwhile for another reason, such as a router starved by a busy machine, is
// worth another try, a wrong prediction is wrong each time.
func (o operator) predict(t *testing.T, ctx context.Context, c alteration) {
	for try := 1; ; try++ {
		err := o.comesTrue(ctx, c)
		for _, do := range append(c.undo, o.settled) {
			if undone := do(context.WithoutCancel(ctx)); undone != nil {
				t.Fatalf("undo: %v", undone)
			}
		}
		if err == nil {
			return
		}
		if try == 3 {
			t.Error(err)
			return
		}
		t.Logf("try %d: %v", try, err)
	}
}

func (o operator) comesTrue(ctx context.Context, c alteration) error {
	before, err := o.look(ctx)
	if err != nil {
		return err
	}
	var predicted prediction
	if err := o.preview(ctx, c.yaml, &predicted); err != nil {
		return err
	}
	want := linesOf(predicted, o.routerAddresses())
	if !strings.Contains(strings.Join(want, "\n"), c.does) {
		return fmt.Errorf("foretold is\n%s\nwithout %q", strings.Join(want, "\n"), c.does)
	}
	for _, do := range c.apply {
		if err := do(ctx); err != nil {
			return err
		}
	}
	same := func() error {
		now, err := o.look(ctx)
		if err != nil {
			return err
		}
		if got := before.becomes(now); !slices.Equal(got, want) {
			return fmt.Errorf("foretold\n  %s\nhappened\n  %s", strings.Join(want, "\n  "), strings.Join(got, "\n  "))
		}
		return nil
	}
	if err := o.eventually(ctx, 45*time.Second, same); err != nil {
		return err
	}
	time.Sleep(time.Second) // what is right by chance, before all has happened, does not stay
	if err := same(); err != nil {
		return fmt.Errorf("later: %w", err)
	}
	return nil
}

// preview gives a change to muslinctl by standard input.
func (o operator) preview(ctx context.Context, yaml string, into any) error {
	cmd := o.ControlPlane().CommandInNet(ctx, o.program, "preview", "-f", "-", "-o", "json")
	cmd.Env = append(cmd.Env, "KUBECONFIG="+o.Kubeconfig())
	cmd.Stdin = strings.NewReader(yaml)
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("preview: %w: %s", err, out)
	}
	return json.Unmarshal(out, into)
}

func (o operator) routerAddresses() map[string]bool {
	out := map[string]bool{}
	for _, r := range o.Topology().Racks {
		out[r.Gateway.V4.String()] = true
	}
	return out
}

// linesOf has a line for each thing that is to be seen.
func linesOf(p prediction, routers map[string]bool) []string {
	var out []string
	for _, s := range p.Sessions {
		switch {
		case s.What == "down", s.What == "reset" && strings.Contains(s.Why, "stays down"):
			out = append(out, "session "+s.Node+" "+s.Peer+" down")
		case s.What != "changed":
			out = append(out, "session "+s.Node+" "+s.Peer+" "+s.What)
		}
		if routers[s.Peer] {
			for _, g := range s.Gains {
				out = append(out, "router "+s.Peer+" from "+s.Node+" + "+g)
			}
			for _, l := range s.Loses {
				out = append(out, "router "+s.Peer+" from "+s.Node+" - "+l)
			}
		}
	}
	for _, w := range p.Paths {
		out = append(out, "way "+w.Node+" "+w.Block+" "+strings.TrimSpace(w.What+" "+w.To))
	}
	slices.Sort(out)
	return out
}

// seen is the network at one moment.
type seen struct {
	sessions map[string]string // "n1 10.1.1.1": since when it is up; empty: it is not
	routers  map[string]bool   // "10.1.1.1 from n1 + 10.244.1.0/26"
	paths    map[string]string // "n1 10.244.1.0/26": "via 10.1.1.1 dev eth0"
}

// becomes has a line for each difference, in the words of foretold.
func (was seen) becomes(is seen) []string {
	var out []string
	for s, since := range was.sessions {
		switch now, there := is.sessions[s]; {
		case !there:
			out = append(out, "session "+s+" removed")
		case now == "":
			out = append(out, "session "+s+" down")
		case now != since:
			out = append(out, "session "+s+" reset")
		}
	}
	for s := range is.sessions {
		if _, had := was.sessions[s]; !had {
			out = append(out, "session "+s+" added")
		}
	}
	for r := range is.routers {
		if !was.routers[r] {
			out = append(out, "router "+r)
		}
	}
	for r := range was.routers {
		if !is.routers[r] {
			out = append(out, "router "+strings.Replace(r, " + ", " - ", 1))
		}
	}
	for w, how := range was.paths {
		switch now, there := is.paths[w]; {
		case !there:
			out = append(out, "way "+w+" lost")
		case now != how:
			out = append(out, "way "+w+" moved "+now)
		}
	}
	for w, how := range is.paths {
		if _, had := was.paths[w]; !had {
			out = append(out, "way "+w+" gained "+how)
		}
	}
	slices.Sort(out)
	return out
}

// look asks agents for their sessions, routers for what they have heard, and
// kernels for their routes.
func (o operator) look(ctx context.Context) (seen, error) {
	s := seen{sessions: map[string]string{}, routers: map[string]bool{}, paths: map[string]string{}}
	blocks := map[netip.Prefix]bool{}
	for _, n := range o.FullNodes() {
		var view struct {
			Peers []struct {
				Address      netip.Addr
				State, Since string
			}
			Blocks []struct{ CIDR netip.Prefix }
		}
		if err := o.muslinctl(ctx, &view, "node", "show", n); err != nil {
			return s, err
		}
		for _, p := range view.Peers {
			s.sessions[n+" "+p.Address.String()] = ""
			if p.State == "Established" {
				s.sessions[n+" "+p.Address.String()] = p.Since
			}
		}
		for _, b := range view.Blocks {
			blocks[b.CIDR] = true
		}
	}
	for _, n := range o.FullNodes() {
		if err := o.kernelPaths(ctx, n, blocks, s.paths); err != nil {
			return s, err
		}
	}
	return s, errors.Join(o.bird(ctx, s.routers), o.frr(ctx, s.routers))
}

// kernelPaths notes how a node's kernel sends to blocks; the far end of a tunnel is
// left out, which is a detail of the tunnel.
func (o operator) kernelPaths(ctx context.Context, node string, blocks map[netip.Prefix]bool, into map[string]string) error {
	out, err := o.Machine(node).Exec(ctx, "ip", "-j", "route", "show", "proto", "109")
	if err != nil {
		return err
	}
	type hop struct{ Gateway, Dev string }
	var routes []struct {
		hop
		Dst      string
		Type     string
		Nexthops []hop
	}
	if err := json.Unmarshal(out, &routes); err != nil {
		return fmt.Errorf("%s: %w in %s", node, err, out)
	}
	for _, r := range routes {
		p, err := netip.ParsePrefix(r.Dst)
		if err != nil || !blocks[p] || r.Type != "" && r.Type != "unicast" {
			continue
		}
		var hops []string
		for _, h := range append(r.Nexthops, r.hop) {
			switch {
			case h.Dev == "eth0":
				hops = append(hops, "via "+h.Gateway+" dev eth0")
			case h.Dev != "":
				hops = append(hops, "dev "+h.Dev)
			}
		}
		into[node+" "+r.Dst] = strings.Join(hops, " ")
	}
	return nil
}

var (
	birdSession = regexp.MustCompile(`(?ms)^(r1_ipv4_\d+) .*?Neighbor address: (\S+)`)
	birdRoute   = regexp.MustCompile(`(?m)^(10\.244\.\S+)`)
)

// bird notes what the router of rack r1 has heard from each node.
func (o operator) bird(ctx context.Context, into map[string]bool) error {
	out, err := o.Machine("tor1").Exec(ctx, "birdc", "show", "protocols", "all")
	if err != nil {
		return err
	}
	for _, m := range birdSession.FindAllStringSubmatch(string(out), -1) {
		table, err := o.Machine("tor1").Exec(ctx, "birdc", "show", "route", "protocol", m[1])
		if err != nil {
			return err
		}
		for _, r := range birdRoute.FindAllStringSubmatch(string(table), -1) {
			into["10.1.1.1 from "+o.nodeOf(m[2])+" + "+r[1]] = true
		}
	}
	return nil
}

// frr notes what the router of rack r2 has heard from each node.
func (o operator) frr(ctx context.Context, into map[string]bool) error {
	for _, n := range []string{"n3", "n4"} {
		out, err := o.Machine("tor2").Exec(ctx, "vtysh", "-c", "show bgp ipv4 unicast neighbors "+o.nodeAddr(n).String()+" routes json")
		if err != nil {
			return err
		}
		var view struct{ Routes map[string]json.RawMessage }
		if json.Unmarshal(out, &view) != nil {
			continue // "% No such neighbor": nothing was heard
		}
		for p := range view.Routes {
			if strings.HasPrefix(p, "10.244.") {
				into["10.1.2.1 from "+n+" + "+p] = true
			}
		}
	}
	return nil
}

func (o operator) nodeOf(address string) string {
	for _, n := range o.FullNodes() {
		if o.nodeAddr(n).String() == address {
			return n
		}
	}
	return address
}

// changes are ten, of every kind of object that BGP depends on.
func (o operator) changes() []alteration {
	out := []alteration{
		{name: "private pool", does: "router 10.1.1.1 from n1 - ", yaml: pool("disableBGPExport: true"),
			undo: []step{o.patched(defaultPool, `{"spec":{"disableBGPExport":false}}`)}},
		{name: "tunnel always", does: "moved dev vxlan.calico", yaml: pool("vxlanMode: Always"),
			undo: []step{o.patched(defaultPool, `{"spec":{"vxlanMode":"Never"}}`)}},
		{name: "tunnel across", does: "moved dev vxlan.calico", yaml: pool("vxlanMode: CrossSubnet"),
			undo: []step{o.patched(defaultPool, `{"spec":{"vxlanMode":"Never"}}`)}},
		{name: "no mesh", does: "session n1 10.1.1.12 removed", yaml: object("BGPConfiguration", "default", "asNumber: 64512, nodeToNodeMeshEnabled: false"),
			undo: []step{o.patched("bgpconfiguration.projectcalico.org/default", `{"spec":{"nodeToNodeMeshEnabled":true}}`)}},
		{name: "own AS allowed", does: "session n1 10.1.1.1 reset", yaml: rack("r1", 1, "numAllowedLocalASNumbers: 1"),
			undo: []step{o.patched("bgppeer.projectcalico.org/rack-r1", `{"spec":{"numAllowedLocalASNumbers":null}}`)}},
		{name: "wrong AS", does: "session n3 10.1.2.1 down", yaml: strings.Replace(rack("r2", 2, "keepOriginalNextHop: false"), "65102", "65199", 1),
			undo: []step{o.patched("bgppeer.projectcalico.org/rack-r2", `{"spec":{"asNumber":65102}}`)}},
		{name: "filter", does: "router 10.1.1.1 from n1 - ", yaml: object("BGPFilter", "none-out", "exportV4: [{cidr: 10.244.0.0/16, matchOperator: In, action: Reject}]") + "---\n" + rack("r1", 1, "filters: [none-out]"),
			undo: []step{o.patched("bgppeer.projectcalico.org/rack-r1", `{"spec":{"filters":null}}`), o.deleted("bgpfilter.projectcalico.org/none-out")}},
		{name: "node leaves its rack", does: "session n2 10.1.1.1 removed", yaml: node("n2", "10.1.1.12/24", "", "labels: {rack: none}"),
			undo: []step{o.nodeBack("n2", "rack=r1", "projectcalico.org/ASNumber-")}},
		{name: "node of another AS", does: "session n4 10.1.2.1 down", yaml: node("n4", "10.1.2.12/24", "asNumber: 64600", "labels: {rack: r2}"),
			undo: []step{o.nodeBack("n4", "rack=r2", "projectcalico.org/ASNumber-")}},
		{name: "node drained", does: "session n1 10.1.2.12 down", yaml: node("n4", "10.1.2.12/24", "", "annotations: {muslin.io/drain: Withdrawn}"),
			undo: []step{o.nodeBack("n4", "rack=r2", "muslin.io/drain-")}},
	}
	for i := range out {
		out[i].apply = []step{o.writes(out[i].yaml)}
	}
	return out
}

// writes applies objects with muslinctl, which also writes Calico's Nodes.
func (o operator) writes(yaml string) step {
	return func(ctx context.Context) error {
		cmd := o.ControlPlane().CommandInNet(ctx, o.program, "apply", "-f", "-")
		cmd.Env = append(cmd.Env, "KUBECONFIG="+o.Kubeconfig())
		cmd.Stdin = strings.NewReader(yaml)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apply: %w: %s", err, out)
		}
		return nil
	}
}

// nodeBack gives a node a label again and takes an annotation away.
func (o operator) nodeBack(name, label, annotation string) step {
	return func(ctx context.Context) error {
		_, err := o.Kubectl(ctx, "", "label", "node", name, label, "--overwrite")
		_, err2 := o.Kubectl(ctx, "", "annotate", "node", name, annotation)
		return errors.Join(err, err2)
	}
}

func object(kind, name, spec string) string {
	return fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: %s\nmetadata: {name: %s}\nspec: {%s}\n", kind, name, spec)
}

func pool(field string) string {
	return object("IPPool", "default-ipv4-ippool", "cidr: 10.244.0.0/16, natOutgoing: true, "+field)
}

func rack(name string, number int, field string) string {
	return object("BGPPeer", "rack-"+name, fmt.Sprintf(`peerIP: 10.1.%d.1, asNumber: %d, nodeSelector: "rack == '%s'", %s`, number, 65100+number, name, field))
}

func node(name, address, bgp, meta string) string {
	return fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: %s, %s}\nspec: {bgp: {ipv4Address: %s, %s}}\n", name, meta, address, bgp)
}
