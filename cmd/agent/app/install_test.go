package app

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
	"github.com/prometheus/client_golang/prometheus"
)

// installer is an agent with nothing but CNI directories and problems.
func installer(t *testing.T) *agent {
	t.Helper()
	dir := t.TempDir()
	a := &agent{log: slog.New(slog.DiscardHandler), gates: newGates(gateConfig, gateSocket)}
	a.cfg = Config{Node: "n1", Logger: a.log, CNI: CNIConfig{
		Source: filepath.Join(dir, "image", "muslin"), BinDir: filepath.Join(dir, "bin"), ConfDir: filepath.Join(dir, "net.d"),
	}}
	a.own, a.pulses = newNodeProblems(a.log), newPulses(a.log)
	put(t, a.cfg.CNI.Source, "#!/bin/sh\necho 'CNI plugin muslin new'\n")
	return a
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
}

func run(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	return string(out), err
}

// listed waits until there are so many problems.
func listed(l *problemList, n int) []model.Problem {
	for {
		now, changed := l.now.Get()
		if len(now) == n {
			return now
		}
		<-changed
	}
}

// blocked stands where a directory has to be: not even root can write there.
func blocked(t *testing.T, dir string) (free func()) {
	t.Helper()
	_ = os.Rename(dir, dir+".away")
	put(t, dir, "")
	return func() {
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		_ = os.Rename(dir+".away", dir)
	}
}

func TestFilesThatCannotBeWrittenAreToldAndTriedAgain(t *testing.T) {
	a := installer(t)
	free := blocked(t, a.cfg.CNI.BinDir)
	if err := Install(t.Context(), a.cfg); err == nil {
		t.Error("the init container is content without a plugin")
	}
	problems := a.installOnce(true)
	if len(problems) != 2 || problems[0].Reason != fileNotWritten || !strings.Contains(problems[0].Message, a.cfg.CNI.BinDir) {
		t.Errorf("problems: %v", problems)
	}
	if got := a.gates.waiting(gateConfig); len(got) != 1 {
		t.Errorf("waiting: %v", got)
	}
	free()
	free = blocked(t, a.cfg.CNI.ConfDir)
	if problems := a.installOnce(true); len(problems) != 1 || problems[0].Field != "MUSLIN_CNI_CONF" || !strings.Contains(problems[0].Message, a.cfg.CNI.ConfDir) {
		t.Errorf("problems: %v", problems)
	}
	free()
	if problems := a.installOnce(true); len(problems) != 0 || len(a.gates.waiting(gateConfig)) != 0 {
		t.Errorf("problems: %v, waiting %v", problems, a.gates.waiting(gateConfig))
	}
}

func TestAnOldPluginWillDo(t *testing.T) {
	a := installer(t)
	if err := Install(t.Context(), a.cfg); err != nil {
		t.Fatal(err)
	}
	put(t, a.cfg.CNI.Source, "#!/bin/sh\necho 'CNI plugin muslin newer'\n")
	path := filepath.Join(a.cfg.CNI.BinDir, "muslin")
	// A mount point is what a rename cannot replace, root or not.
	if out, err := run("mount", "--bind", path, path); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { _, _ = run("umount", path) })
	if err := Install(t.Context(), a.cfg); err != nil {
		t.Errorf("the agent does not start for a plugin that cannot be replaced: %v", err)
	}
	if problems := a.installOnce(true); len(problems) != 1 || problems[0].Field != "MUSLIN_CNI_BIN" || len(a.gates.waiting(gateConfig)) != 0 {
		t.Errorf("problems: %v, waiting %v", problems, a.gates.waiting(gateConfig))
	}
}

func TestOtherNetworksAreNamed(t *testing.T) {
	a := installer(t)
	other := filepath.Join(a.cfg.CNI.ConfDir, "10-calico.conflist")
	put(t, other, `{"cniVersion": "1.0.0", "name": "k8s-pod-network", "plugins": [{"type": "calico"}]}`)
	problems := a.installOnce(true)
	if len(problems) != 1 || problems[0].Reason != "OtherNetworkFirst" || !strings.Contains(problems[0].String(), "10-calico.conflist") {
		t.Errorf("problems: %v", problems)
	}
	a.gates.reached.Set(map[string]string{})
	if err := a.cniStatus(t.Context()); err == nil || !strings.Contains(err.Error(), "10-calico.conflist") {
		t.Errorf("STATUS answers %v", err)
	}
	a.cfg.CNI.Exclusive = true
	if problems := a.installOnce(false); len(problems) != 0 {
		t.Errorf("problems: %v", problems)
	}
	if err := a.cniStatus(t.Context()); err != nil {
		t.Errorf("STATUS answers %v", err)
	}
	if _, err := os.Stat(other); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
	if err := Uninstall(a.cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
}

// TestAPortThatIsTaken: nothing of the agent waits for its own health address.
func TestAPortThatIsTaken(t *testing.T) {
	a := installer(t)
	a.registry = prometheus.NewRegistry()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a.cfg.HTTPAddr = l.Addr().String()
	s := a.httpServer()
	s.show, s.status = func(*http.ServeMux) {}, func() Status { return Status{} }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	server := task.Func("http", s.run)
	go func() { done <- server.Run(ctx) }()
	<-server.Ready()
	if got := listed(&a.own.http, 1); got[0].Reason != "PortTaken" || !strings.Contains(got[0].Message, a.cfg.HTTPAddr) {
		t.Errorf("problems: %v", got)
	}
	_ = l.Close()
	listed(&a.own.http, 0)
	resp, err := http.Get("http://" + a.cfg.HTTPAddr + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(resp.Body); string(b) != "ok\n" {
		t.Errorf("%s", b)
	}
	_ = resp.Body.Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestASocketThatCannotBeOpened: the agent goes on without, and opens it later.
func TestASocketThatCannotBeOpened(t *testing.T) {
	a := installer(t)
	dir := t.TempDir()
	a.cfg.Spool, a.cfg.Socket = filepath.Join(dir, "spool"), filepath.Join(dir, "run", "agent.sock")
	put(t, filepath.Dir(a.cfg.Socket), "")
	a.in, a.endpoints, a.podCIDRs, a.metrics = &inputs{}, newEndpoints(nil), newPodCIDRs(), newMetrics(prometheus.NewRegistry(), func() reading { return reading{} })
	server := a.cniTasks()[0]
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- server.Run(ctx) }()
	if got := listed(&a.own.socket, 1); !strings.Contains(got[0].Message, a.cfg.Socket) {
		t.Errorf("problems: %v", got)
	}
	if err := os.Remove(filepath.Dir(a.cfg.Socket)); err != nil {
		t.Fatal(err)
	}
	<-server.Ready()
	if got := a.own.socket.get(); len(got) != 0 {
		t.Errorf("problems: %v", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
