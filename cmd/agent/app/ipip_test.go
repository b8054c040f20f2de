//go:build vmtest

package app_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

// What hack/vm tells a guest by its environment: the folder of the API server on the
// machine below it, where the server is reached, the plugin, the cluster's nodes, as in
// "abc", and those that are the guest's. The rest are another guest's, at the other end
// of eth1.
const (
	envAPI    = "MUSLIN_TEST_API"
	envAPIAt  = "MUSLIN_TEST_API_AT"
	envPlugin = "MUSLIN_TEST_PLUGIN"
	envNodes  = "MUSLIN_TEST_NODES"
	envMine   = "MUSLIN_TEST_NODES_HERE"
	envModes  = "MUSLIN_TEST_MODES"
)

// places are the subnet and the number of each node.
var places = map[string][2]int{"a": {1, 1}, "b": {1, 2}, "c": {2, 3}}

// modes are the devices by which nodes on a link and behind a router send in each mode of a
// pool, and the MTU of its pods.
var modes = map[string]struct {
	near, far string
	mtu       int
}{
	"CrossSubnet": {"eth0", "tunl0", 1480},
	"Always":      {"tunl0", "tunl0", 1480},
	"Never":       {"eth0", "eth0", 1500},
}

// spread is a cluster of nodes, a and b on a link and c behind a router, in one guest or
// more.
type spread struct {
	*fabric
	api   *http.Client
	mine  []*member          // the nodes of this guest
	nodes map[string]*member // all; those of others have addresses alone
}

// TestIPIPInACluster has the pool go from no tunnel to IPIP across subnets, to IPIP
// always, and back, in a cluster whose agents speak BGP, under pings: none is lost, and
// packets go where the mode says. It runs where the kernel has IPIP (hack/vm).
func TestIPIPInACluster(t *testing.T) {
	s := newSpread(t)
	var streams []*unbroken
	for _, m := range s.mine {
		for _, to := range map[string]string{"a": "bc", "c": "a"}[m.name] {
			if to := s.nodes[string(to)]; to != nil {
				streams = append(streams, m.stream(to.podIP), m.stream(to.podIP6))
			}
		}
	}
	s.meet("pings")
	for i, mode := range strings.Fields(cmp.Or(os.Getenv(envModes), "CrossSubnet Always Never")) {
		step := modes[mode]
		if s.has("a") {
			s.must("PATCH", "/apis/projectcalico.org/v3/ippools/pods", `{"spec":{"ipipMode":"`+mode+`"}}`)
		}
		for _, m := range s.mine {
			s.await(m.name+" follows ipipMode "+mode, func() string { return s.wrong(m, step.near, step.far, step.mtu) })
		}
		s.meet(fmt.Sprintf("follow-%d", i))
		for _, m := range s.mine {
			s.hops(m, step.near, step.far, step.mtu)
		}
		for _, p := range streams {
			p.check()
		}
		s.meet(fmt.Sprintf("leave-%d", i))
	}
}

func newSpread(t *testing.T) *spread {
	t.Helper()
	s := &spread{fabric: &fabric{t: t, plugin: os.Getenv(envPlugin), patience: 15 * time.Minute, pause: 300 * time.Millisecond}, nodes: map[string]*member{}}
	s.run(exec.Command("ip", "addr", "add", "10.0.2.15/24", "dev", "eth0"))
	s.run(exec.Command("ip", "link", "set", "eth0", "up"))
	s.server = kubetest.Elsewhere(t, os.Getenv(envAPI), os.Getenv(envAPIAt))
	var err error
	if s.api, err = rest.HTTPClientFor(s.server.Config()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			s.say("failed", nil)
		}
	})
	s.lay()
	all, names := strings.Split(os.Getenv(envNodes), ""), strings.Split(os.Getenv(envMine), "")
	if len(names) < len(all) {
		s.run(exec.Command("ip", "link", "set", "eth1", "netns", s.netns))
		s.ip("link", "set", "eth1", "master", "br0")
		s.ip("link", "set", "eth1", "up")
	}
	if slices.Contains(names, "c") {
		s.route()
	}
	for _, name := range names {
		m := s.connect(name, places[name][0], places[name][1])
		m.launchAgent()
		t.Cleanup(m.kill)
		s.mine, s.nodes[name] = append(s.mine, m), m
	}
	for _, m := range s.mine {
		m.awaitReady()                    // it has a session with another
		m.pod = s.named(m.netns + "-pod") // where the agent finds it when its MTU changes
		m.attach("p-"+m.name, m.name)
		s.say("node-"+m.name, map[string]string{"4": m.podIP, "6": m.podIP6})
	}
	for _, name := range all {
		at := places[name]
		if pod := s.hear("node-" + name); s.nodes[name] == nil {
			s.nodes[name] = &member{name: name, podIP: pod["4"], podIP6: pod["6"],
				address: fmt.Sprintf("10.%d.0.%d", at[0], at[1]), address6: fmt.Sprintf("fd%02d::%d", at[0], at[1])}
		}
		if s.has("c") {
			s.knows(s.nodes[name])
		}
	}
	return s
}

