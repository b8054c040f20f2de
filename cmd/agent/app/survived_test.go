package app_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/cmd/agent/app"
)

// problems is what the agent of a node cannot do, in its own words.
func (m *member) problems() string {
	m.f.t.Helper()
	var s app.Status
	text, err := m.get("/status")
	if err == nil {
		err = json.Unmarshal([]byte(text), &s)
	}
	if err != nil {
		return "no answer: " + err.Error()
	}
	return strings.Join(s.Problems, "\n")
}

// awaitProblem waits until the agent names what; or does not, if it is not announced.
func (m *member) awaitProblem(what string, announced bool) {
	m.f.t.Helper()
	m.f.await(fmt.Sprintf("%s says %q: %t", m.name, what, announced), func() string {
		if got := m.problems(); strings.Contains(got, what) != announced || strings.HasPrefix(got, "no answer") {
			return got + "\n" + tail(filepath.Join(m.dir, "agent.log"))
		}
		return ""
	})
}

// reach waits until nodes have routes to the pods of others, or have none.
func reach(f *fabric, has bool, pairs ...[2]*member) {
	f.t.Helper()
	for _, p := range pairs {
		f.await(fmt.Sprintf("%s has a route to %s: %t", p[0].name, p[1].name, has), func() string {
			if routes := p[0].routes(); strings.Contains(routes, "via "+p[1].address+" ") != has {
				return routes
			}
			return ""
		})
	}
}

// loses drops in a node's namespace what comes in and matches.
func (m *member) loses(match string) {
	m.f.t.Helper()
	m.inside("nft", "table inet loss { chain in { type filter hook input priority -300; "+match+" counter drop; }; }")
}

func (m *member) losesNothing() {
	m.f.t.Helper()
	m.inside("nft", "delete table inet loss")
}

// quickHold has nodes give up a silent peer after 15 s.
const quickHold = dualStackMesh + `---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default, annotations: {muslin.io/hold-time: 15s}}
spec: {}
`

// TestPacketsLostInOneDirection: two speakers of which one does not hear the other end
// with no route on either side, not with half of a way; nodes beside them lose nothing,
// and the session is back when packets are. An agent that the API server does not hear,
// or that does not hear it, goes on, says so, and learns afterwards what it missed.
func TestPacketsLostInOneDirection(t *testing.T) {
	t.Parallel()
	f := newFabric(t, quickHold)
	f.env = []string{"HTTP2_READ_IDLE_TIMEOUT_SECONDS=2", "HTTP2_PING_TIMEOUT_SECONDS=2"} // of 30 and 15
	a, b, c := f.join("a", 1, 1), f.join("b", 1, 2), f.join("c", 1, 3)
	beside := [][]*stream{a.ping(c), c.ping(b)}
	b.loses("ip saddr " + a.address + " tcp dport 179")
	b.inside("nft", "add rule inet loss in ip saddr "+a.address+" tcp sport 179 counter drop")
	reach(f, false, [2]*member{a, b}, [2]*member{b, a})
	b.losesNothing()
	reach(f, true, [2]*member{a, b}, [2]*member{b, a})
	beside = append(beside, a.ping(b))
	for i, lost := range []string{"tcp dport 6443", "tcp sport 6443"} {
		a.loses("iif lo " + lost)
		a.awaitProblem("gives no", true)
		pool := fmt.Sprintf("missed%d", i)
		f.server.MustKubectl(t, fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: %s}\nspec: {cidr: 10.5%d.0.0/16, nodeSelector: nonsense ==}\n", pool, i), "create", "-f", "-")
		b.awaitProblem(pool, true)
		a.losesNothing()
		a.awaitProblem("gives no", false)
		a.awaitProblem(pool, true)
	}
	lostNothing(t, beside...)
}

// TestFrozenPastTheHoldTime: an agent that is stopped for longer than its peers' hold
// time comes back as a node does that was away, with the addresses that it had.
func TestFrozenPastTheHoldTime(t *testing.T) {
	t.Parallel()
	f := newFabric(t, quickHold)
	a, b := f.join("a", 1, 1), f.join("b", 1, 2)
	log := b.watchRoutes()
	if err := a.agent.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	reach(f, false, [2]*member{b, a})
	if err := a.agent.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	reach(f, true, [2]*member{a, b}, [2]*member{b, a})
	a.ping(b)
	if len(log.deleted()) == 0 {
		t.Error("b has deleted no route: the test did not see what it is for")
	}
	if got := a.agent.ProcessState; got != nil {
		t.Errorf("a has ended: %s", got)
	}
}

