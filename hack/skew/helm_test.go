//go:build skew

package skew

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

// program builds the Helm that hack/tools pins.
func program(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(must(t, exec.Command("go", "tool", "-modfile="+filepath.Join(kubetest.Root(), "hack/tools/helm/go.mod"), "-n", "helm")))
}

// empty is an API server without a trace of Muslin.
func empty(t *testing.T) *kubetest.Server {
	t.Helper()
	s := kubetest.Start(t)
	s.MustKubectl(t, "", "delete", "crd", "--all", "--wait=true", "--timeout=120s")
	return s
}

// live gives the objects that a manifest names, as the server has them: without what
// differs from server to server, and from one revision of a release to the next.
func live(t *testing.T, s *kubetest.Server, manifest string) map[string]any {
	t.Helper()
	var list struct{ Items []map[string]any }
	text := s.MustKubectl(t, manifest, "get", "-f", "-", "-o", "json", "--ignore-not-found")
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	for _, o := range list.Items {
		meta := o["metadata"].(map[string]any)
		for _, f := range []string{"uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"} {
			delete(meta, f)
		}
		if a, ok := meta["annotations"].(map[string]any); ok {
			delete(a, "deprecated.daemonset.template.generation")
		}
		delete(o, "status")
		if spec, ok := o["spec"].(map[string]any); ok && o["kind"] == "Service" {
			delete(spec, "clusterIP")
			delete(spec, "clusterIPs")
		}
		namespace, _ := meta["namespace"].(string)
		out[o["kind"].(string)+" "+namespace+"/"+meta["name"].(string)] = o
	}
	return out
}

// TestHelmUpgrade: what the chart of the release before has installed is, after an
// upgrade to this tree's, what this tree's installs where nothing was, object by object
// and field by field, CRDs among them; and after the rollback what it was, but for kinds
// that are new. A value that was set stays, and so do the user's objects.
func TestHelmUpgrade(t *testing.T) {
	before, now := filepath.Join(os.Getenv("MUSLIN_PREVIOUS"), "charts/muslin"), filepath.Join(kubetest.Root(), "manifests/charts/muslin")
	if _, err := os.Stat(filepath.Join(before, "Chart.yaml")); err != nil {
		t.Fatalf("MUSLIN_PREVIOUS is not the folder that make previous writes (%v): run make skew", err)
	}
	path := program(t)
	helm := func(s *kubetest.Server, args ...string) string {
		t.Helper()
		cmd := s.Exec(path, append(args, "--kubeconfig="+s.Dir+"/kubeconfig", "--namespace=kube-system")...)
		cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+t.TempDir(), "HELM_CONFIG_HOME="+t.TempDir(), "HELM_DATA_HOME="+t.TempDir())
		return must(t, cmd)
	}
	upgraded, fresh := empty(t), empty(t)
	helm(upgraded, "install", "muslin", before, "--set=agent.logLevel=warn")
	established(t, upgraded)
	upgraded.MustKubectl(t, "{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: pods}, spec: {cidr: 10.9.0.0/16}}", "create", "-f", "-")
	helm(fresh, "install", "muslin", now, "--set=agent.logLevel=warn")

	all := helm(upgraded, "get", "manifest", "muslin") + "\n---\n" + helm(fresh, "get", "manifest", "muslin")
	was, want := live(t, upgraded, all), live(t, fresh, all)
	helm(upgraded, "upgrade", "muslin", now, "--reset-then-reuse-values")
	if d := cmp.Diff(want, live(t, upgraded, all)); d != "" {
		t.Errorf("upgraded, against a new installation (-new +upgraded):\n%s", d)
	}
	helm(upgraded, "rollback", "muslin", "1")
	back := live(t, upgraded, all)
	maps.DeleteFunc(back, func(name string, _ any) bool { // a new kind stays, with its objects
		return was[name] == nil && strings.HasPrefix(name, "CustomResourceDefinition ")
	})
	if d := cmp.Diff(was, back); d != "" {
		t.Errorf("rolled back (-before +after):\n%s", d)
	}
	if got := upgraded.MustKubectl(t, "", "get", "ippool", "pods", "-o", "jsonpath={.spec.cidr}"); got != "10.9.0.0/16" {
		t.Errorf("after upgrade and rollback the pool is %q", got)
	}
}
