package bench

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/muslin-net/muslin/bgp/internal/bgptest"
	"github.com/muslin-net/muslin/pkg/cnirpc/spoolentry"
	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

// receiver is a node that hears prefixes and puts them into its kernel.
type receiver struct {
	name  string
	host  *bgptest.Host
	pids  []int
	trie  *os.File // statistics of the namespace's routing tables
	empty int      // routes before the first prefix
}

// startAgent runs a real agent beside a real kube-apiserver, which share a
// namespace on the net.
func startAgent(b *testing.B, n *bgptest.Net, last int, objects string) *receiver {
	b.Helper()
	s := kubetest.StartWithCRDs(b)
	h := n.Join(s.Netns, last)
	s.MustKubectl(b, objects, "apply", "-f", "-")
	log, err := os.Create(filepath.Join(s.Dir, "agent.log"))
	if err != nil {
		b.Fatal(err)
	}
	cmd := agentCommand(b, s)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		log.Close()
		if b.Failed() {
			text, _ := os.ReadFile(log.Name())
			b.Logf("the agent said:\n%s", text[max(0, len(text)-4000):])
		}
	})
	return &receiver{name: "muslin", host: h, pids: []int{cmd.Process.Pid}, trie: openTrie(b, s.Netns)}
}

// agentCommand is the program as it is shipped; with a profile asked for, this
// test binary in its place. Its records of DELs are nobody else's: a file system
// of its own hides those of an agent that runs on this machine.
func agentCommand(b *testing.B, s *kubetest.Server) *exec.Cmd {
	b.Helper()
	enter := "--net=/run/netns/" + s.Netns
	if os.Getenv(envProfile) != "" {
		self, err := os.Executable()
		if err != nil {
			b.Fatal(err)
		}
		cmd := exec.Command("nsenter", enter, self)
		cmd.Env = append(os.Environ(), envAgent+"="+s.Dir)
		return cmd
	}
	bin := filepath.Join(s.Dir, "muslin-agent")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, "github.com/muslin-net/muslin/cmd/agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("build the agent: %v\n%s", err, out)
	}
	const script = `mkdir -p "$1" && mount -t tmpfs none "$1" && exec "$2"`
	cmd := exec.Command("nsenter", enter, "unshare", "--mount", "sh", "-ec", script, "agent", spoolentry.DefaultDir, bin)
	cmd.Env = append(os.Environ(), "NODE_NAME=bench", "KUBECONFIG="+filepath.Join(s.Dir, "kubeconfig"), "MUSLIN_SOCKET="+filepath.Join(s.Dir, "agent.sock"),
		"MUSLIN_PROC_SYS=/proc/sys", "MUSLIN_CNI_CONF=none")
	return cmd
}

func startBIRD(b *testing.B, n *bgptest.Net, last int, peer string) *receiver {
	b.Helper()
	h := n.Host(last)
	h.StartBIRD("protocol direct { ipv4; }\n" +
		"protocol kernel { persist; scan time 60; ipv4 { import none; export where source = RTS_BGP; }; }\n" +
		bgptest.BIRDPeer("peer", h.V4, 64512, peer, 64512, ""))
	return &receiver{name: "bird", host: h, pids: pidsIn(b, h.NS), trie: openTrie(b, h.NS)}
}

func startFRR(b *testing.B, n *bgptest.Net, last int, peer string) *receiver {
	b.Helper()
	h := n.Host(last)
	h.StartFRR(bgptest.FRRPeer(64512, h.V4, peer, 64512, ""))
	return &receiver{name: "frr", host: h, pids: pidsIn(b, h.NS), trie: openTrie(b, h.NS)}
}

// openTrie opens a namespace's /proc/net/fib_triestat. Reading it costs the
// kernel a walk over the tables, less than a dump by far.
func openTrie(b *testing.B, ns string) *os.File {
	b.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/net/fib_triestat", sleeper(b, ns)))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	return f
}

