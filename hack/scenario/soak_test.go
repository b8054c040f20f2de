//go:build soak

package scenario

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/hack/lab"
)

var (
	rounds   = flag.Int("rounds", 20, "rounds of the long tests")
	ptpEvery = flag.Int("ptp-every", 1, "how many of Muslin's rounds have one of ptp's after them")
)

// soakPods is 50 for each of the four nodes.
const soakPods = 200

// TestSoakScale fills four nodes with 50 pods each and empties them again, by
// turns with Muslin and with Debian's ptp in the same cluster. After each of
// Muslin's rounds nothing may be left of the pods; how long they took to be
// Ready is reported for both. On two cores a round takes some six minutes,
// whatever the plugin: to have 200 pods costs the kubelets and containerd a core.
func TestSoakScale(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Hour)
	defer cancel()
	c := soakCluster(t, ctx)
	// One round that does not count: images, caches and first blocks.
	c.scaleUp(t, ctx)
	c.scaleDown(t, ctx)
	before := c.awaitLeftovers(t, ctx, nil)
	took := map[string][]time.Duration{}
	for round := range *rounds {
		plugins := []string{"muslin"}
		if (round+1)%*ptpEvery == 0 {
			plugins = append(plugins, "ptp")
		}
		for _, plugin := range plugins {
			c.usePlugin(t, ctx, plugin)
			all, ready := c.scaleUp(t, ctx)
			down := c.scaleDown(t, ctx)
			took[plugin] = append(took[plugin], all)
			t.Logf("round %d, %s: %d pods Ready after %.1f s (of single pods p50 %.0f s, p95 %.0f s), gone after %.1f s",
				round+1, plugin, soakPods, all.Seconds(), ready[len(ready)/2].Seconds(), ready[len(ready)*95/100].Seconds(), down.Seconds())
			c.awaitLeftovers(t, ctx, before)
		}
	}
	for plugin, times := range took {
		slices.Sort(times)
		t.Logf("%s: %d pods Ready, median of %d rounds %.1f s", plugin, soakPods, len(times), times[len(times)/2].Seconds())
	}
}

