package app_test

import (
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const dualStackMesh = `apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.77.0.0/16, natOutgoing: true}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods6}
spec: {cidr: "fd77::/64"}
---
apiVersion: projectcalico.org/v3
kind: ClusterInformation
metadata: {name: default}
spec: {datastoreReady: true}
`

// TestRollout: agents of a mesh that restart one after the other, each as soon as the one
// before is ready, and then two at once of which one is slow, delete no route and lose no
// packet. While an agent waits for a peer's table, the kernel alone has its routes.
func TestRollout(t *testing.T) {
	t.Parallel()
	f := newFabric(t, dualStackMesh)
	nodes := []*member{f.join("a", 1, 1), f.join("b", 1, 2), f.join("c", 1, 3)}
	a, b, c := nodes[0], nodes[1], nodes[2]
	streams := [][]*stream{a.ping(b), b.ping(c), c.ping(a)}
	var kernels []*kernelLog
	for _, m := range nodes {
		kernels = append(kernels, m.watchRoutes())
	}
	t.Run("one after the other", func(t *testing.T) {
		for _, m := range nodes {
			m.kill()
			m.startAgent()
		}
	})
	t.Run("two at once", func(t *testing.T) {
		a.kill()
		b.kill()
		b.startAgent()
		time.Sleep(3 * time.Second) // more than b waits, to be ready, for a peer that may never come
		a.startAgent()
	})
	for _, k := range kernels {
		if gone := k.deleted(); len(gone) > 0 {
			t.Errorf("%s deleted routes:\n%s", k.node, strings.Join(gone, "\n"))
		}
	}
	lostNothing(t, streams...)
}

const reflected = dualStackMesh + `---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {nodeToNodeMeshEnabled: false}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: reflectors}
spec: {nodeSelector: all(), peerSelector: has(reflector)}
`

// TestRolloutOfReflectors: both route reflectors of a cluster restart at the same time,
// or one with a client, and nobody deletes a route or loses a packet. A client that
// restarts with both of its reflectors, which hold back what they know, waits for them.
// (The other clients are told then of routes without its own, for RFC 4724 has nobody
// wait for who restarts.)
func TestRolloutOfReflectors(t *testing.T) {
	t.Parallel()
	f := newFabric(t, reflected)
	var nodes []*member
	for i, name := range []string{"r1", "r2", "a", "b"} {
		m := f.join(name, 1, i+1)
		nodes = append(nodes, m)
		if m.name[0] == 'r' {
			f.server.MustKubectl(t, "", "annotate", "node", name, "projectcalico.org/RouteReflectorClusterID=224.0.0.1")
			f.server.MustKubectl(t, "", "label", "node", name, "reflector=")
		}
	}
	r1, r2, a, b := nodes[0], nodes[1], nodes[2], nodes[3]
	streams := [][]*stream{a.ping(b), b.ping(r1), r2.ping(a)}
	var kernels []*kernelLog
	for _, m := range nodes {
		f.await(m.name+" has learned of all others", func() string {
			if text := m.routes(); strings.Count(text, "\n") < len(nodes)-2 {
				return text
			}
			return ""
		})
		m.awaitReady()
		kernels = append(kernels, m.watchRoutes())
	}
	ofClient := kernels[2]
	together := func(some ...*member) {
		for _, m := range some {
			m.kill()
		}
		for _, m := range some {
			m.launchAgent()
		}
		for _, m := range nodes {
			m.awaitReady()
		}
	}
	together(r1, r2)
	together(r1, a)
	lostNothing(t, streams...)
	for _, k := range slices.Delete(kernels, 2, 3) {
		if gone := k.deleted(); len(gone) > 0 {
			t.Errorf("%s deleted routes:\n%s", k.node, strings.Join(gone, "\n"))
		}
	}
	together(r1, r2, a)
	if gone := ofClient.deleted(); len(gone) > 0 {
		t.Errorf("%s deleted routes:\n%s", ofClient.node, strings.Join(gone, "\n"))
	}
}

// kernelLog is what happens to a node's routes.
type kernelLog struct {
	node string
	cmd  *exec.Cmd
	out  witness
}

func (m *member) watchRoutes() *kernelLog {
	m.f.t.Helper()
	k := &kernelLog{node: m.name, cmd: m.exec("ip", "-o", "-ts", "monitor", "route")}
	k.cmd.Stdout = &k.out
	if err := k.cmd.Start(); err != nil {
		m.f.t.Fatal(err)
	}
	m.f.t.Cleanup(func() { _ = k.cmd.Process.Kill(); _ = k.cmd.Wait() })
	return k
}

// deleted ends the log.
func (k *kernelLog) deleted() (routes []string) {
	_ = k.cmd.Process.Signal(syscall.SIGTERM)
	_ = k.cmd.Wait()
	for _, l := range k.out.lines() {
		if strings.Contains(l, "Deleted") && strings.Contains(l, "proto 109") {
			routes = append(routes, l)
		}
	}
	return routes
}
