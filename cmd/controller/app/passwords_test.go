package app

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	rbac "k8s.io/api/rbac/v1"

	"github.com/muslin-net/muslin/pkg/model"
)

// Agents read the Secrets that BGP objects name, each once, and no other.
func TestPasswordRules(t *testing.T) {
	of := func(name string) *model.PasswordRef { return &model.PasswordRef{SecretName: name, Key: "k"} }
	s := model.Snapshot{
		BGP:   []model.BGPConfiguration{{MeshPassword: of("mesh")}, {}},
		Peers: []model.BGPPeer{{Password: of("tor")}, {}, {Password: of("mesh")}, {Password: of("border")}},
	}
	want := []rbac.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"border", "mesh", "tor"}, Verbs: []string{"get", "list", "watch"}}}
	if d := cmp.Diff(want, passwordRules(s)); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if got := passwordRules(model.Snapshot{}); len(got) != 0 {
		t.Errorf("without passwords: %v", got)
	}
}
