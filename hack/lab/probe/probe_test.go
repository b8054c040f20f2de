package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// network is two hosts a and b with a router between them, in namespaces.
type network struct{ probe, prefix string }

func newNetwork(t *testing.T) network {
	t.Helper()
	n := network{probe: filepath.Join(t.TempDir(), "probe"), prefix: fmt.Sprintf("mt-probe-%08x-", rand.Uint32())}
	must(t, "go", "build", "-o", n.probe, ".")
	for _, name := range []string{"a", "r", "b"} {
		t.Cleanup(func() { must(t, "ip", "netns", "del", n.prefix+name) })
		must(t, "ip", "netns", "add", n.prefix+name)
	}
	for i, name := range []string{"a", "b"} {
		host, router := n.prefix+name, n.prefix+"r"
		must(t, "ip", "-n", host, "link", "add", "e0", "type", "veth", "peer", "name", "e"+name, "netns", router)
		for _, side := range []struct{ ns, device, host string }{{router, "e" + name, "1"}, {host, "e0", "2"}} {
			must(t, "ip", "-n", side.ns, "link", "set", "lo", "up")
			must(t, "ip", "-n", side.ns, "link", "set", side.device, "up")
			must(t, "ip", "-n", side.ns, "addr", "add", fmt.Sprintf("10.9.%d.%s/24", i, side.host), "dev", side.device)
			must(t, "ip", "-n", side.ns, "addr", "add", fmt.Sprintf("fd00:9:%d::%s/64", i, side.host), "dev", side.device, "nodad")
		}
		must(t, "ip", "-n", host, "route", "add", "default", "via", fmt.Sprintf("10.9.%d.1", i))
		must(t, "ip", "-n", host, "route", "add", "default", "via", fmt.Sprintf("fd00:9:%d::1", i))
	}
	must(t, "ip", "netns", "exec", n.prefix+"r", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
	return n
}

func must(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
}

func (n network) command(host string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", n.prefix + host, n.probe}, args...)...)
}

func (n network) serve(t *testing.T) {
	t.Helper()
	server := n.command("b", "serve", "-port", "7007")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Process.Signal(unix.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := server.Wait(); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
}

func TestProbe(t *testing.T) {
	n := newNetwork(t)
	n.serve(t)
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range []struct{ name, a, b, r, open string }{
		{"ipv4", "10.9.0.2", "10.9.1.2", "10.9.0.1", "10.9.1.2:7007"},
		{"ipv6", "fd00:9::2", "fd00:9:1::2", "fd00:9::1", "[fd00:9:1::2]:7007"},
	} {
		t.Run(family.name+" dial tells the source", func(t *testing.T) {
			for _, flags := range [][]string{{"dial"}, {"dial", "-udp"}} {
				got := n.dial(t, append(flags, family.open)...)
				if !strings.Contains(got, family.a) || !strings.HasSuffix(got, " "+host) {
					t.Errorf("%v: the server saw %q, want %s and %s", flags, got, family.a, host)
				}
			}
		})
		t.Run(family.name+" trace", func(t *testing.T) {
			out, err := n.command("a", "trace", family.b).Output()
			if want := family.r + "\n" + family.b + "\n"; err != nil || string(out) != want {
				t.Errorf("trace: %v\n%swant:\n%s", err, out, want)
			}
		})
		t.Run(family.name+" ping", func(t *testing.T) {
			got := pinged(t, n.command("a", "ping", "-c", "20", "-i", "5ms", family.b))
			if got.Sent != 20 || got.Received != 20 || got.Lost != 0 || got.MinMs <= 0 {
				t.Errorf("ping: %+v", got)
			}
		})
	}
	t.Run("ping counts what is lost", func(t *testing.T) {
		got := pinged(t, n.command("a", "ping", "-c", "5", "-i", "5ms", "-w", "100ms", "10.9.1.77"))
		if got.Sent != 5 || got.Received != 0 || got.Lost != 5 {
			t.Errorf("ping: %+v", got)
		}
	})
	t.Run("ping counts what cannot be sent", func(t *testing.T) {
		got := pinged(t, n.command("r", "ping", "-c", "3", "-i", "5ms", "-w", "100ms", "192.0.2.1"))
		if got.Sent != 3 || got.Lost != 3 || got.Failed != 3 {
			t.Errorf("ping: %+v", got)
		}
	})
	t.Run("ping ends with a report when told so", func(t *testing.T) {
		command := n.command("a", "ping", "-i", "5ms", "10.9.1.2")
		out, err := command.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond) // long enough for a few requests
		if err := command.Process.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		var got report
		if err := json.NewDecoder(out).Decode(&got); err != nil {
			t.Fatalf("report: %v", err)
		}
		if err := command.Wait(); err != nil {
			t.Errorf("ping: %v", err)
		}
		if got.Sent < 2 || got.Lost != 0 {
			t.Errorf("ping: %+v", got)
		}
	})
	t.Run("trace fails when there is no way", func(t *testing.T) {
		out, err := n.command("a", "trace", "-m", "2", "-w", "100ms", "10.9.1.77").Output()
		if err == nil || !strings.HasPrefix(string(out), "10.9.0.1\n") {
			t.Errorf("trace: %v\n%s", err, out)
		}
	})
}

// What stream sends sink counts, and what a cut cable swallows is missing.
func TestStreamIsCountedAtBothEnds(t *testing.T) {
	n := newNetwork(t)
	for _, cut := range []bool{false, true} {
		var counted got
		var streamed sent
		stopSink := start(t, n.command("b", "sink", "-port", "9009"), &counted)
		// the socket is there once the kernel lists it
		for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
			out, err := exec.Command("ip", "netns", "exec", n.prefix+"b", "ss", "-lunH").Output()
			if err == nil && strings.Contains(string(out), ":9009") {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("sink does not listen: %v\n%s", err, out)
			}
		}
		stopStream := start(t, n.command("a", "stream", "-rate", "1000", "-flows", "4", "10.9.1.2:9009"), &streamed)
		time.Sleep(300 * time.Millisecond) // of traffic
		if cut {
			must(t, "ip", "-n", n.prefix+"r", "link", "set", "eb", "down")
			time.Sleep(200 * time.Millisecond)
			must(t, "ip", "-n", n.prefix+"r", "link", "set", "eb", "up")
			time.Sleep(200 * time.Millisecond)
		}
		stopStream()
		time.Sleep(100 * time.Millisecond) // for what is on its way
		stopSink()
		if lost := streamed.Sent - counted.Received; streamed.Sent == 0 || counted.Flows != 4 || (lost > 0) != cut {
			t.Errorf("cut %v: sent %+v, received %+v", cut, streamed, counted)
		}
	}
}

// start runs a command until the returned function is called, which reads its
// report into result.
func start(t *testing.T, command *exec.Cmd, result any) (stop func()) {
	t.Helper()
	var out strings.Builder
	command.Stdout = &out
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		_ = command.Process.Signal(unix.SIGTERM)
		if err := command.Wait(); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(out.String()), result); err != nil {
			t.Fatalf("report %q: %v", out.String(), err)
		}
	}
}

// dial tries for a while: the server has just been started.
func (n network) dial(t *testing.T, args ...string) string {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		out, err := n.command("a", args...).CombinedOutput()
		if err == nil {
			return strings.TrimSpace(string(out))
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
}

func pinged(t *testing.T, command *exec.Cmd) report {
	t.Helper()
	out, err := command.Output()
	if err != nil {
		t.Fatalf("ping: %v\n%s", err, out)
	}
	var result report
	if err := json.Unmarshal(out, &result); err != nil {
		t.Fatalf("report %q: %v", out, err)
	}
	return result
}
