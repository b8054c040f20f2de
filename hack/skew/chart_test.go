//go:build skew

package skew

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

// chart is where the chart is: beside the manifests.
func (r release) chart() string { return filepath.Join(filepath.Dir(r.manifests), "charts/muslin") }

// established waits until the server serves all kinds. kubectl wait fails at once for one
// that it has not looked at yet.
func established(t *testing.T, s *kubetest.Server) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		out, err := s.Kubectl("", "wait", "--for=condition=Established", "crd", "--all", "--timeout=120s")
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%v: %s", err, out)
		}
	}
}

// helm runs Helm, and waits for the kinds that it has made.
func helm(t *testing.T, s *kubetest.Server, args ...string) {
	t.Helper()
	cmd := s.Exec(program(t), append(args, "--kubeconfig="+filepath.Join(s.Dir, "kubeconfig"), "--namespace=kube-system")...)
	cmd.Env = append(cmd.Environ(), "HELM_CACHE_HOME="+t.TempDir(), "HELM_CONFIG_HOME="+t.TempDir(), "HELM_DATA_HOME="+t.TempDir())
	must(t, cmd)
	established(t, s)
}

// TestChartUpgrade: helm upgrade takes a cluster from the chart of the release before to
// that of this tree. Programs follow one by one, without a packet of the pods' lost, and
// the API has then what a new installation has: nothing is left over, and the CRDs are
// this tree's.
func TestChartUpgrade(t *testing.T) {
	previous, this := both(t)
	s := kubetest.Start(t)
	helm(t, s, "install", "muslin", previous.chart())
	s.MustKubectl(t, "{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: pods}, spec: {cidr: 10.77.0.0/16}}", "apply", "-f", "-")
	a, b := node(t, s, "n1"), node(t, s, "n2")
	wire(t, s, a, b)
	a.StartAgent(previous.program("agent"))
	run(t, b, previous)
	a.Await("ready", func() bool { code, _, err := a.Get("/readyz"); return err == nil && code == 200 })
	podA, addressA := add(t, a, previous)
	podB, addressB := add(t, b, previous)
	streams := []*stream{ping(t, a, podA, addressB), ping(t, b, podB, addressA)}

	helm(t, s, "upgrade", "muslin", this.chart())
	startController(t, s, b, this)
	for _, n := range []*kubetest.Node{a, b} {
		stop(t, n)
		run(t, n, this)
	}
	for pod, address := range map[string]string{podA: addressB, podB: addressA} {
		must(t, exec.Command("ip", "netns", "exec", pod, "ping", "-c", "20", "-i", "0.1", "-W", "60", address))
	}
	for _, s := range streams {
		s.end(t)
	}
	later, address := add(t, a, this)
	b.Await("a new pod can be reached", func() bool {
		return exec.Command("ip", "netns", "exec", podB, "ping", "-c", "1", "-W", "1", address).Run() == nil
	})
	for _, pod := range []string{podA, later} {
		cni(t, a, this, "CHECK", pod)
	}

	fresh := kubetest.Start(t)
	helm(t, fresh, "install", "muslin", this.chart())
	if diff := cmp.Diff(installed(t, fresh), installed(t, s)); diff != "" {
		t.Errorf("the upgraded cluster (+) differs from a new one (-):\n%s", diff)
	}
	if got := s.MustKubectl(t, "", "get", "ippool", "pods", "-o", "jsonpath={.spec.cidr}"); got != "10.77.0.0/16" {
		t.Errorf("the pool has become %q", got)
	}
}

// ofThisServer are kinds whose objects belong to one server, or to what runs there.
var ofThisServer = []string{"componentstatuses", "configmaps", "events", "events.events.k8s.io", "leases.coordination.k8s.io", "nodes", "pods", "secrets"}

// installed gives the objects of the kinds that an installation makes, and those beside
// them that Kubernetes makes everywhere, by kind, namespace and name; without what the
// server writes. Of ConfigMaps it gives those of Muslin's namespace.
func installed(t *testing.T, s *kubetest.Server) map[string]any {
	t.Helper()
	out := map[string]any{}
	list := func(args ...string) {
		var got struct{ Items []map[string]any }
		_, text, _ := strings.Cut(s.MustKubectl(t, "", append(args, "-o", "json")...), "{") // warnings come first
		if err := json.Unmarshal([]byte("{"+text), &got); err != nil {
			t.Fatal(err)
		}
		for _, o := range got.Items {
			meta := o["metadata"].(map[string]any)
			if meta["ownerReferences"] != nil {
				continue // what the controller has made goes with its owner
			}
			for _, f := range []string{"uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"} {
				delete(meta, f)
			}
			if notes, ok := meta["annotations"].(map[string]any); ok {
				delete(notes, "deprecated.daemonset.template.generation") // how often it was changed
			}
			delete(o, "status")
			namespace, _ := meta["namespace"].(string)
			out[o["kind"].(string)+" "+namespace+"/"+meta["name"].(string)] = o
		}
	}
	own := strings.Fields(s.MustKubectl(t, "", "get", "crds", "-o", "jsonpath={.items[*].metadata.name}"))
	kinds := slices.DeleteFunc(strings.Fields(s.MustKubectl(t, "", "api-resources", "--verbs=list", "-o", "name")), func(kind string) bool {
		return slices.Contains(ofThisServer, kind) || slices.Contains(own, kind)
	})
	list("get", strings.Join(kinds, ","), "-A")
	list("get", "configmaps", "-n", "muslin-system")
	return out
}
