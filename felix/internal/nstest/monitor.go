package nstest

import (
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// Monitor collects what `ip -o monitor` prints.
type Monitor struct {
	n     *NS
	cmd   *exec.Cmd
	mu    sync.Mutex
	out   strings.Builder
	marks int
}

// mark is a prefix for documentation (RFC 5737) that no test routes.
const mark = "192.0.2."

// MonitorRoutes is Monitor for routes.
func (n *NS) MonitorRoutes() *Monitor { return n.Monitor() }

// Monitor starts a monitor of routes and other objects (link, address, neigh)
// and returns once it listens.
func (n *NS) Monitor(objects ...string) *Monitor {
	n.t.Helper()
	m := &Monitor{n: n, cmd: n.Command("ip", append([]string{"-o", "monitor", "route"}, objects...)...)}
	m.cmd.Stdout = m
	if err := m.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = m.cmd.Process.Kill(); _ = m.cmd.Wait() })
	m.sync()
	return m
}

// Write takes the command's output.
func (m *Monitor) Write(b []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.out.Write(b)
}

// sync writes marker routes until the monitor shows one: by then it has shown
// everything before it.
func (m *Monitor) sync() {
	m.n.t.Helper()
	m.marks++
	text := fmt.Sprintf("%s%d", mark, m.marks)
	Eventually(m.n.t, "the route monitor shows "+text, func() bool {
		_, _ = m.n.Try("ip", "route", "add", "blackhole", text)
		_, _ = m.n.Try("ip", "route", "del", "blackhole", text)
		return strings.Contains(m.text(), text)
	})
}

func (m *Monitor) text() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.out.String()
}

// gateway is the one link-local address that we give to links.
const gateway = "fe80::ecee:eeff:feee:eeee"

// Lines returns what was seen so far, without markers, and without the addresses
// that the kernel makes of hardware addresses: their duplicate detection ends
// when it likes.
func (m *Monitor) Lines() []string {
	m.n.t.Helper()
	m.sync()
	var lines []string
	for _, l := range strings.Split(m.text(), "\n") {
		if own := strings.Contains(l, " fe80::") && !strings.Contains(l, gateway); l != "" && !own && !strings.Contains(l, mark) {
			lines = append(lines, strings.TrimSpace(l))
		}
	}
	return lines
}

// Eventually waits until ok, with a bound that is there to end a broken test,
// not to measure.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("waited in vain until %s", what)
}
