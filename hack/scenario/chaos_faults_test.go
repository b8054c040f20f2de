package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// faultKind is how a kind of upset begins and ends, and how often and long it is
// drawn. Those whose longest is zero are done when they have begun.
type faultKind struct {
	weight            int // 0: of a kubelet's making, not drawn as a fault
	shortest, longest time.Duration
	ofNode            bool
	touches           func(upset) []string // what no other fault may touch meanwhile
	begin, end        func(*chaos, context.Context, upset) error
}

// faultKinds has what may go wrong. It is filled by init, since its verbs lead back
// to it.
var faultKinds map[string]faultKind

func sortedKinds() []string { return slices.Sorted(maps.Keys(faultKinds)) }

func init() {
	long, brief := 90*time.Second, 20*time.Second
	faultKinds = map[string]faultKind{
		"node-away": {weight: 4, shortest: time.Second, longest: long, ofNode: true, touches: of("node"), begin: (*chaos).nodeLeaves, end: (*chaos).nodeReturns},
		"cut-off":   {weight: 2, shortest: time.Second, longest: long, ofNode: true, touches: of("address"), begin: (*chaos).cutOff, end: (*chaos).reconnect},

		"swapped":    {weight: 2, ofNode: true, touches: of("address"), begin: (*chaos).swapAddresses},
		"renumbered": {weight: 2, ofNode: true, touches: of("address"), begin: (*chaos).renumber},

		"agent-killed":  {weight: 3, shortest: 100 * time.Millisecond, longest: brief, ofNode: true, touches: of("agent"), begin: (*chaos).killAgent, end: (*chaos).startAgent},
		"agent-stopped": {weight: 2, shortest: 100 * time.Millisecond, longest: brief, ofNode: true, touches: of("agent"), begin: (*chaos).stopAgent, end: (*chaos).startAgent},
		"agent-frozen":  {weight: 2, shortest: time.Second, longest: brief, ofNode: true, touches: of("agent"), begin: (*chaos).freezeAgent, end: (*chaos).thawAgent},

		"controller-killed": {weight: 2, shortest: time.Second, longest: brief, touches: these("controller"), begin: (*chaos).killController, end: (*chaos).startController},
		"server-killed":     {weight: 1, shortest: time.Second, longest: brief, touches: these("server"), begin: (*chaos).killServer, end: (*chaos).startServer},
		"server-frozen":     {weight: 1, shortest: time.Second, longest: brief, touches: these("server"), begin: (*chaos).freezeServer, end: (*chaos).thawServer},

		"blocks-deleted":     {weight: 2, ofNode: true, touches: these("ipam"), begin: deleteIPAM("ipamblocks", "affinity")},
		"affinities-deleted": {weight: 2, ofNode: true, touches: these("ipam"), begin: deleteIPAM("blockaffinities", "node")},
		"handles-deleted":    {weight: 1, touches: these("ipam"), begin: deleteIPAM("ipamhandles", "")},

		"objects-away": {weight: 1, shortest: time.Second, longest: brief, touches: these("server", "product"), begin: (*chaos).objectsLeave, end: (*chaos).objectsReturn},
		"kinds-away":   {weight: 1, shortest: time.Second, longest: brief, touches: these("server", "product", "controller", "ipam"), begin: (*chaos).kindsLeave, end: (*chaos).kindsReturn},

		"pod":      {touches: of("pod"), begin: (*chaos).startPod, end: (*chaos).endPod},
		"pod-ends": {touches: of("pod"), begin: (*chaos).endPod},
	}
}

// of touches one kind of thing of the nodes, or the pod, that the fault names.
func of(thing string) func(upset) []string {
	return func(f upset) []string {
		if f.kind == "swapped" {
			return []string{thing + " " + f.on, thing + " " + f.with}
		}
		return []string{thing + " " + f.on}
	}
}

func these(things ...string) func(upset) []string { return func(upset) []string { return things } }

func (c *chaos) nodeLeaves(ctx context.Context, f upset) error {
	return c.tellNode(ctx, f.on, func(n *chaosNode) { n.away = true })
}

func (c *chaos) nodeReturns(ctx context.Context, f upset) error {
	return c.tellNode(ctx, f.on, func(n *chaosNode) { n.away = false })
}

