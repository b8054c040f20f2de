package manifests_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/muslin-net/muslin/cmd/controller/seed"
	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

// One command on a cluster that has never seen Muslin is the whole install, and
// running it again changes nothing.
func TestOneApplyInstalls(t *testing.T) {
	t.Parallel()
	fresh := kubetest.Start(t)
	out := fresh.MustKubectl(t, "", "apply", "-k", kubetest.Root()+"/manifests")
	for _, want := range []string{"daemonset.apps/muslin-agent created", "deployment.apps/muslin-controller created", "customresourcedefinition.apiextensions.k8s.io/ippools.projectcalico.org created"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if strings.Contains(out, "Warning") {
		t.Errorf("a warning:\n%s", out)
	}
	fresh.MustKubectl(t, "", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	for _, line := range strings.Split(strings.TrimSpace(fresh.MustKubectl(t, "", "apply", "-k", kubetest.Root()+"/manifests")), "\n") {
		if !strings.HasSuffix(line, " unchanged") {
			t.Errorf("second apply: %s", line)
		}
	}
}

// The seed of each overlay is one that the controller takes and the API server accepts.
func TestSeedsOfOverlays(t *testing.T) {
	files, err := filepath.Glob("overlays/*/seed.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var m corev1.ConfigMap
			if err := yaml.UnmarshalStrict(text, &m); err != nil || m.Name != seed.Name || m.Namespace != "muslin-system" {
				t.Fatalf("ConfigMap %s/%s, %v", m.Namespace, m.Name, err)
			}
			objects, refused := seed.Read(m.Data)
			if len(objects) == 0 || len(refused) > 0 {
				t.Fatalf("%v, refused %v", objects, refused)
			}
			for _, o := range objects {
				server.MustKubectl(t, string(o.JSON), "create", "--dry-run=server", "--validate=strict", "-f", "-")
			}
		})
	}
}

// What the service accounts may do is all that they need, and no more.
func TestPermissions(t *testing.T) {
	server.Install(t)
	const agent, controller = "muslin-agent", "muslin-controller"
	for _, c := range []struct {
		who, verb, what string
		extra           []string
		want            bool
	}{
		{agent, "watch", "nodes", nil, true},
		{agent, "patch", "nodes/status", nil, true},
		{agent, "patch", "nodes", nil, false},
		{agent, "watch", "pods", []string{"-A"}, true},
		{agent, "patch", "pods/status", []string{"-n", "default"}, false},
		{agent, "create", "pods", []string{"-n", "muslin-system"}, false},
		{agent, "create", "events", []string{"-n", "default"}, true},
		{agent, "create", "events", []string{"-n", "kube-system"}, false},
		{agent, "watch", "ippools.projectcalico.org", nil, true},
		{agent, "update", "ippools.projectcalico.org", nil, false},
		{agent, "update", "ipamblocks.projectcalico.org", nil, true},
		{agent, "delete", "ipamhandles.projectcalico.org", nil, true},
		{agent, "create", "blockaffinities.projectcalico.org", nil, true},
		{agent, "get", "secrets", []string{"-n", "muslin-system"}, false},
		{agent, "get", "secrets", []string{"-n", "kube-system"}, false},
		{agent, "list", "secrets", []string{"-A"}, false},
		{agent, "watch", "services", []string{"-A"}, true},
		{agent, "watch", "endpointslices.discovery.k8s.io", []string{"-A"}, true},
		{agent, "patch", "caliconodestatuses.projectcalico.org/status", nil, true},
		{agent, "patch", "caliconodestatuses.projectcalico.org", nil, false},
		{agent, "get", "configmaps", []string{"-n", "muslin-system"}, false},
		{controller, "patch", "ippools.projectcalico.org/status", nil, true},
		{controller, "patch", "bgpfilters.projectcalico.org/status", nil, true},
		{controller, "create", "ippools.projectcalico.org", nil, true},
		{controller, "delete", "ippools.projectcalico.org", nil, false},
		{controller, "create", "bgppeers.projectcalico.org", nil, true},
		{controller, "update", "bgppeers.projectcalico.org", nil, false},
		{controller, "create", "globalnetworkpolicies.projectcalico.org", nil, false},
		{controller, "watch", "configmaps/muslin-seed", []string{"-n", "muslin-system"}, true},
		{controller, "patch", "configmaps/muslin-seed", []string{"-n", "muslin-system"}, true},
		{controller, "create", "configmaps", []string{"-n", "muslin-system"}, false},
		{controller, "get", "configmaps/another", []string{"-n", "muslin-system"}, false},
		{controller, "create", "leases.coordination.k8s.io", []string{"-n", "muslin-system"}, true},
		{controller, "update", "leases.coordination.k8s.io/muslin-controller", []string{"-n", "muslin-system"}, true},
		{controller, "update", "leases.coordination.k8s.io/another", []string{"-n", "muslin-system"}, false},
		{controller, "patch", "nodes/status", nil, false},
		{controller, "watch", "blockaffinities.projectcalico.org", nil, true},
		{controller, "delete", "ipamblocks.projectcalico.org", nil, true},
		{controller, "create", "ipamblocks.projectcalico.org", nil, true},
		{controller, "get", "secrets", []string{"-n", "kube-system"}, false},
	} {
		t.Run(c.who+" "+c.verb+" "+c.what, func(t *testing.T) {
			if got := may(t, "system:serviceaccount:muslin-system:"+c.who, c.verb, c.what, c.extra); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// may asks the server whether a service account has a right, on "resource.group",
// "resource/name" or "resource/status".
func may(t *testing.T, user, verb, what string, flags []string) bool {
	t.Helper()
	what, of, _ := strings.Cut(what, "/")
	resource, group, _ := strings.Cut(what, ".")
	right := authorizationv1.ResourceAttributes{Verb: verb, Group: group, Resource: resource, Name: of}
	if of == "status" {
		right.Name, right.Subresource = "", of
	}
	if len(flags) == 2 {
		right.Namespace = flags[1] // else in all of them
	}
	review := authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user, Groups: []string{"system:serviceaccounts", "system:serviceaccounts:muslin-system", "system:authenticated"}, ResourceAttributes: &right,
	}}
	code, answer := send(t, server.Config(), http.MethodPost, "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
	if err := json.Unmarshal([]byte(answer), &review); err != nil || code != http.StatusCreated {
		t.Fatalf("%d %s: %v", code, answer, err)
	}
	return review.Status.Allowed
}
