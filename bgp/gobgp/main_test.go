package gobgp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/bgp/internal/bgptest"
	"github.com/muslin-net/muslin/pkg/model"
)

const (
	childEnv   = "MUSLIN_TEST_SPEAKER"
	hostileEnv = "MUSLIN_TEST_HOSTILE"
)

// TestMain lets the test binary be the speaker under test: started again in a
// network namespace, it takes configurations on its standard input. A whole
// process is what can be killed.
func TestMain(m *testing.M) {
	if v, ok := os.LookupEnv(childEnv); ok {
		os.Exit(child(v))
	}
	if v, ok := os.LookupEnv(hostileEnv); ok {
		os.Exit(hostile(v))
	}
	os.Exit(m.Run())
}

type request struct {
	Config    bgp.Config
	Passwords map[netip.Addr]string
	Ask       bool // only the state
	Count     bool // only the number of learned routes
}

type answer struct {
	Error     string
	Routes    int
	Usage     int64 // CPU time spent, in ns
	RSS       int64 // at its most, in KiB
	Learned   []model.Learned
	Refused   []bgp.Refusal
	Odd       []bgp.Oddity
	Peers     []model.PeerStatus
	Converged bool
}

func child(mode string) int {
	level := slog.LevelInfo
	if strings.Contains(mode, "debug") {
		level = slog.LevelDebug - 4
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	if strings.Contains(mode, "explosive") {
		log = slog.New(explosive{log.Handler()})
	}
	s := New(Options{Logger: log, Restarting: strings.Contains(mode, "restarting")})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var run sync.WaitGroup
	run.Go(func() { _ = s.Run(ctx) })
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	out := json.NewEncoder(os.Stdout)
	for {
		var r request
		if err := in.Decode(&r); err != nil {
			if !errors.Is(err, io.EOF) {
				log.Error("request", "error", err)
			}
			cancel()
			run.Wait()
			return 0
		}
		var a answer
		if r.Count {
			var ru syscall.Rusage
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
			if err := out.Encode(answer{Routes: s.rib.size(), Usage: ru.Utime.Nano() + ru.Stime.Nano(), RSS: ru.Maxrss}); err != nil {
				return 1
			}
			continue
		}
		if !r.Ask {
			for i := range r.Config.Peers {
				if pw, ok := r.Passwords[r.Config.Peers[i].Address]; ok {
					r.Config.Peers[i].Password = model.NewSecret(pw)
				}
			}
			if err := s.Apply(ctx, r.Config); err != nil {
				a.Error = err.Error()
			}
		}
		a.Learned, a.Peers, a.Odd = s.Learned(), s.Peers(), s.Odd()
		if refused, err := s.Refused(); err != nil {
			a.Error = err.Error()
		} else {
			a.Refused = refused
		}
		select {
		case <-s.Converged():
			a.Converged = true
		default:
		}
		if err := out.Encode(a); err != nil {
			log.Error("answer", "error", err)
			return 1
		}
	}
}

// runHostile runs the peer that means harm and returns what it said.
func runHostile(t *testing.T, h *bgptest.Host, arg string) string {
	t.Helper()
	c := exec.Command("ip", "netns", "exec", h.NS, os.Args[0])
	c.Env = append(os.Environ(), hostileEnv+"="+arg)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("hostile peer: %v\n%s", err, out)
	}
	return string(out)
}

