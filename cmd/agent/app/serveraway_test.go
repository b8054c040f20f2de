package app_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestAPIServerAway is the short cut of what the soak tests play for ten minutes.
func TestAPIServerAway(t *testing.T) {
	t.Parallel()
	serverAway(t, 0)
}

// serverAway: while the API server is away pods talk, a pod that ends is recorded, one that
// starts is refused by name of the cause and not half made; then what was recorded is done,
// and what is new in the API is learned.
func serverAway(t *testing.T, longer time.Duration) {
	f := newFabric(t, dualStackMesh)
	a, b := f.join("a", 1, 1), f.join("b", 1, 2)
	streams := [][]*stream{a.ping(b), b.ping(a)}
	first, firstIP := a.pod, a.podIP
	a.object("ends")
	a.wire("ends", "ends")
	a.object("waits")
	f.server.Kill()
	for _, m := range []*member{a, b} {
		m.awaitProblem("gives no", true)
	}
	if out, err := a.cni("DEL", "ends", "ends", a.netnsOfPod()); err != nil {
		t.Errorf("DEL: %v %s", err, out)
	}
	a.pod = makeNamespaces(t, 1)[0]
	refused := func() {
		t.Helper()
		out, err := a.cni("ADD", "waits", "waits", a.netnsOfPod())
		if err == nil || !strings.Contains(out, `"code"`) {
			t.Errorf("ADD: %v %s", err, out)
		}
		f.await("the pod that was refused has no link", func() string {
			if links := f.run(a.inPod("ip", "-o", "link", "show")); strings.Contains(links, "eth0") {
				return links
			}
			return ""
		})
	}
	refused()
	for end := time.Now().Add(longer); time.Now().Before(end); time.Sleep(20 * time.Second) {
		refused()
		reach(f, true, [2]*member{a, b}, [2]*member{b, a})
	}
	f.server.Restart(t)
	back := time.Now()
	a.wire("waits", "waits-anew")
	t.Logf("a pod starts %s after the server", time.Since(back).Round(time.Millisecond))
	f.await("what was recorded is done", func() string {
		entries, err := os.ReadDir(filepath.Join(a.dir, "spool"))
		if held := f.server.MustKubectl(t, "", "get", "ipamhandles", "-o", "name"); err != nil || strings.Contains(held, "-ends") || strings.Contains(held, ".ends") {
			return held
		}
		for _, e := range entries {
			if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") && strings.Contains(e.Name(), "ends") {
				return e.Name()
			}
		}
		return ""
	})
	for _, m := range []*member{a, b} {
		m.awaitProblem("gives no", false)
	}
	f.server.MustKubectl(t, "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: later}\nspec: {cidr: 10.51.0.0/16, nodeSelector: nonsense ==}\n", "create", "-f", "-")
	b.awaitProblem("later", true)
	t.Logf("state right %s after the server", time.Since(back).Round(time.Millisecond))
	b.ping(a) // the new pod
	a.pod, a.podIP = first, firstIP
	lostNothing(t, streams...)
}
