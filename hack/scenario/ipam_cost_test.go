package scenario

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// addCosts counts at the API server what a pod's address costs it: two writes
// for one pod, few block writes for a hundred at once, and never a list.
func (c *LightCluster) addCosts(t *testing.T, ctx context.Context) {
	const node, tries, burst = "a1", 5, 100
	cheap := false
	for i := range tries {
		pod := fmt.Sprint("cost-", i)
		c.kubectl(t, ctx, lightPodObject(node, pod), "apply", "-f", "-")
		got := c.costOf(t, ctx, func() error { _, err := c.Pod(node, "default", pod).Add(ctx); return err })
		t.Logf("one ADD: %v", got)
		noLists(t, got)
		// An agent that has not heard of the pod yet asks for it.
		cheap = cheap || maps.Equal(got, map[string]int{"PUT ipamblocks": 1, "POST ipamhandles": 1})
	}
	if !cheap {
		t.Errorf("none of %d ADDs cost a block write and a handle write alone", tries)
	}
	var objects []string
	for i := range burst {
		objects = append(objects, lightPodObject(node, fmt.Sprint("burst-", i)))
	}
	c.kubectl(t, ctx, strings.Join(objects, "---\n"), "apply", "-f", "-")
	got := c.costOf(t, ctx, func() error {
		return c.eachAtOnce(burst, func(i int) error {
			_, err := c.Pod(node, "default", fmt.Sprint("burst-", i)).Add(ctx)
			return err
		})
	})
	t.Logf("%d ADDs at once: %v", burst, got)
	noLists(t, got)
	// How many it takes depends on how the plugins' start spreads the ADDs, 10 to 17
	// here; where they come at once, TestRequestsOfAnAssignment holds 15.
	if writes := got["PUT ipamblocks"] + got["POST ipamblocks"]; writes == 0 || writes > 30 {
		t.Errorf("%d ADDs at once took %d block writes, want 1 to 30", burst, writes)
	}
	names := make([]string, 0, tries+burst)
	for i := range tries {
		names = append(names, fmt.Sprint("cost-", i))
	}
	for i := range burst {
		names = append(names, fmt.Sprint("burst-", i))
	}
	if err := c.eachAtOnce(len(names), func(i int) error { return c.Pod(node, "default", names[i]).Delete(ctx) }); err != nil {
		t.Error(err)
	}
	c.kubectl(t, ctx, "", append([]string{"delete", "pod", "--force", "--grace-period=0"}, names...)...)
}

func (c *LightCluster) eachAtOnce(n int, do func(i int) error) error {
	errs := make(chan error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs <- do(i) })
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func noLists(t *testing.T, got map[string]int) {
	t.Helper()
	for request, n := range got {
		if strings.HasPrefix(request, "LIST") {
			t.Errorf("%d times %s", n, request)
		}
	}
}

// costOf is how many requests the API server answered while do ran, by verb and
// resource. Watches are not counted, they last; nor what nodes and leases cost,
// which have nothing to do with pods.
func (c *LightCluster) costOf(t *testing.T, ctx context.Context, do func() error) map[string]int {
	t.Helper()
	before := c.requests(t, ctx)
	if err := do(); err != nil {
		t.Fatal(err)
	}
	after := c.requests(t, ctx)
	for k, n := range before {
		after[k] -= n
	}
	maps.DeleteFunc(after, func(k string, n int) bool { return n == 0 })
	return after
}

// requests reads apiserver_request_total.
func (c *LightCluster) requests(t *testing.T, ctx context.Context) map[string]int {
	t.Helper()
	out := map[string]int{}
	text, err := c.Kubectl(ctx, "", "get", "--raw", "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		labels, value, found := strings.Cut(strings.TrimPrefix(line, "apiserver_request_total{"), "} ")
		if !found || !strings.HasPrefix(line, "apiserver_request_total{") {
			continue
		}
		verb, resource := label(labels, "verb"), label(labels, "resource")
		switch resource {
		case "", "nodes", "leases", "events":
			continue
		}
		if verb == "WATCH" {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil {
			t.Fatal(err)
		}
		out[verb+" "+resource] += int(n)
	}
	return out
}

// label is the value of one label of a metric.
func label(labels, name string) string {
	for _, l := range strings.Split(labels, ",") {
		if k, v, _ := strings.Cut(l, "="); k == name {
			return strings.Trim(v, `"`)
		}
	}
	return ""
}
