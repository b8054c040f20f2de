//go:build soak

package scenario

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// atOnce is how many plugins run at once on the four nodes together.
const atOnce = 16

// TestSoakLight does what TestSoakScale does without containers: it fills four
// nodes with 50 pods each and empties them again, by libcni with the real plugin
// and pods that the API server knows, each time in a new network namespace, and
// compares what is left with what was there before.
func TestSoakLight(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Hour)
	defer cancel()
	c := lightCluster(t, ctx, "cnilight", "../lab/topologies/two-routers.yaml")
	for _, node := range c.allNodes() {
		if _, err := c.Machine(node).Exec(ctx, "cp", "/usr/lib/cni/ptp", "/usr/lib/cni/host-local", "/opt/cni/bin/"); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.StartAgents(); err != nil {
		t.Fatal(err)
	}
	r := &redundant{LightCluster: c}
	r.await(t, ctx, "agents", func() error { return r.ready(ctx) })
	objects := make([]string, 0, soakPods)
	for i := range soakPods {
		objects = append(objects, lightPodObject(c.soakPod(i)))
	}
	if _, err := c.Kubectl(ctx, strings.Join(objects, "---\n"), "create", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	// One round that does not count: first blocks.
	c.plugAll(t, ctx)
	c.unplugAll(t, ctx)
	before := c.awaitLeftovers(t, ctx, nil)
	took := map[string][]time.Duration{}
	round := func(name, plugin string) {
		up, down := c.plugAll(t, ctx), c.unplugAll(t, ctx)
		took[plugin] = append(took[plugin], up)
		c.awaitLeftovers(t, ctx, before)
		t.Logf("%s, %s: %d pods plugged after %.1f s, gone after %.1f s, nothing left", name, plugin, soakPods, up.Seconds(), down.Seconds())
	}
	for i := range *rounds {
		name := fmt.Sprintf("round %d", i+1)
		round(name, "muslin")
		if (i+1)%*ptpEvery == 0 {
			c.usePlugin(t, ctx, "ptp")
			round(name, "ptp")
			c.usePlugin(t, ctx, "muslin")
		}
	}
	for plugin, times := range took {
		slices.Sort(times)
		t.Logf("%s: %d pods plugged, median of %d rounds %.1f s", plugin, soakPods, len(times), times[len(times)/2].Seconds())
	}
}

// soakPod is the node and the name of a pod.
func (c *LightCluster) soakPod(i int) (node, name string) {
	nodes := c.allNodes()
	return nodes[i%len(nodes)], fmt.Sprintf("soak-%d", i)
}

// plugAll returns how long it took until all pods were plugged.
func (c *LightCluster) plugAll(t *testing.T, ctx context.Context) time.Duration {
	t.Helper()
	began := time.Now()
	c.few(t, func(i int) error {
		node, name := c.soakPod(i)
		_, err := c.Pod(node, "default", name).Add(ctx)
		return err
	})
	return time.Since(began)
}

// unplugAll takes them down.
func (c *LightCluster) unplugAll(t *testing.T, ctx context.Context) time.Duration {
	t.Helper()
	began := time.Now()
	c.few(t, func(i int) error {
		node, name := c.soakPod(i)
		return c.Pod(node, "default", name).Delete(ctx)
	})
	return time.Since(began)
}

// few does something for each pod, a few at once.
func (c *LightCluster) few(t *testing.T, do func(i int) error) {
	t.Helper()
	err := c.eachAtOnce(atOnce, func(worker int) error {
		for i := worker; i < soakPods; i += atOnce {
			if err := do(i); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