func soakCluster(t *testing.T, ctx context.Context) *Cluster {
	t.Helper()
	source, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	options := lab.Options{Name: "cniscale"}
	clean := func() {
		if err := lab.Down(context.WithoutCancel(ctx), options); err != nil {
			t.Errorf("lab down: %v", err)
		}
	}
	clean()
	t.Cleanup(clean)
	c := &Cluster{Source: source, Out: os.Stdout}
	for _, step := range []func() error{
		func() error {
			return c.start(ctx, MainJobOptions{
				Lab: options, Topology: filepath.Join(source, "hack/lab/topologies/two-racks.yaml"), Source: source, Out: os.Stdout,
			}, &Report{})
		},
		func() error { return c.WaitReady(ctx) },
		func() error { return c.WaitSessions(ctx) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// usePlugin puts a configuration before Muslin's, or takes it away. The pods of
// one plugin are gone before the next one's come.
func (c *Cluster) usePlugin(t *testing.T, ctx context.Context, plugin string) {
	t.Helper()
	const path = "/etc/cni/net.d/05-ptp.conflist"
	for i, node := range c.allNodes() {
		script := "rm -f " + path
		if plugin == "ptp" {
			script = fmt.Sprintf(`cat >%s~ <<'EOF' && mv %[1]s~ %[1]s
{"cniVersion":"1.0.0","name":"ptp","plugins":[{"type":"ptp","ipam":{"type":"host-local",
 "ranges":[[{"subnet":"10.210.%d.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}
EOF`, path, i)
		}
		if _, err := c.Machine(node).Exec(ctx, "sh", "-c", script); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(3 * time.Second) // until containerd has read it: it does not say
}

// scaleUp makes the pods and returns how long it took until all were Ready, and
// of each pod, to the second, in ascending order.
func (c *Cluster) scaleUp(t *testing.T, ctx context.Context) (all time.Duration, each []time.Duration) {
	t.Helper()
	began := time.Now()
	if _, err := c.Kubectl(ctx, echoDeployment(soakPods), "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Kubectl(ctx, "", "rollout", "status", "deployment/echo", "--timeout=600s"); err != nil {
		events, _ := c.Kubectl(ctx, "", "get", "events", "--sort-by=.lastTimestamp")
		t.Fatalf("%v\n%s", err, events)
	}
	all = time.Since(began)
	out, err := c.Kubectl(ctx, "", "get", "pods", "-l", "app=echo", "-o",
		`jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].lastTransitionTime}{"\n"}{end}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range strings.Fields(string(out)) {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		each = append(each, at.Sub(began))
	}
	slices.Sort(each)
	if len(each) != soakPods {
		t.Fatalf("%d pods are Ready, want %d", len(each), soakPods)
	}
	return all, each
}

func (c *Cluster) scaleDown(t *testing.T, ctx context.Context) time.Duration {
	t.Helper()
	began := time.Now()
	if _, err := c.Kubectl(ctx, "", "delete", "deployment", "echo", "--cascade=foreground", "--timeout=600s"); err != nil {
		t.Fatal(err)
	}
	if err := c.eventually(ctx, 10*time.Minute, func() error {
		out, err := c.Kubectl(ctx, "", "get", "pods", "-l", "app=echo", "-o", "name")
		if n := len(strings.Fields(string(out))); err == nil && n > 0 {
			return fmt.Errorf("%d pods are left", n)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return time.Since(began)
}

// leftovers are what pods leave their traces in, by place.
type leftovers map[string][]string

// awaitLeftovers reads what pods leave; with another to compare, it waits until
// the two are the same, and fails the test with the difference when they never
// are.
func (c *Cluster) awaitLeftovers(t *testing.T, ctx context.Context, want leftovers) leftovers {
	t.Helper()
	var got leftovers
	err := c.eventually(ctx, time.Minute, func() (err error) {
		got, err = c.leftovers(ctx)
		switch {
		case err != nil:
			return err
		case want == nil && len(got["addresses"])+len(got["handles"]) > 0:
			return fmt.Errorf("addresses are in use: %v, handles %v", got["addresses"], got["handles"])
		case want != nil:
			if diff := cmp.Diff(want, got); diff != "" {
				return fmt.Errorf("the pods left (-before +after):\n%s", diff)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// traces are looked for on each node.
var traces = map[string]string{
	"links":      "ip -o link | awk -F': ' '{print $2}' | grep -v -e ^lo -e ^eth",
	"routes":     "ip -4 route show table all; ip -6 route show table all proto 109",
	"rules":      "nft list table inet muslin",
	"neighbours": "ip neigh show nud permanent | grep -v 'dev eth0'",
	"namespaces": "ls /run/netns",
	"records":    "ls /var/lib/muslin/cni-spool",
	"ptp":        "ls /var/lib/cni/networks/ptp | grep -v -e lock -e last_reserved",
}

func (c *Cluster) leftovers(ctx context.Context) (leftovers, error) {
	f := leftovers{}
	blocks, err := c.podAddresses(ctx)
	if err != nil {
		return nil, err
	}
	f["addresses"] = blocks
	out, err := c.Kubectl(ctx, "", "get", "ipamhandles.projectcalico.org", "-o", "name")
	if err != nil {
		return nil, err
	}
	f["handles"] = lines(out)
	for _, node := range c.allNodes() {
		for name, command := range traces {
			out, err := c.Machine(node).Exec(ctx, "sh", "-c", "{ "+command+"; } 2>/dev/null; true")
			if err != nil {
				return nil, err
			}
			f[node+" "+name] = lines(out)
		}
	}
	return f, nil
}

// podAddresses lists the addresses that the blocks give to pods.
func (c *Cluster) podAddresses(ctx context.Context) ([]string, error) {
	out, err := c.Kubectl(ctx, "", "get", "ipamblocks.projectcalico.org", "-o", "json")
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			Spec struct {
				CIDR        string
				Allocations []*int
				Attributes  []struct {
					Secondary  map[string]string
					ReleasedAt string
				}
			}
		}
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, err
	}
	var found []string
	for _, b := range list.Items {
		for slot, a := range b.Spec.Allocations {
			if a == nil || *a >= len(b.Spec.Attributes) || b.Spec.Attributes[*a].ReleasedAt != "" {
				continue
			}
			found = append(found, fmt.Sprintf("%s #%d %v", b.Spec.CIDR, slot, slices.Sorted(maps.Values(b.Spec.Attributes[*a].Secondary))))
		}
	}
	return found, nil
}

// lines are the sorted lines of a text.
func lines(text []byte) []string {
	var out []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	slices.Sort(out)
	return out
}
