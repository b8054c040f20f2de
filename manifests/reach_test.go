package manifests_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	rbac "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

// bounds says what base/admission.yaml leaves of each write that RBAC gives the agents.
var bounds = map[string]string{
	"nodes/status":              "the own node: conditions NetworkUnavailable, RouteReflectorPressure, MuslinProblem; the addresses, tunnel addresses and drain state in its annotations",
	"events":                    "of the own node and of BGPPeers, in the own name, in namespace `default`",
	"caliconodestatuses/status": "those that ask for the own node",
	"blockaffinities":           "the own node's",
	"ipamblocks":                "blocks of the own node are made; in any block addresses that are free, and those of the own node's pods, are written; an address of a pod that another node has can be claimed by whoever names that pod; a block goes only if it is empty and nobody's",
	"ipamhandles":               "those marked as the own node's, and those marked as nobody's (of Calico and older releases): an index, which the controller counts anew",
}

// TestReachIsDocumented: docs/security.md tells what the token of an agent reaches,
// as the rules and the tables of these tests have it. UPDATE_DOCS=1 writes it.
func TestReachIsDocumented(t *testing.T) {
	const begin, end = "<!-- reach: written by manifests.TestReachIsDocumented -->\n", "<!-- end of reach -->\n"
	path := kubetest.Root() + "/docs/security.md"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	have, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", path)
	}
	want := reach(t)
	if have == want {
		return
	}
	if os.Getenv("UPDATE_DOCS") == "" {
		t.Fatalf("docs/security.md is not as it should be: UPDATE_DOCS=1 go test ./manifests -run TestReachIsDocumented\n%s", want)
	}
	if err := os.WriteFile(path, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func reach(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("\n| objects | read | write | of them |\n|---|---|---|---|\n")
	bounded := 0
	for _, rule := range agentRules(t) {
		var reads, writes []string
		for _, v := range rule.Verbs {
			if slices.Contains([]string{"get", "list", "watch"}, v) {
				reads = append(reads, v)
			} else {
				writes = append(writes, v)
			}
		}
		for _, resource := range rule.Resources {
			of := strings.Join(rule.ResourceNames, ", ")
			if bound := bounds[resource]; len(writes) > 0 {
				if bounded++; bound == "" {
					t.Errorf("agents may %s %s, and nothing says of which", strings.Join(writes, ", "), resource)
				}
				of = bound
			}
			if group := rule.APIGroups[0]; group != "" && resource == "networkpolicies" {
				resource += "." + group
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", resource, strings.Join(reads, ", "), strings.Join(writes, ", "), of)
		}
	}
	if bounded != len(bounds) {
		t.Errorf("%d kinds can be written, and bounds has %d", bounded, len(bounds))
	}
	b.WriteString("| secrets | get, list, watch |  | of namespace `muslin-system`, those that BGPPeers and BGPConfigurations name |\n")
	b.WriteString("\nTried with the token of n1's agent, and refused:\n\n| what | request |\n|---|---|\n")
	for _, c := range forbidden {
		fmt.Fprintf(&b, "| %s | %s `%s` |\n", c.what, c.method, c.path)
	}
	b.WriteString("\n")
	return b.String()
}

// agentRules reads what agent-rbac.yaml grants beside the passwords.
func agentRules(t *testing.T) (rules []rbac.PolicyRule) {
	t.Helper()
	text, err := os.ReadFile("base/agent-rbac.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range strings.Split(string(text), "\n---\n") {
		var role rbac.ClusterRole
		if err := yaml.Unmarshal([]byte(doc), &role); err != nil {
			t.Fatal(err)
		}
		rules = append(rules, role.Rules...)
	}
	return rules
}
