package scenario

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/hack/lab/kube"
)

// printed is a command line of muslinctl and what it has to say.
type printed struct {
	args string
	want []string // regular expressions, by lines
}

// verbsOnNodes: the verbs that ask agents, on a cluster that has some.
func (s story) verbsOnNodes(t *testing.T, ctx context.Context) {
	o := s.operator(t, ctx)
	if err := o.settled(ctx); err != nil {
		t.Fatal(err)
	}
	near, far := o.podOn(t, ctx, "n2"), o.podOn(t, ctx, "n3")
	for _, c := range []printed{
		{"node status --live", []string{`^Node n1: the agent is running`, `^Node n4: the agent is running`, `^PEER ADDRESS +PEER TYPE +STATE +SINCE +BFD +RECEIVED`, `^10\.1\.1\.1 +node specific +up `, `^10\.1\.2\.12 +node-to-node mesh +up .* Established$`, `^IPv6: no peers$`}},
		{"node status n3 --live --color=always", []string{"\x1b\\[32mup\x1b\\[0m"}},
		{"node show n1 bgp", []string{`^as 64512 router-id 10\.1\.1\.11`, `^policy export `, `^  10\.1\.1\.1 as 65101 Established`, `^# learned$`}},
		{"node show n1 routes", []string{`^  blackhole 10\.244\.`, `^  10\.244\.\S+ via 10\.1\.1\.12 dev eth0`}},
		{"node show n1 nft", []string{`^table inet muslin \{`}},
		{"node show n1 ipam", []string{`^block 10\.244\.\S+ confirmed$`, `^pod default/echo-\S+ 10\.244\.\S+ dev cali`}},
		{"node show n1 problems", []string{`^none$`}},
		{"node show n1", []string{`^## bgp of n1$`, `^## problems of n1$`}},
		{"node show n1 -o json", []string{`"Node": "n1"`}},
		{"node checksystem", []string{`^n1 +kernel +ok `, `^n4 +nftables +ok `, `^n4 +agent +ok +ready`}},
		{"top --once", []string{`^NODE +AGENT +UP +DOWN +RECEIVED`, `^n1 +ready +4 +0 `, `^n4 +ready +4 +0 `}},
		{"check", []string{`^4 nodes checked: 0 errors, 0 warnings$`}},
		{"check -o json", []string{`^\[\]$`}},
		{"explain " + far.IP.String(), []string{`^` + far.IP.String() + ` from node n1$`, `^  ok +probe +84 and 1500 bytes answered`, `^  reachable$`}},
		{"explain " + far.Name + " --from " + near.Name, []string{`^` + far.IP.String() + ` from node n2$`, `^  reachable$`}},
		{"router-config n1 --for frr", []string{`^router bgp 65101$`}},
		{"__complete node status n", []string{`^n1$`, `^n4$`}},
		{"__complete explain " + far.Name + " --from n", []string{`^n1$`}},
		{"__complete ippool migrate d", []string{`^default-ipv4-ippool$`}},
		{"node drain-bgp n4 --shutdown-only", []string{`^Shutdown: the peers prefer other ways$`}},
		{"node drain-bgp n4 --settle 1s", []string{`^waiting 1s for routers to follow$`, `^Withdrawn: everything is withdrawn and the sessions are closed$`}},
		{"node drain-bgp n4 --undo", []string{`^undo: the node announces as usual$`}},
	} {
		out, err := o.run(ctx, strings.Fields(c.args)...)
		if err != nil {
			t.Errorf("%s: %v", c.args, err)
			continue
		}
		for _, w := range c.want {
			if !regexp.MustCompile("(?m)" + w).MatchString(out) {
				t.Errorf("%s: no %q in\n%s", c.args, w, out)
			}
		}
	}
	o.archives(t, ctx)
	o.migration(t, ctx)
	if err := o.settled(ctx); err != nil {
		t.Error(err)
	}
}

// run gives what muslinctl prints.
func (o operator) run(ctx context.Context, args ...string) (string, error) {
	cmd := o.ControlPlane().CommandInNet(ctx, append([]string{o.program}, args...)...)
	cmd.Env = append(cmd.Env, "KUBECONFIG="+o.Kubeconfig())
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s%s", err, out, errs.String())
	}
	return string(out), err
}