// named is a network namespace that is found by its name.
func (s *spread) named(name string) *os.File {
	s.t.Helper()
	s.makeNetns(name)
	file, err := os.Open("/run/netns/" + name)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = file.Close() })
	return file
}

func (s *spread) has(name string) bool {
	return slices.ContainsFunc(s.mine, func(m *member) bool { return m.name == name })
}

// knows has the router know a node's blocks, as one that speaks BGP would.
func (s *spread) knows(m *member) {
	s.t.Helper()
	for pod, bits := range map[string]int{m.podIP: 26, m.podIP6: 122} {
		block, via := netip.PrefixFrom(netip.MustParseAddr(pod), bits).Masked(), m.address
		if block.Addr().Is6() {
			via = m.address6
		}
		s.ip("route", "add", block.String(), "via", via)
	}
}

// between is the device by which nodes send to each other's pods.
func between(m, to *member, near, far string) string {
	if places[m.name][0] == places[to.name][0] {
		return near
	}
	return far
}

// wrong says what is not as the mode has it: the devices by which a node sends to the
// others' pods, the routes that it wrote, and its pod's MTU.
func (s *spread) wrong(m *member, near, far string, mtu int) (wrong string) {
	routes := m.routes()
	for _, name := range slices.Sorted(maps.Keys(s.nodes)) {
		to := s.nodes[name]
		if to == m {
			continue
		}
		device := between(m, to, near, far)
		if out := m.inside("ip", "route", "get", to.podIP); !strings.Contains(out, " dev "+device+" ") {
			wrong += fmt.Sprintf("%s to the pod of %s: %s; ", m.name, to.name, out)
		}
		if device == "tunl0" && !strings.Contains(routes, "via "+to.address+" dev tunl0 ") {
			wrong += fmt.Sprintf("%s: no route by %s in the tunnel: %s; ", m.name, to.address, routes)
		}
	}
	if link := m.run(m.inPod("ip", "link", "show", "dev", "eth0")); !strings.Contains(link, fmt.Sprintf(" mtu %d ", mtu)) {
		wrong += "the pod: " + link
	}
	return wrong
}

func (m *member) run(cmd *exec.Cmd) string { m.f.t.Helper(); return m.f.run(cmd) }

// hops counts the routers between the node's pod and others, as traceroute does, with
// the largest packet: two nodes, and the router where there is one that no tunnel hides.
// Who stops a packet says so. Only of one that the router stops in the tunnel, whose
// header has the packet's own time to live, nobody tells the pod: the kernel keeps that.
func (s *spread) hops(m *member, near, far string, mtu int) {
	s.t.Helper()
	for _, to := range s.nodes {
		if to == m {
			continue
		}
		device, routers := between(m, to, near, far), 2
		across := places[m.name][0] != places[to.name][0]
		if across && device != "tunl0" {
			routers = 3
		}
		s.await(fmt.Sprintf("%d routers from the pod of %s to that of %s by %s", routers, m.name, to.name, device), func() string {
			if out, err := m.largest(to, mtu, routers+1); err != nil {
				return out
			}
			out, err := m.largest(to, mtu, routers)
			if err == nil {
				s.t.Fatalf("the pod of %s to that of %s by %s: not stopped by the last of %d routers: %s", m.name, to.name, device, routers, out)
			}
			if !strings.Contains(out, "Time to live exceeded") && (!across || device != "tunl0") {
				return out
			}
			return ""
		})
	}
}

