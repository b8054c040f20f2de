package manifests

import (
	"strings"
	"testing"

	"github.com/muslin-net/muslin/cmd/muslinctl/world"
	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

// Helm takes over what kubectl has applied, upgrades it, and leaves CRDs and objects
// behind; who runs the check of helm test may read what it compares.
func TestHelmInstalls(t *testing.T) {
	server := kubetest.Start(t)
	path, err := helmPath()
	if err != nil {
		t.Fatal(err)
	}
	helm := func(args ...string) {
		t.Helper()
		cmd := server.Exec(path, append(args, "--kubeconfig="+server.Dir+"/kubeconfig", "--namespace=kube-system")...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	level := func() string {
		return server.MustKubectl(t, "", "-n", "muslin-system", "get", "daemonset", "muslin-agent", "-o", "jsonpath={.spec.template.spec.containers[0].env[?(@.name=='MUSLIN_LOG_LEVEL')].value}")
	}
	server.MustKubectl(t, "", "apply", "-f", root+"/manifests/muslin.yaml")
	helm("install", "muslin", chart, "--take-ownership", "--set=agent.logLevel=warn")
	server.MustKubectl(t, "", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	if got := level(); got != "warn" {
		t.Errorf("installed with level %q", got)
	}
	server.MustKubectl(t, "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: pods}\nspec: {cidr: 10.9.0.0/16}\n", "create", "-f", "-")
	helm("upgrade", "muslin", chart, "--set=agent.logLevel=debug")
	if got := level(); got != "debug" {
		t.Errorf("upgraded to level %q", got)
	}

	check, err := template(t, "{}", "--show-only=templates/tests/check.yaml")
	if err != nil {
		t.Fatal(err)
	}
	server.MustKubectl(t, check, "apply", "-f", "-")
	const who = "system:serviceaccount:muslin-system:muslin-check"
	if w, err := world.Read(t.Context(), server.ConfigAs(who), nil); err != nil || len(w.Aged) != 1 {
		t.Errorf("the check cannot read the cluster: %v", err)
	}
	if out, err := server.Kubectl("", "auth", "can-i", "create", "pods", "--subresource=portforward", "-n", "muslin-system", "--as="+who); err != nil {
		t.Errorf("the check cannot ask agents: %s", out)
	}

	helm("uninstall", "muslin")
	if got := server.MustKubectl(t, "", "get", "ippool", "pods", "-o", "jsonpath={.spec.cidr}"); got != "10.9.0.0/16" {
		t.Errorf("after the uninstall the pool is %q", got)
	}
	if out := server.MustKubectl(t, "", "get", "clusterroles,daemonsets", "-A", "-l", "app.kubernetes.io/part-of=muslin", "-o", "name"); out != "" {
		t.Errorf("the uninstall leaves %s", out)
	}
}