// process is a speaker in a namespace of its own.
type process struct {
	t    testing.TB
	host *bgptest.Host
	mode string
	cmd  *exec.Cmd
	in   io.WriteCloser
	dec  *json.Decoder
	mu   sync.Mutex
	log  *lockedBuffer
	dies bool // as expected
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// ourRace is what the race detector says of this module's code. GoBGP has a
// race of its own, on the mark of stale paths.
var ourRace = regexp.MustCompile(`(?m)(Read|Write|read|write) at .*\n +github.com/muslin-net`)

// startSpeaker runs one; mode may hold "restarting", "debug" and "confined": with
// no capability but the two that the package names.
func startSpeaker(t testing.TB, h *bgptest.Host, mode string) *process {
	t.Helper()
	p := &process{t: t, host: h, mode: mode, log: &lockedBuffer{}}
	args := []string{"netns", "exec", h.NS, os.Args[0]}
	if strings.Contains(mode, "confined") {
		const caps = "-all,+net_bind_service,+net_admin"
		args = []string{"netns", "exec", h.NS, "setpriv", "--bounding-set", caps, "--inh-caps", caps, "--no-new-privs", os.Args[0]}
	}
	p.cmd = exec.Command("ip", args...)
	p.cmd.Env = append(os.Environ(), childEnv+"="+mode)
	p.cmd.Stderr = p.log
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.in, p.dec = in, json.NewDecoder(bufio.NewReader(out))
	t.Cleanup(func() {
		p.kill()
		if strings.Contains(p.log.String(), "panic:") && !p.dies || ourRace.MatchString(p.log.String()) {
			t.Errorf("the speaker panicked or has a race")
		}
		if t.Failed() {
			t.Logf("the speaker in %s said:\n%s", h.NS, p.log.String())
		}
	})
	return p
}

func (p *process) pid() string { return strconv.Itoa(p.cmd.Process.Pid) }

// kill ends the process at once, as kill -9 does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// leave ends the process as its container ends: the context is cancelled.
func (p *process) leave() {
	p.t.Helper()
	_ = p.in.Close()
	if err := p.cmd.Wait(); err != nil {
		p.t.Fatalf("the speaker did not end well: %v", err)
	}
}

func (p *process) ask(r request) answer {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := json.NewEncoder(p.in).Encode(r); err != nil { // with placeholders for passwords
		p.t.Fatalf("the speaker is gone: %v\n%s", err, p.log.String())
	}
	var a answer
	if err := p.dec.Decode(&a); err != nil {
		p.t.Fatalf("the speaker is gone: %v\n%s", err, p.log.String())
	}
	return a
}

func (p *process) apply(c bgp.Config) {
	p.t.Helper()
	r := request{Config: c, Passwords: map[netip.Addr]string{}}
	for _, q := range c.Peers {
		if !q.Password.IsZero() {
			r.Passwords[q.Address] = q.Password.Reveal()
		}
	}
	if a := p.ask(r); a.Error != "" {
		p.t.Fatalf("apply: %s", a.Error)
	}
}

func (p *process) state() answer { return p.ask(request{Ask: true}) }

// learned is the learned routes as text, one a line: "10.1.0.0/26 via 10.9.0.2 from 10.9.0.2".
func (p *process) learned() string {
	var w strings.Builder
	for _, l := range p.state().Learned {
		fmt.Fprintf(&w, "%s via %v from %v", l.Prefix, l.NextHops, l.From)
		if l.Mesh {
			fmt.Fprint(&w, " mesh")
		}
		if l.Stale {
			fmt.Fprint(&w, " stale")
		}
		fmt.Fprintln(&w)
	}
	return w.String()
}

// refused is the refused routes as text.
func (p *process) refused() string {
	var w strings.Builder
	for _, r := range p.state().Refused {
		fmt.Fprintf(&w, "%s: %s\n", r.Prefix, r.Reason)
	}
	return w.String()
}

// odd is what is odd about what was announced, as text.
func (p *process) odd() string {
	var w strings.Builder
	for _, o := range p.state().Odd {
		fmt.Fprintf(&w, "%s from %s by AS %s\n", o.Prefix, o.Peer, o.Origin)
	}
	return w.String()
}

// peers is the sessions as text.
func (p *process) peers() string {
	var w strings.Builder
	for _, s := range p.state().Peers {
		fmt.Fprintf(&w, "%s as %s %s %s flaps %d gr %v bfd %q in %v accepted %v out %v error %q\n",
			s.Address, s.ASN, s.Kind, s.State, s.Flaps, s.GracefulRestart, s.BFDState, s.Received, s.Accepted, s.Sent, s.LastError)
	}
	return w.String()
}

func (p *process) established(addr string) {
	p.t.Helper()
	bgptest.Eventually(p.t, "session with "+addr, func() string {
		for _, s := range p.state().Peers {
			if s.Address.String() == addr && s.State == "Established" {
				return ""
			}
		}
		return p.peers()
	})
}

// desired computes the configuration of node "a" from a snapshot and fails on
// any problem.
func desired(t testing.TB, snap model.Snapshot) bgp.Config {
	t.Helper()
	c, problems := bgp.Desired(snap, "a")
	if len(problems) > 0 {
		t.Fatalf("problems: %v", problems)
	}
	return c
}

func prefixes(ss ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range ss {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func off() *bool { f := false; return &f }

var second = time.Second