// largest sends one ping of the whole MTU with a time to live.
func (m *member) largest(to *member, mtu, ttl int) (string, error) {
	out, err := m.inPod("ping", "-c", "1", "-W", "5", "-M", "do", "-s", strconv.Itoa(mtu-28), "-t", strconv.Itoa(ttl), to.podIP).CombinedOutput()
	return string(out), err
}

// unbroken is a stream of pings of which none may be lost.
type unbroken struct {
	f    *fabric
	what string
	out  witness
}

// stream starts one, once its first ping is answered.
func (m *member) stream(to string) *unbroken {
	m.f.t.Helper()
	p := &unbroken{f: m.f, what: m.name + " to " + to}
	m.f.await(p.what, func() string {
		if out, err := m.inPod("ping", "-c", "1", "-W", "5", to).CombinedOutput(); err != nil {
			return string(out) + m.routes() + "\n" + tail(path.Join(m.dir, "agent.log"))
		}
		return ""
	})
	cmd := m.inPod("ping", "-n", "-i", "0.1", to)
	cmd.Stdout = &p.out
	if err := cmd.Start(); err != nil {
		m.f.t.Fatal(err)
	}
	m.f.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		m.f.t.Logf("%s: %d pings were answered", p.what, len(p.answered()))
	})
	return p
}

func (p *unbroken) answered() (seqs []int) {
	for _, line := range p.out.lines() {
		_, word, _ := strings.Cut(line, "icmp_seq=")
		word, _, _ = strings.Cut(word, " ")
		if seq, err := strconv.Atoi(word); err == nil && strings.Contains(line, "bytes from") {
			seqs = append(seqs, seq)
		}
	}
	slices.Sort(seqs)
	return slices.Compact(seqs)
}

// check waits until pings that are sent from now on are answered, and wants all those
// before them answered, too. One is lost when 100 that came after it are answered.
func (p *unbroken) check() {
	p.f.t.Helper()
	was := p.answered()
	p.f.await(p.what+" goes on", func() string {
		now := p.answered()
		if len(was) == 0 {
			was = now
		}
		if len(was) == 0 || now[len(now)-1] < was[len(was)-1]+20 {
			return strings.Join(p.out.lines()[max(0, len(p.out.lines())-3):], "\n")
		}
		for i, seq := range now {
			if seq == i+1 {
				continue
			}
			if now[len(now)-1] < i+1+100 {
				return fmt.Sprintf("ping %d is not answered", i+1)
			}
			p.f.t.Fatalf("%s: ping %d was lost, the next to be answered is %d", p.what, i+1, seq)
		}
		return ""
	})
}

// say tells the other guests something.
func (s *spread) say(name string, data map[string]string) {
	s.t.Helper()
	body, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name}, "data": data})
	if err != nil {
		s.t.Fatal(err)
	}
	s.must("POST", "/api/v1/namespaces/default/configmaps", string(body))
}

// hear waits for what another guest says.
func (s *spread) hear(name string) (data map[string]string) {
	s.t.Helper()
	s.await("to hear "+name, func() string {
		var list struct {
			Items []struct {
				Metadata struct{ Name string }
				Data     map[string]string
			}
		}
		if err := json.Unmarshal([]byte(s.must("GET", "/api/v1/namespaces/default/configmaps", "")), &list); err != nil {
			return err.Error()
		}
		for _, c := range list.Items {
			switch c.Metadata.Name {
			case name:
				data = c.Data
				return ""
			case "failed":
				s.t.Fatalf("waiting for %s: another guest has failed", name)
			}
		}
		return "not yet"
	})
	return data
}

// meet waits until all guests have come to a point.
func (s *spread) meet(point string) {
	s.t.Helper()
	for _, m := range s.mine {
		s.say(point+"-"+m.name, nil)
	}
	for name := range s.nodes {
		s.hear(point + "-" + name)
	}
}

func (s *spread) must(method, where, body string) string {
	s.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, s.server.Config().Host+where, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", map[string]string{"POST": "application/json", "PATCH": "application/merge-patch+json"}[method])
	resp, err := s.api.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		s.t.Fatalf("%s %s: %s: %s, %v", method, where, resp.Status, out, err)
	}
	return string(out)
}