// TestRebootOfANode: all that a kernel forgets is gone, what is on the disk is not. The
// runtime deletes the sandboxes of before, without a namespace, and makes others.
func TestRebootOfANode(t *testing.T) {
	t.Parallel()
	f := newFabric(t, dualStackMesh)
	a, b := f.join("a", 1, 1), f.join("b", 1, 2)
	before := a.podIP
	a.kill()
	_ = a.pod.Close()
	a.inside("sh", "-ec", `nft flush ruleset; ip route flush proto 109; ip -6 route flush proto 109
for l in $(ls /sys/class/net); do case $l in lo|eth0) ;; *) ip link del $l 2>/dev/null || true;; esac; done
for t in $(ip rule show | sed -n 's/^\([0-9]*\):.*lookup \([0-9]*\)$/\1/p'); do ip rule del priority $t; done`)
	_ = os.Remove(filepath.Join(a.dir, "agent.sock"))
	a.startAgent()
	if out, err := a.cni("DEL", "p-a", a.name, ""); err != nil {
		t.Fatalf("DEL of the sandbox of before: %v %s", err, out)
	}
	a.wire("p-a", "a-after")
	reach(f, true, [2]*member{a, b}, [2]*member{b, a})
	a.ping(b)
	f.await("the address of before is free, or the pod has it again", func() string {
		held := f.server.MustKubectl(t, "", "get", "ipamhandles", "-o", "name")
		if n := strings.Count(held, "\n"); n != 2 {
			return fmt.Sprintf("handles of two pods: %s (%s before, %s now)", held, before, a.podIP)
		}
		return ""
	})
}

// TestDiskThatIsFull: with no byte left on the disk of its state an agent goes on,
// starts and stops pods, and starts anew; it names the file, until there is room.
func TestDiskThatIsFull(t *testing.T) {
	t.Parallel()
	f := newFabric(t, dualStackMesh)
	f.disk = "size=8m"
	a, b := f.join("a", 1, 1), f.join("b", 1, 2)
	f.await("a has written its state", func() string {
		_, err := os.Stat(filepath.Join(a.dir, "last-state.json"))
		if err != nil {
			return err.Error()
		}
		return ""
	})
	streams := [][]*stream{a.ping(b), b.ping(a)}
	fill(t, a.dir)
	f.server.MustKubectl(t, "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: more}\nspec: {cidr: 10.51.0.0/16}\n", "create", "-f", "-")
	a.awaitProblem("last-state.json", true)
	a.object("second")
	a.wire("second", "second")
	if out, err := a.cni("DEL", "second", "second", ""); err != nil {
		t.Errorf("DEL: %v %s", err, out)
	}
	f.await("the second pod's address is free", func() string {
		if held := f.server.MustKubectl(t, "", "get", "ipamhandles", "-o", "name"); strings.Contains(held, "second") {
			return held
		}
		return ""
	})
	a.kill()
	a.startAgent()
	if err := os.RemoveAll(filepath.Join(a.dir, "fill")); err != nil {
		t.Fatal(err)
	}
	f.server.MustKubectl(t, "", "delete", "ippool", "more")
	a.awaitProblem("last-state.json", false)
	lostNothing(t, streams...)
}

// fill leaves no byte on the disk of a directory.
func fill(t *testing.T, dir string) {
	t.Helper()
	into := filepath.Join(dir, "fill")
	if err := os.Mkdir(into, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("dd", "if=/dev/zero", "of="+filepath.Join(into, "bytes"), "bs=4k").Run(); err == nil {
		t.Fatal("the disk is not full")
	}
}

// TestNoFileDescriptorLeft: an agent that can open no file goes on with what it has,
// and does again what failed once it can.
func TestNoFileDescriptorLeft(t *testing.T) {
	t.Parallel()
	f := newFabric(t, dualStackMesh)
	a, b := f.join("a", 1, 1), f.join("b", 1, 2)
	streams := [][]*stream{a.ping(b), b.ping(a)}
	var was unix.Rlimit
	if err := unix.Prlimit(a.agent.Process.Pid, unix.RLIMIT_NOFILE, nil, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(a.agent.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: was.Max}, nil); err != nil {
		t.Fatal(err)
	}
	a.object("second")
	if out, err := a.cni("ADD", "second", "second", a.netnsOfPod()); err == nil {
		t.Errorf("a pod was started: %s", out)
	}
	f.server.MustKubectl(t, "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: more}\nspec: {cidr: 10.51.0.0/16, nodeSelector: nonsense ==}\n", "create", "-f", "-")
	b.awaitProblem("more", true)
	b.kill()
	b.launchAgent() // it becomes ready when it hears of a
	f.server.Restart(t)
	if err := unix.Prlimit(a.agent.Process.Pid, unix.RLIMIT_NOFILE, &was, nil); err != nil {
		t.Fatal(err)
	}
	a.awaitReady()
	b.awaitReady()
	a.awaitProblem("more", true)
	reach(f, true, [2]*member{a, b}, [2]*member{b, a})
	a.wire("second", "second-anew")
	lostNothing(t, streams...)
}
