package app_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// ofBlock finds a block in the state on disk.
var ofBlock = regexp.MustCompile(`"CIDR":"10\.77\.[0-9.]+/26"`)

// TestRestartWithoutTheAPIServer: an agent that starts while the API server is
// away speaks BGP by the state on disk and learns routes anew, which may be its
// only way there; it says so, and goes over once it has reached the server. One
// with a broken file waits, and says so, too.
func TestRestartWithoutTheAPIServer(t *testing.T) {
	t.Parallel()
	const routes = 20
	n := newRoutedNode(t, "", routes)
	n.startAgent()
	t.Cleanup(n.kill)
	n.await("is ready", func() bool { return len(n.waiting()) == 0 })
	n.plugPods(2)
	file := filepath.Join(n.server.Dir, "last-state.json")
	n.await("has written its state with the block", func() bool {
		text, _ := os.ReadFile(file)
		return ofBlock.Match(text)
	})
	block := strings.Fields(n.inside("ip", "route", "show", "type", "blackhole", "proto", "109"))[1]

	n.kill()
	n.server.Kill()
	n.inside("ip", "route", "flush", "proto", "109")
	n.startAgent()
	n.await("has the routes again, learned ones and its pods'", func() bool {
		ours := n.ours()
		return strings.Count(ours, "100.") == routes && strings.Count(ours, "dev cali") == 2
	})
	rack := func() string {
		return n.inside("nsenter", "--net=/run/netns/"+n.server.Netns+"-rack", "birdc", "-s", filepath.Join(n.server.Dir, "bird.ctl"), "show", "route", "protocol", "node")
	}
	n.await("announces its block", func() bool { return strings.Contains(rack(), block) })
	if got := n.problems(); !strings.Contains(got, "by the state of 20") {
		t.Errorf("problems: %s", got)
	}
	if waiting := n.waiting(); !slices.ContainsFunc(waiting, func(w string) bool { return strings.Contains(w, "cluster") }) {
		t.Errorf("ready without the API server: %q", waiting)
	}
	n.server.Restart(t)
	n.await("is ready again", func() bool { return len(n.waiting()) == 0 })
	if got := n.problems(); strings.Contains(got, "by the state of") {
		t.Errorf("problems: %s", got)
	}
	if !strings.Contains(rack(), block) {
		t.Errorf("the block was withdrawn:\n%s", rack())
	}

	n.kill()
	n.server.Kill()
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.startAgent()
	n.await("says that it has no state", func() bool { return strings.Contains(n.problems(), "there is no state of before") })
	n.server.Restart(t)
	n.await("is ready again", func() bool { return len(n.waiting()) == 0 })
}