// tellNode changes what a kubelet knows of its node, and has the API server know
// it, too: whole, so that it does not matter what went before.
func (c *chaos) tellNode(ctx context.Context, name string, change func(*chaosNode)) error {
	n := c.nodes[name]
	n.Lock()
	defer n.Unlock()
	change(n)
	nodes := c.api.CoreV1().Nodes()
	return c.persist(ctx, func() error {
		if n.away {
			return ignore(apierrors.IsNotFound, nodes.Delete(ctx, name, metav1.DeleteOptions{}))
		}
		object := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: n.labels}, Spec: corev1.NodeSpec{Taints: n.taints}}
		if _, err := nodes.Create(ctx, object, metav1.CreateOptions{}); ignore(apierrors.IsAlreadyExists, err) != nil {
			return err
		}
		status := fmt.Sprintf(`{"status":{"addresses":[{"type":"InternalIP","address":%q}],"conditions":[{"type":"Ready","status":"True","reason":"Chaos"}]}}`, n.address)
		_, err := nodes.Patch(ctx, name, types.StrategicMergePatchType, []byte(status), metav1.PatchOptions{}, "status")
		return err
	})
}

func ignore(kind func(error) bool, err error) error {
	if kind(err) {
		return nil
	}
	return err
}

// cutOff has a node not reach the API server, and nobody else not.
func (c *chaos) cutOff(ctx context.Context, f upset) error {
	_, err := c.Machine(f.on).Exec(ctx, "ip", "route", "add", "blackhole", c.Topology().ControlPlane.Address.V4.String())
	return err
}

func (c *chaos) reconnect(ctx context.Context, f upset) error {
	_, err := c.Machine(f.on).Exec(ctx, "ip", "route", "del", "blackhole", c.Topology().ControlPlane.Address.V4.String())
	return err
}

// swapAddresses gives two nodes of a rack each other's.
func (c *chaos) swapAddresses(ctx context.Context, f upset) error {
	mine, theirs := c.addressOf(f.on), c.addressOf(f.with)
	for _, node := range []string{f.on, f.with} {
		if err := c.setAddress(ctx, node, mine, theirs); err != nil {
			return err
		}
		mine, theirs = theirs, mine
	}
	for _, to := range []struct {
		node    string
		address netip.Addr
	}{{f.on, theirs}, {f.with, mine}} {
		if err := c.tellNode(ctx, to.node, func(n *chaosNode) { n.address = to.address }); err != nil {
			return err
		}
	}
	return nil
}

// renumber gives a node another address of its rack.
func (c *chaos) renumber(ctx context.Context, f upset) error {
	bytes := c.addressOf(f.on).As4()
	if _, err := fmt.Sscan(f.with, &bytes[3]); err != nil {
		return err
	}
	fresh := netip.AddrFrom4(bytes)
	if err := c.setAddress(ctx, f.on, c.addressOf(f.on), fresh); err != nil {
		return err
	}
	return c.tellNode(ctx, f.on, func(n *chaosNode) { n.address = fresh })
}

// setAddress changes it on the wire alone.
func (c *chaos) setAddress(ctx context.Context, node string, from, to netip.Addr) error {
	n, _ := c.Topology().Node(node)
	script := fmt.Sprintf("ip addr del %s/24 dev eth0 && ip addr add %s/24 dev eth0 && ip route replace default via %s", from, to, c.rackGateway(n.Rack))
	_, err := c.Machine(node).Exec(ctx, "sh", "-c", script)
	return err
}

func (c *chaos) addressOf(node string) netip.Addr {
	n := c.nodes[node]
	n.Lock()
	defer n.Unlock()
	return n.address
}

func (c *chaos) killAgent(_ context.Context, f upset) error { return c.KillAgent(f.on) }
func (c *chaos) stopAgent(_ context.Context, f upset) error {
	return c.endProgram(agentProgram, f.on, syscall.SIGTERM)
}
func (c *chaos) startAgent(_ context.Context, f upset) error { return c.StartAgent(f.on) }

func (c *chaos) freezeAgent(ctx context.Context, f upset) error {
	return c.signalAll(ctx, f.on, "STOP", agentProgram)
}

func (c *chaos) thawAgent(ctx context.Context, f upset) error {
	return c.signalAll(ctx, f.on, "CONT", agentProgram)
}

