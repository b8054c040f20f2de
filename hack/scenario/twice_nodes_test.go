package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// nodesMadeAgain: two Nodes are deleted and made again, one after 1, 8 and 30 s, the
// other after 90, their agents and pods alive: new pods there and elsewhere get
// addresses that nobody has, and the old ones are reached as before.
func (c *twice) nodesMadeAgain(t *testing.T, ctx context.Context) {
	c.underPing(t, ctx, func() {
		var group errgroup.Group
		for node, pauses := range map[string][]time.Duration{"a2": {time.Second, 8 * time.Second, 30 * time.Second}, "b1": {90 * time.Second}} {
			group.Go(func() error {
				for _, pause := range pauses {
					if err := c.makeNodeAgain(ctx, node, pause); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		c.addPods(t, ctx, "after-nodes", 12)
		c.stored(t, ctx)
	}, spared...)
	if _, err := c.AwaitFullTables(ctx, time.Minute); err != nil {
		t.Fatal(err)
	}
	c.reached(t, ctx, "first-1", "first-2") // on a2 and b1
}

// reached waits until pods answer one on a1.
func (c *twice) reached(t *testing.T, ctx context.Context, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := c.eventually(ctx, 30*time.Second, func() error {
			out, err := c.Pod("a1", "default", "first-0").Exec(ctx, "ping", "-c", "1", "-W", "2", c.pods[name].ip.String())
			if err != nil {
				return fmt.Errorf("%s on %s is not reached: %w: %s", name, c.pods[name].node, err, out)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}

// makeNodeAgain deletes a Node and registers it as its kubelet would.
func (c *twice) makeNodeAgain(ctx context.Context, name string, pause time.Duration) error {
	saved, err := c.saveNode(ctx, name)
	if err != nil {
		return err
	}
	if _, err := c.Kubectl(ctx, "", "delete", "node", name); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pause):
	}
	return c.register(ctx, saved)
}

// savedNode is a Node as its kubelet registers it.
type savedNode struct{ name, object, status string }

func (c *twice) saveNode(ctx context.Context, name string) (savedNode, error) {
	out, err := c.Kubectl(ctx, "", "get", "node", name, "-o", "json")
	if err != nil {
		return savedNode{}, err
	}
	var n struct {
		APIVersion string         `json:"apiVersion"`
		Kind       string         `json:"kind"`
		Metadata   map[string]any `json:"metadata"`
		Spec       map[string]any `json:"spec"`
		Status     map[string]any `json:"status,omitempty"`
	}
	if err := json.Unmarshal(out, &n); err != nil {
		return savedNode{}, err
	}
	status, err := json.Marshal(map[string]any{"status": map[string]any{"addresses": n.Status["addresses"], "conditions": n.Status["conditions"]}})
	if err != nil {
		return savedNode{}, err
	}
	n.Metadata = map[string]any{"name": name, "labels": n.Metadata["labels"]} // no annotation: kubelets have none of ours
	n.Status = nil
	object, err := json.Marshal(n)
	return savedNode{name, string(object), string(status)}, err
}

func (c *twice) register(ctx context.Context, n savedNode) error {
	if _, err := c.Kubectl(ctx, n.object, "create", "-f", "-"); err != nil {
		return err
	}
	_, err := c.Kubectl(ctx, "", "patch", "node", n.name, "--subresource=status", "--type=merge", "-p", n.status)
	return err
}

// smallPool has as many blocks as there are nodes.
const smallPool = `apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: small}
spec: {cidr: 10.245.0.0/28, blockSize: 30, natOutgoing: true, assignmentMode: Manual}
`

// smallPodObject is a pod with an address of the small pool.
func smallPodObject(node, name string) string {
	return strings.Replace(lightPodObject(node, name), "namespace: default}",
		`namespace: default, annotations: {cni.projectcalico.org/ipv4pools: '["small"]'}}`, 1)
}

// nodeCutOff: a Node and its Pods are deleted while the node does not reach the API
// server, and its pods live. IPAM frees their addresses after a while; when the node
// is back they are its pods' again, and nobody else has got one.
func (c *twice) nodeCutOff(t *testing.T, ctx context.Context) {
	const node = "b1"
	c.kubectl(t, ctx, smallPool, "apply", "-f", "-")
	c.addPodsOn(t, ctx, "small", 4, c.allNodes(), smallPodObject)
	server := netip.PrefixFrom(c.Topology().ControlPlane.Address.V4, 32).String()
	saved, err := c.saveNode(ctx, node)
	if err != nil {
		t.Fatal(err)
	}
	c.underPing(t, ctx, func() {
		c.run(t, ctx, node, "ip", "route", "add", "blackhole", server)
		c.kubectl(t, ctx, "", "delete", "node", node)
		c.kubectl(t, ctx, "", "delete", "pods", "--field-selector=spec.nodeName="+node, "--force", "--grace-period=0")
		if err := c.eventually(ctx, 3*time.Minute, func() error {
			owners, err := c.storedPods(ctx)
			if err == nil && owners[c.pods["small-2"].ip] != "" {
				return fmt.Errorf("IPAM still has %s of a deleted pod", c.pods["small-2"].ip)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		c.addPodsOn(t, ctx, "small-more", 9, []string{"a1", "a2", "b2"}, smallPodObject) // all that the blocks of the three have left
		c.run(t, ctx, node, "ip", "route", "del", "blackhole", server)
		if err := c.register(ctx, saved); err != nil {
			t.Fatal(err)
		}
		var objects []string
		for name, p := range c.pods {
			if p.node == node {
				objects = append(objects, lightPodObject(node, name))
			}
		}
		c.kubectl(t, ctx, strings.Join(objects, "---\n"), "apply", "-f", "-")
		c.stored(t, ctx)
		c.reached(t, ctx, "first-2", "small-2")
	}, spared...)
}

// addressesSwapped: two nodes of a rack get each other's address, and the pods of
// the other rack do not notice. All pods are reached again, each where it is.
func (c *twice) addressesSwapped(t *testing.T, ctx context.Context) {
	rack, address := c.Topology().Racks[0], map[string]netip.Addr{}
	for _, n := range c.Topology().Nodes {
		address[n.Name] = n.Address.V4
	}
	c.underPing(t, ctx, func() {
		for node, other := range map[string]string{"a1": "a2", "a2": "a1"} {
			c.run(t, ctx, node, "ip", "addr", "del", fmt.Sprint(address[node], "/", rack.Subnet.V4.Bits()), "dev", "eth0")
			c.run(t, ctx, node, "ip", "addr", "add", fmt.Sprint(address[other], "/", rack.Subnet.V4.Bits()), "dev", "eth0")
			c.run(t, ctx, node, "ip", "route", "replace", "default", "via", rack.Gateway.V4.String())
			c.kubectl(t, ctx, "", "patch", "node", node, "--subresource=status", "--type=strategic", "-p",
				fmt.Sprintf(`{"status":{"addresses":[{"type":"InternalIP","address":%q}]}}`, address[other]))
		}
		c.reached(t, ctx, "first-1", "first-2", "first-3", "first-5")
		c.addPods(t, ctx, "after-swap", 8)
		c.stored(t, ctx)
	}, flow{"first-2", "first-3"}, flow{"first-3", "first-6"})
}

// run runs a command on a node, which has to succeed.
func (c *twice) run(t *testing.T, ctx context.Context, node string, argv ...string) {
	t.Helper()
	if out, err := c.Machine(node).Exec(ctx, argv...); err != nil {
		t.Fatalf("%s: %s: %v: %s", node, strings.Join(argv, " "), err, out)
	}
}
