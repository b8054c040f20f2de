package app_test

import (
	"fmt"
	"strings"
	"testing"
)

const withoutBGP = `apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.77.0.0/16, natOutgoing: true, vxlanMode: Always}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods6}
spec: {cidr: "fd77::/64", vxlanMode: Always}
---
apiVersion: projectcalico.org/v3
kind: ClusterInformation
metadata: {name: default}
spec: {datastoreReady: true}
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {nodeToNodeMeshEnabled: false}
`

// TestClusterRoutesWithoutBGP is a cluster of three nodes, two on a link and one
// behind a router, whose agents speak BGP with nobody: what flannel does with its
// VXLAN and host-gw backends.
func TestClusterRoutesWithoutBGP(t *testing.T) {
	t.Parallel()
	f := newFabric(t, withoutBGP)
	f.onlyVXLAN()
	a, b := f.join("a", 1, 1), f.join("b", 1, 2)
	steady := a.ping(b)

	// A node that joins is reached, and reaches the others.
	c := f.join("c", 2, 3)
	across := c.ping(a)
	f.await("all routes go over the tunnel", func() string { return each("vxlan.calico", a, b, c) })

	// An agent that crashes and starts again touches no route.
	was := a.routes()
	a.kill()
	a.startAgent()
	if now := a.routes(); now != was {
		t.Errorf("the restart changed\n%s\nto\n%s", was, now)
	}
	lostNothing(t, steady, across)
	if shut := f.exec("nft", "list", "table", "inet", "shut"); !strings.Contains(shut, "dport 179 counter packets 0") {
		t.Errorf("somebody tries to speak BGP with nobody: %s", shut)
	}
	f.open()
	t.Run("pool", func(t *testing.T) { poolChanges(t, f, a, b, c) })
	t.Run("bgp", func(t *testing.T) { bgpComesAndGoes(t, f, a, b, c) })
	t.Run("leave", func(t *testing.T) { nodeLeaves(t, f, a, b, c) })
}

// each says which node has a route to the pods of another that does not have what.
func each(what string, nodes ...*member) (wrong string) {
	for _, m := range nodes {
		routes := strings.Split(m.routes(), "\n")
		if len(routes) != len(nodes)-1 {
			wrong += fmt.Sprintf("%s: %d routes: %q; ", m.name, len(routes), routes)
		}
		for _, r := range routes {
			if !strings.Contains(r, what) {
				wrong += m.name + ": " + r + "; "
			}
		}
	}
	return wrong
}

func (f *fabric) setPool(vxlan string) {
	f.t.Helper()
	f.server.MustKubectl(f.t, "", "patch", "ippool", "pods", "pods6", "--type=merge", "-p", `{"spec":{"vxlanMode":"`+vxlan+`"}}`)
}

// poolChanges takes the tunnel from where it is not needed, and gives it back.
func poolChanges(t *testing.T, f *fabric, a, b, c *member) {
	near, far := a.ping(b), a.ping(c)
	f.setPool("CrossSubnet")
	f.await("a node on the link is reached straight", func() string {
		if got := a.routes(); !strings.Contains(got, "via 10.1.0.2 dev eth0") || strings.Count(got, "vxlan.calico") != 1 {
			return got
		}
		return each("vxlan.calico", c, c, c)
	})
	lostNothing(t, near, far)

	// No tunnel at all: a node on the link is still reached, and the one that is
	// not is told of.
	near = a.ping(b)
	f.setPool("Never")
	f.await("the node behind the router has no route", func() string {
		if got := a.routes(); !strings.HasSuffix(got, "via 10.1.0.2 dev eth0") || strings.Contains(got, "\n") {
			return got
		}
		status, err := a.get("/status")
		if err != nil || !strings.Contains(status, "node c, and there may be more, is on no link of this one") {
			return fmt.Sprint(status, err)
		}
		return ""
	})
	f.setPool("Always")
	f.await("all routes go over the tunnel", func() string { return each("vxlan.calico", a, b, c) })
	lostNothing(t, near)
}

// bgpComesAndGoes turns the mesh on and off again, with IPAM filling in meanwhile.
func bgpComesAndGoes(t *testing.T, f *fabric, a, b, c *member) {
	set := func(kind, spec string) {
		f.server.MustKubectl(t, "", "patch", kind, "default", "--type=merge", "-p", `{"spec":`+spec+`}`)
	}
	origins := func(want string) {
		t.Helper()
		f.await("routes are "+want, func() string {
			for _, m := range []*member{a, b, c} {
				view, err := m.get("/show")
				if err != nil {
					return err.Error()
				}
				byIPAM := !strings.Contains(view, `"ByIPAM":null`)
				if byIPAM != (want == "from IPAM") {
					return m.name + " has others"
				}
			}
			return each("vxlan.calico", a, b, c)
		})
	}
	f.server.MustKubectl(t, "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\nspec: {programClusterRoutes: Enabled}\n", "apply", "-f", "-")
	near, far := a.ping(b), c.ping(a)
	set("bgpconfiguration", `{"nodeToNodeMeshEnabled":true}`)
	origins("learned") // BGP's come first
	set("felixconfiguration", `{"programClusterRoutes":null}`)
	origins("learned")
	set("felixconfiguration", `{"programClusterRoutes":"Enabled"}`)
	for _, m := range []*member{a, b, c} {
		f.await(m.name+" knows the blocks of all nodes", func() string {
			view, err := m.get("/show")
			if err == nil && strings.Contains(view, `"Others":0`) {
				return "it does not"
			}
			if err != nil {
				return err.Error()
			}
			return ""
		})
	}
	set("bgpconfiguration", `{"nodeToNodeMeshEnabled":false}`)
	origins("from IPAM")
	set("felixconfiguration", `{"programClusterRoutes":null}`)
	origins("from IPAM") // there is nobody to speak with
	lostNothing(t, near, far)
}

// nodeLeaves has a node go that has pods yet: the others let go of its block.
func nodeLeaves(t *testing.T, f *fabric, a, b, c *member) {
	near := a.ping(b)
	c.kill()
	f.server.MustKubectl(t, "", "delete", "node", "c")
	f.await("the routes of a node that is gone go", func() string { return each("vxlan.calico", a, b) })
	lostNothing(t, near)
}