// signalAll signals the programs of a name on a machine, which has process ids of
// its own.
func (c *chaos) signalAll(ctx context.Context, machine, signal, program string) error {
	_, err := c.Machine(machine).Exec(ctx, "pkill", "-"+signal, "-x", program)
	return err
}

func (c *chaos) killController(context.Context, upset) error {
	return c.endProgram(controllerProgram, c.allNodes()[0], os.Kill)
}

func (c *chaos) startController(context.Context, upset) error {
	return c.startProgram(controllerProgram, c.allNodes()[0], "POD_NAME=chaos")
}

// killServer is a power cut of the control plane: API server, etcd and all.
func (c *chaos) killServer(ctx context.Context, _ upset) error {
	return c.ControlPlane().PowerOff(ctx)
}

func (c *chaos) startServer(ctx context.Context, _ upset) error {
	return c.ControlPlane().PowerOn(ctx)
}

// freezeServer leaves connections open that nobody answers.
func (c *chaos) freezeServer(ctx context.Context, _ upset) error {
	return c.signalAll(ctx, c.Topology().ControlPlane.Name, "STOP", "kubelab")
}

func (c *chaos) thawServer(ctx context.Context, _ upset) error {
	return c.signalAll(ctx, c.Topology().ControlPlane.Name, "CONT", "kubelab")
}

const productAPI = "/apis/projectcalico.org/v3/"

// deleteIPAM deletes the objects of a kind, or those of a node that a field of
// their spec names.
func deleteIPAM(resource, field string) func(*chaos, context.Context, upset) error {
	return func(c *chaos, ctx context.Context, f upset) error {
		client := c.api.CoreV1().RESTClient()
		return c.persist(ctx, func() error {
			raw, err := client.Get().AbsPath(productAPI + resource).DoRaw(ctx)
			if err != nil {
				return err
			}
			var list struct {
				Items []struct {
					Metadata struct{ Name string }
					Spec     map[string]any
				}
			}
			if err := json.Unmarshal(raw, &list); err != nil {
				return err
			}
			for _, item := range list.Items {
				if field != "" && strings.TrimPrefix(fmt.Sprint(item.Spec[field]), "host:") != f.on {
					continue
				}
				err := client.Delete().AbsPath(productAPI + resource + "/" + item.Metadata.Name).Do(ctx).Error()
				if ignore(apierrors.IsNotFound, err) != nil {
					return err
				}
			}
			return nil
		})
	}
}

// objectsLeave deletes what people wrote but the pools, which their finalizer
// keeps, and all of IPAM.
func (c *chaos) objectsLeave(ctx context.Context, _ upset) error {
	return c.persist(ctx, func() error {
		for _, resource := range []string{"bgppeers", "bgpconfigurations", "clusterinformations", "kubecontrollersconfigurations", "ipamblocks", "blockaffinities", "ipamhandles"} {
			if err := c.api.CoreV1().RESTClient().Delete().AbsPath(productAPI + resource).Do(ctx).Error(); err != nil {
				return err
			}
		}
		return nil
	})
}

// eagerController has it free what leaked soon.
const eagerController = `apiVersion: projectcalico.org/v3
kind: KubeControllersConfiguration
metadata: {name: default}
spec: {controllers: {node: {leakGracePeriod: 10s}}}
`

func (c *chaos) objectsReturn(ctx context.Context, _ upset) error {
	return c.persist(ctx, func() error {
		_, err := c.Kubectl(ctx, lightObjects+"---\n"+eagerController+"---\n"+c.routerPeers(), "apply", "--request-timeout=20s", "-f", "-")
		return err
	})
}

// kindsLeave deletes the kinds, and with them every object.
func (c *chaos) kindsLeave(ctx context.Context, _ upset) error {
	return c.persist(ctx, func() error {
		_, err := c.Kubectl(ctx, "", "delete", "--ignore-not-found", "--timeout=60s", "-k", filepath.Join(c.Source, "manifests/crds"))
		return err
	})
}

func (c *chaos) kindsReturn(ctx context.Context, f upset) error {
	return c.persist(ctx, func() error {
		if _, err := c.Kubectl(ctx, "", "apply", "-k", filepath.Join(c.Source, "manifests/crds")); err != nil {
			return err
		}
		if _, err := c.Kubectl(ctx, "", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"); err != nil {
			return err
		}
		return c.objectsReturn(ctx, f)
	})
}
