package scenario

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muslin-net/muslin/hack/lab/kubelab"
)

// twice is what TestNeverTwice tells in chapters: the pods that run, whatever
// the API server thinks of them.
type twice struct {
	*LightCluster
	mu   sync.Mutex
	pods map[string]runningPod // by name
}

type runningPod struct {
	node string
	ip   netip.Addr
}

// TestNeverTwice: Muslin's objects are taken away and put back, Nodes are deleted
// and made again, cut off, given each other's addresses, etcd is restored to a
// backup, all under running pods; no address is given to two of them, and they lose
// no packet. Four agents.
func TestNeverTwice(t *testing.T) {
	t.Parallel() // mostly waits; beside other labs
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	c := &twice{LightCluster: lightCluster(t, ctx, "twice", "testdata/four-light.yaml"), pods: map[string]runningPod{}}
	if err := c.StartAgents(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AwaitFullTables(ctx, 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	c.startController(t, "a1")
	c.addPods(t, ctx, "first", 40)
	tellChapters(t, ctx, []chapter{
		{"nodes made again", c.nodesMadeAgain}, {"node cut off", c.nodeCutOff}, {"addresses swapped", c.addressesSwapped},
		{"etcd restored", c.etcdRestored}, {"etcd restored, bumped", c.etcdBumped}, {"installed again", c.installedAgain},
	})
}

// addPods makes pods in turn on every node, plugs them, and reports their
// addresses as kubelets would.
func (c *twice) addPods(t *testing.T, ctx context.Context, prefix string, count int) {
	t.Helper()
	c.addPodsOn(t, ctx, prefix, count, c.allNodes(), lightPodObject)
}

// addPodsOn makes them on some nodes, from objects of a certain kind.
func (c *twice) addPodsOn(t *testing.T, ctx context.Context, prefix string, count int, nodes []string, object func(node, name string) string) {
	t.Helper()
	var objects []string
	for i := range count {
		objects = append(objects, object(nodes[i%len(nodes)], fmt.Sprintf("%s-%d", prefix, i)))
	}
	if err := c.eventually(ctx, time.Minute, func() error {
		_, err := c.Kubectl(ctx, strings.Join(objects, "---\n"), "apply", "-f", "-")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var group errgroup.Group
	group.SetLimit(8)
	for i := range count {
		node, name := nodes[i%len(nodes)], fmt.Sprintf("%s-%d", prefix, i)
		group.Go(func() error {
			return c.eventually(ctx, time.Minute, func() error {
				ip, err := c.Pod(node, "default", name).Add(ctx)
				if err != nil {
					return err
				}
				c.mu.Lock()
				defer c.mu.Unlock()
				c.pods[name] = runningPod{node, ip}
				return nil
			})
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	c.reportAddresses(t, ctx, prefix)
	c.noneTwice(t)
}

// reportAddresses writes the status of the pods whose name begins so.
func (c *twice) reportAddresses(t *testing.T, ctx context.Context, prefix string) {
	t.Helper()
	var status []string
	for name, p := range c.pods {
		if strings.HasPrefix(name, prefix+"-") {
			status = append(status, fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: %s, namespace: default}, `+
				`status: {phase: Running, podIP: %s, podIPs: [{ip: %s}]}}`, name, p.ip, p.ip))
		}
	}
	c.kubectl(t, ctx, strings.Join(status, "\n---\n"), "apply", "--server-side", "--force-conflicts", "--subresource=status", "-f", "-")
}

// noneTwice: no two running pods have one address.
func (c *twice) noneTwice(t *testing.T) {
	t.Helper()
	owner := map[netip.Addr]string{}
	for name, p := range c.pods {
		if other, taken := owner[p.ip]; taken {
			t.Errorf("%s is the address of %s on %s and of %s on %s", p.ip, other, c.pods[other].node, name, p.node)
		}
		owner[p.ip] = name
	}
}

// stored waits until IPAM has every running pod's address, for that pod.
func (c *twice) stored(t *testing.T, ctx context.Context) {
	t.Helper()
	if err := c.eventually(ctx, 90*time.Second, func() error {
		names, err := c.storedPods(ctx)
		if err != nil {
			return err
		}
		for name, p := range c.pods {
			if names[p.ip] != name {
				return fmt.Errorf("%s of %s on %s is %q's in IPAM", p.ip, name, p.node, names[p.ip])
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// flow is pings from one pod to another.
type flow struct{ from, to string }

// spared are flows between pods of nodes that nobody takes away (a1 and b2), across
// racks and on one node.
var spared = []flow{{"first-0", "first-3"}, {"first-7", "first-4"}, {"first-0", "first-4"}}

// underPing pings while do runs, and nothing may be lost.
func (c *twice) underPing(t *testing.T, ctx context.Context, do func(), flows ...flow) {
	t.Helper()
	stops := map[flow]func() pingResult{}
	for _, f := range flows {
		stops[f] = c.pingBetween(t, ctx, f.from, f.to)
	}
	do()
	for f, stop := range stops {
		r := stop()
		t.Logf("%s to %s: %d sent, %d lost, longest %.1f ms", f.from, f.to, r.Sent, r.Lost, r.MaxMs)
		if r.Lost != 0 || r.Failed != 0 || r.Sent == 0 {
			t.Errorf("%s on %s to %s on %s: %+v, want none lost", f.from, c.pods[f.from].node, f.to, c.pods[f.to].node, r)
		}
	}
}

// etcdRestored: the control plane goes back to a backup that is 200 pods older,
// while those pods run on. Its revisions are those of the backup, which clients have
// seen for other data.
func (c *twice) etcdRestored(t *testing.T, ctx context.Context) {
	c.restoreEtcd(t, ctx, "etcd", 200, func(backup, data string) error { return os.CopyFS(data, os.DirFS(backup)) })
}

// etcdBumped: it goes back as etcdutl restores a backup with --bump-revision and
// --mark-compacted: the data are old and their revisions are new.
func (c *twice) etcdBumped(t *testing.T, ctx context.Context) {
	c.restoreEtcd(t, ctx, "bump", 40, func(backup, data string) error { return kubelab.RestoreEtcd(ctx, c.Source, backup, data) })
}

// restoreEtcd makes a backup, then pods, and then puts the backup back, as restore
// makes of it what etcd starts with.
func (c *twice) restoreEtcd(t *testing.T, ctx context.Context, prefix string, pods int, restore func(backup, data string) error) {
	machine := c.Topology().ControlPlane.Name
	data := filepath.Join(c.Dir(), "machines", machine, "etcd")
	if _, err := os.Stat(data); err != nil {
		t.Fatal(err)
	}
	backup := filepath.Join(t.TempDir(), "etcd")
	restart := func(offline func() error) {
		t.Helper()
		if err := c.Machine(machine).PowerOff(ctx); err != nil {
			t.Fatal(err)
		}
		if err := offline(); err != nil {
			t.Fatal(err)
		}
		if err := c.Machine(machine).PowerOn(ctx); err != nil {
			t.Fatal(err)
		}
	}
	restart(func() error { return os.CopyFS(backup, os.DirFS(data)) })
	c.underPing(t, ctx, func() {
		c.addPods(t, ctx, prefix+"-forgotten", pods)
		restart(func() error {
			if err := os.RemoveAll(filepath.Join(data, "member")); err != nil {
				return err
			}
			return restore(backup, data)
		})
		c.addPods(t, ctx, prefix+"-after", pods/5)
		c.stored(t, ctx)
	}, spared...)
}

// installedAgain: agents and controller end, every object of Muslin's is taken
// away with its kind and put back, agents start, and as many pods as run come.
func (c *twice) installedAgain(t *testing.T, ctx context.Context) {
	crds := filepath.Join(c.Source, "manifests/crds")
	c.underPing(t, ctx, func() {
		for _, n := range c.allNodes() {
			if err := c.KillAgent(n); err != nil {
				t.Fatal(err)
			}
		}
		c.kubectl(t, ctx, "", "delete", "-k", crds, "--wait=true")
		c.kubectl(t, ctx, "", "apply", "-k", crds)
		c.kubectl(t, ctx, "", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
		c.kubectl(t, ctx, lightObjects+"---\n"+smallPool+"---\n"+c.routerPeers(), "apply", "-f", "-")
		if err := c.StartAgents(); err != nil {
			t.Fatal(err)
		}
		c.addPods(t, ctx, "after-install", 40)
		c.stored(t, ctx)
	}, spared...)
}

// pingBetween pings one pod from another at 100 packets a second, until the
// returned function is called.
func (c *twice) pingBetween(t *testing.T, ctx context.Context, from, to string) func() pingResult {
	t.Helper()
	return c.pingFrom(t, ctx, c.pods[from].node, "default-"+from, c.pods[to].ip.String())
}
