package scenario

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// byHelm: the chart takes a cluster over that kubectl has installed, rolls every agent,
// and back, under a ping and a TCP connection across racks, and nothing is lost; helm test passes on the
// sound cluster and names the session when a router's AS number is wrong.
func (s story) byHelm(t *testing.T, ctx context.Context) {
	out, err := exec.CommandContext(ctx, "go", "tool", "-modfile="+filepath.Join(s.Source, "hack/tools/helm/go.mod"), "-n", "helm").Output()
	if err != nil {
		t.Fatal(err)
	}
	program, chart := strings.TrimSpace(string(out)), filepath.Join(s.Source, "manifests/charts/muslin")
	helm := func(args ...string) (string, error) {
		cmd := s.ControlPlane().CommandInNet(ctx, append([]string{program}, args...)...)
		cmd.Env = append(cmd.Env, "KUBECONFIG="+s.Kubeconfig(), "HELM_CACHE_HOME="+t.TempDir(), "HELM_CONFIG_HOME="+t.TempDir(), "HELM_DATA_HOME="+t.TempDir())
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("helm %s: %w: %s", strings.Join(args, " "), err, out)
		}
		return string(out), err
	}
	pods, err := s.Pods(ctx)
	if err != nil {
		t.Fatal(err)
	}
	from, to := acrossRacks(s.Cluster, pods)
	ping, stream := s.startPing(t, ctx, from, to), s.startStream(t, ctx, from, to)
	for _, args := range [][]string{
		{"install", "muslin", chart, "-n", "kube-system", "--take-ownership", "--set=agent.logLevel=debug"},
		{"upgrade", "muslin", chart, "-n", "kube-system", "--set=agent.logLevel=info"},
		{"rollback", "muslin", "1", "-n", "kube-system"},
	} {
		if _, err := helm(args...); err != nil {
			t.Fatal(err)
		}
		if err := s.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if r := ping(); r.Lost != 0 || r.Failed != 0 || r.Sent == 0 {
		t.Errorf("three rollouts: %+v, want none lost", r)
	}
	if r := stream(); r.Error != interrupted || r.End.Sent.Bytes == 0 {
		t.Errorf("three rollouts under iperf3: %+v, want a connection that lives", r)
	}
	if err := s.WaitSessions(ctx); err != nil {
		t.Fatal(err)
	}
	check := func() (string, error) {
		_, err := helm("test", "muslin", "-n", "kube-system", "--timeout=2m")
		log, _ := s.Kubectl(ctx, "", "-n", Namespace, "logs", "muslin-check") // none when it did not start, which err tells
		return string(log), err
	}
	if out, err := check(); err != nil {
		t.Errorf("on a sound cluster: %v\n%s", err, out)
	}
	s.kubectlOK(t, ctx, "", "patch", "bgppeer.projectcalico.org", "rack-r1", "--type=merge", "-p", `{"spec":{"asNumber":64999}}`)
	if err := s.eventually(ctx, 3*time.Minute, func() error {
		if out, err := check(); err == nil || !strings.Contains(out, "64999") {
			return fmt.Errorf("helm test does not name the wrong AS number: %w\n%s", err, out)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	s.kubectlOK(t, ctx, s.routerPeers(), "apply", "-f", "-")
	if err := s.WaitSessions(ctx); err != nil {
		t.Error(err)
	}
}