// archives: diagnostics hold what the agents show, their metrics and their logs.
func (o operator) archives(t *testing.T, ctx context.Context) {
	t.Helper()
	for name, c := range map[string]struct {
		args []string
		has  []string
		not  string
	}{
		"one":     {[]string{"node", "diags", "n1"}, []string{"nodes/n1/view.json", "nodes/n1/metrics.txt", "nodes/n1/agent.log", "objects/ippools.json", "errors.txt"}, "nodes/n2/view.json"},
		"cluster": {[]string{"cluster", "diags"}, []string{"nodes/n1/agent.log", "nodes/n4/view.json", "objects/bgppeers.json"}, "nodes/cp/view.json"},
	} {
		file := filepath.Join(t.TempDir(), name+".tar.gz")
		if _, err := o.run(ctx, append(c.args, "-o", file)...); err != nil {
			t.Error(err)
			continue
		}
		sizes := contents(t, file)
		for _, h := range c.has {
			if size, there := sizes[h]; !there || size == 0 && h != "errors.txt" {
				t.Errorf("%q: %s is missing or empty; there are %v", c.args, h, sizes)
			}
		}
		if _, there := sizes[c.not]; there || sizes["errors.txt"] > 0 {
			t.Errorf("%q: %v", c.args, sizes)
		}
	}
}

// contents gives the sizes of the files in an archive.
func contents(t *testing.T, file string) map[string]int64 {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	gz, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	sizes := map[string]int64{}
	for r := tar.NewReader(gz); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return sizes
		}
		if err != nil {
			t.Fatal(err)
		}
		sizes[h.Name] = h.Size
	}
}

const wanderer = `apiVersion: apps/v1
kind: Deployment
metadata: {name: wanderer, namespace: default}
spec:
  replicas: 2
  selector: {matchLabels: {app: wanderer}}
  template:
    metadata: {labels: {app: wanderer}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: echo, image: %q, imagePullPolicy: Never, args: [serve]}
`

// migration: pods of a Deployment move from one pool into another by restarts of
// their owner, and the empty pool goes.
func (o operator) migration(t *testing.T, ctx context.Context) {
	t.Helper()
	t.Cleanup(func() {
		for _, do := range []step{o.patched(defaultPool, `{"spec":{"disabled":null}}`), o.deleted("deployment/wanderer"), o.deleted("ippool.projectcalico.org/old")} {
			if err := do(context.WithoutCancel(ctx)); err != nil {
				t.Error(err)
			}
		}
	})
	for _, do := range []step{
		o.applied(object("IPPool", "old", "cidr: 10.246.0.0/24, blockSize: 28")),
		o.patched(defaultPool, `{"spec":{"disabled":true}}`),
		o.applied(fmt.Sprintf(wanderer, kube.ProbeImage)),
		o.rolledOut("wanderer"),
		o.patched(defaultPool, `{"spec":{"disabled":false}}`),
	} {
		if err := do(ctx); err != nil {
			t.Fatal(err)
		}
	}
	out, err := o.run(ctx, "ippool", "migrate", "old", "default-ipv4-ippool")
	if err == nil || !strings.Contains(out, "Deployment default/wanderer: 2 pod(s) remain") {
		t.Errorf("without restarts: %v", err)
	}
	// The exit code is 4 while pods remain; the blocks of the last ones go a
	// moment after them.
	if err := o.eventually(ctx, 2*time.Minute, func() error {
		out, err := o.run(ctx, "ippool", "migrate", "old", "default-ipv4-ippool", "--restart", "--delete")
		if err == nil && !strings.Contains(out, "Successfully deleted IPPool old") {
			err = fmt.Errorf("it says %s", out)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	ips, err := o.Kubectl(ctx, "", "get", "pods", "-l", "app=wanderer", "--field-selector=status.phase=Running", "-o", "jsonpath={.items[*].status.podIP}")
	if err != nil || strings.Contains(string(ips), "10.246.") || !strings.Contains(string(ips), "10.244.") {
		t.Errorf("pods have %s: %v", ips, err)
	}
}

func (o operator) rolledOut(deployment string) step {
	return func(ctx context.Context) error {
		_, err := o.Kubectl(ctx, "", "rollout", "status", "deployment/"+deployment, "--timeout=120s")
		return err
	}
}