// sleeper is the process ID of a program in the namespace that does nothing.
func sleeper(b *testing.B, ns string) int {
	b.Helper()
	cmd := exec.Command("nsenter", "--net=/run/netns/"+ns, "sleep", "infinity")
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	want, err := os.Stat("/run/netns/" + ns)
	if err != nil {
		b.Fatal(err)
	}
	bgptest.Eventually(b, "a program in "+ns, func() string {
		if got, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid)); err != nil || !os.SameFile(got, want) {
			return "not yet"
		}
		return ""
	})
	return cmd.Process.Pid
}

// routes counts the IPv4 routes of the kernel's main table, which comes first.
// (It has the local ones too until somebody adds a rule.)
func (r *receiver) routes(b *testing.B) int {
	b.Helper()
	text := make([]byte, 4096)
	n, err := r.trie.ReadAt(text, 0)
	_, value, ok := bytes.Cut(text[:n], []byte("Prefixes:"))
	if !ok {
		b.Fatalf("%s: read fib_triestat: %v", r.name, err)
	}
	value, _, _ = bytes.Cut(value, []byte("\n"))
	count, err := strconv.Atoi(string(bytes.TrimSpace(value)))
	if err != nil {
		b.Fatal(err)
	}
	return count
}

// lookShare is how much of a core looking at the kernel may take at most: its
// inverse. Whoever is measured needs the rest, and one with two threads more than
// one with one.
const lookShare = 10

// until waits for the kernel to have so many routes more than at the beginning
// and tells how long it took since start. A look at 50,000 routes takes some
// milliseconds, so the answer is late by half of the pause between two, for
// everybody alike.
func (r *receiver) until(b *testing.B, start time.Time, count int) time.Duration {
	b.Helper()
	for {
		began := time.Now()
		have := r.routes(b) - r.empty
		if have == count {
			return began.Sub(start)
		}
		if time.Since(start) > time.Minute {
			b.Fatalf("%s: %d routes of %d after a minute", r.name, have, count)
		}
		time.Sleep(max(500*time.Microsecond, time.Since(began)*(lookShare-1)))
	}
}

// rest waits until the processes have done nothing for a while, at most some
// seconds.
func (r *receiver) rest(b *testing.B) {
	b.Helper()
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		before := r.cpu(b)
		time.Sleep(100 * time.Millisecond)
		if r.cpu(b) == before {
			return
		}
	}
}

// cpu is the CPU time of the processes so far.
func (r *receiver) cpu(b *testing.B) time.Duration {
	b.Helper()
	const tick = 10 * time.Millisecond             // USER_HZ
	return tick * time.Duration(r.stat(b, 11, 12)) // utime, stime
}

// faults are the pages that the processes have been given so far.
func (r *receiver) faults(b *testing.B) int {
	b.Helper()
	return r.stat(b, 7) // minflt
}

// stat is the sum of fields of /proc/PID/stat, counted from the state.
func (r *receiver) stat(b *testing.B, fields ...int) (sum int) {
	b.Helper()
	for _, pid := range r.pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			b.Fatalf("%s has ended: %v", r.name, err)
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		for _, i := range fields {
			n, err := strconv.Atoi(strings.Fields(rest)[i])
			if err != nil {
				b.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}

// memory is the resident memory of the processes, in MiB: VmRSS now, VmHWM at
// its most.
func (r *receiver) memory(b *testing.B, field string) (sum float64) {
	b.Helper()
	for _, pid := range r.pids {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			b.Fatalf("%s has ended: %v", r.name, err)
		}
		for line := range strings.Lines(string(status)) {
			if value, ok := strings.CutPrefix(line, field+":"); ok {
				kb, err := strconv.Atoi(strings.Fields(value)[0])
				if err != nil {
					b.Fatal(err)
				}
				sum += float64(kb) / 1024
			}
		}
	}
	return sum
}

func pidsIn(b *testing.B, ns string) []int {
	b.Helper()
	out, err := exec.Command("ip", "netns", "pids", ns).Output()
	if err != nil {
		b.Fatal(err)
	}
	var pids []int
	for _, f := range strings.Fields(string(out)) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			b.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}
