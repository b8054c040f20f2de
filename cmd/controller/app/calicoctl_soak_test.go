//go:build soak

package app_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

const calicoModule = "github.com/projectcalico/calico"

// calicoctl is Calico's own, built from the module that hack/tools/calicoctl pins.
type calicoctl struct {
	t       *testing.T
	server  *kubetest.Server
	program string
	crds    string // folder of the CRDs of its release
}

func newCalicoctl(t *testing.T, server *kubetest.Server) calicoctl {
	t.Helper()
	c := calicoctl{t, server, filepath.Join(t.TempDir(), "calicoctl"), ""}
	c.goTool("build", "-o", c.program, calicoModule+"/calicoctl/calicoctl")
	c.crds = filepath.Join(strings.TrimSpace(c.goTool("list", "-m", "-f", "{{.Dir}}", calicoModule)), "libcalico-go/config/crd")
	return c
}

func (c calicoctl) goTool(args ...string) string {
	c.t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Env = "../../../hack/tools/calicoctl", append(os.Environ(), "GOFLAGS=")
	out, err := cmd.Output()
	if err != nil {
		c.t.Fatalf("%v: %v: %s", cmd.Args, err, out)
	}
	return string(out)
}

func (c calicoctl) run(args ...string) string {
	c.t.Helper()
	cmd := c.server.Exec(c.program, append(args, "--allow-version-mismatch")...)
	cmd.Env = append(os.Environ(), "DATASTORE_TYPE=kubernetes", "KUBECONFIG="+filepath.Join(c.server.Dir, "kubeconfig"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Fatalf("%v: %v: %s", cmd.Args, err, out)
	}
	return string(out)
}

// mirror copies objects into the API group that this release of Calico's knows.
func (c calicoctl) mirror(kinds ...string) {
	c.t.Helper()
	for _, file := range []string{"ipamblocks", "ipamhandles", "ipamconfigs", "ippools", "ipreservations", "clusterinformations"} {
		c.server.MustKubectl(c.t, "", "apply", "-f", filepath.Join(c.crds, "crd.projectcalico.org_"+file+".yaml"))
	}
	c.server.MustKubectl(c.t, "", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	for _, kind := range kinds {
		objects := c.server.MustKubectl(c.t, "", "get", kind+".projectcalico.org", "-o", "yaml")
		c.server.MustKubectl(c.t, strings.ReplaceAll(objects, "apiVersion: projectcalico.org/v3", "apiVersion: crd.projectcalico.org/v1"), "create", "--validate=false", "-f", "-")
	}
}

// TestSoakCalicoctl: the real calicoctl reads the blocks out of which Services have their
// addresses, counts what is given, and finds each block, handle and affinity in order. Its
// release knows no Services: what they have it takes for leaked.
func TestSoakCalicoctl(t *testing.T) {
	server := kubetest.StartWithCRDs(t)
	server.Install(t)
	server.MustKubectl(t, v3("IPPool", "lb", `{cidr: 10.20.0.0/28, blockSize: 30, allowedUses: [LoadBalancer], nodeSelector: all()}`)+
		v3("IPPool", "lb6", `{cidr: "fd20::/124", blockSize: 126, allowedUses: [LoadBalancer], nodeSelector: all()}`)+
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: lb0}\n---\n"+
		numbered(svc("a", requested("10.20.#.0"), p80)+svc("b", keyed+", "+requested("10.20.#.1"), p80)+svc("c", keyed+", "+requested("10.20.#.1"), p443)+
			svc("d", requested("10.20.#.9"), p80)+svc("e", requested("fd20::1"), p80+", ipFamilies: [IPv6]"), 0), "apply", "-f", "-")
	defer replicaOf(t, server, "one")()
	for name, want := range map[string]string{"a": "10.20.0.0", "b": "10.20.0.1", "c": "10.20.0.1", "d": "10.20.0.9", "e": "fd20::1"} {
		showsOn(t, server, want, "-n", "lb0", "get", "service", name, "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
	}
	c := newCalicoctl(t, server)
	c.mirror("ipamblocks", "ipamhandles", "ippools", "clusterinformations")
	for args, want := range map[string][]string{
		"show --show-blocks":  {"10.20.0.0/28 |        16 | 3 (19%)", "10.20.0.0/30 |         4 | 2 (50%)", "fd20::/126   |         4 | 1 (25%)"},
		"show --ip=10.20.0.1": {"IP 10.20.0.1 is in use", "type: LoadBalancer", "namespace: lb0", "service: b"},
		"check --show-problem-ips": {
			"IPAM block 10.20.0.0/30 affinity=virtual:load-balancer", "IPAM blocks record 4 allocations",
			"Found 0 in-use IPs that are in active IP pools but have no corresponding IPAM allocation",
			"Found 0 handles with no matching IPs (and 4 handles with matches)", "Found 0 handles mentioned in blocks with no matching handle resource",
			"Found 4 IPs that are allocated in IPAM but not actually in use", "Check complete; found 4 problems",
		},
	} {
		got := c.run(append([]string{"ipam"}, strings.Fields(args)...)...)
		for _, text := range want {
			if !strings.Contains(got, text) {
				t.Errorf("calicoctl ipam %s: no %q in\n%s", args, text, got)
			}
		}
	}
}
