package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// streamResult is what iperf3 says of a connection at its end.
type streamResult struct {
	Error string
	End   struct {
		Sent struct {
			Bytes, Retransmits int64
		} `json:"sum_sent"`
	}
}

// interrupted is how iperf3 ends that was asked to: its connection lived until then.
const interrupted = "interrupt - the client has terminated"

// startStream has iperf3 send 5 Mbit/s in one TCP connection from a pod to another,
// until the returned function is called.
func (s story) startStream(t *testing.T, ctx context.Context, from, to Pod) func() streamResult {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	t.Cleanup(cancel)
	server := s.Machine(to.Node).Command(ctx, "ip", "netns", "exec", s.podNetns(t, ctx, to), "iperf3", "-s")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	if err := s.eventually(ctx, time.Minute, func() error {
		out, err := s.Machine(to.Node).Exec(ctx, "ip", "netns", "exec", s.podNetns(t, ctx, to), "ss", "-Hltn", "sport", "=", ":5201")
		if err == nil && len(out) == 0 {
			err = fmt.Errorf("iperf3 does not listen")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	client := s.Machine(from.Node).Command(ctx, "ip", "netns", "exec", s.podNetns(t, ctx, from), "iperf3", "-J", "-b", "5M", "-t", "7200", "-c", to.IP.String())
	var out strings.Builder
	client.Stdout = &out
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	return func() streamResult {
		_ = client.Process.Signal(syscall.SIGINT)
		_ = client.Wait()
		var r streamResult
		if err := json.Unmarshal([]byte(out.String()), &r); err != nil {
			t.Fatalf("iperf3 said %q: %v", out.String(), err)
		}
		return r
	}
}
