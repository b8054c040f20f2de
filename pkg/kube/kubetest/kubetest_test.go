package kubetest_test

import (
	"strings"
	"testing"

	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

func TestDataOutlivesTheServer(t *testing.T) {
	s := kubetest.Start(t)
	s.MustKubectl(t, "", "create", "namespace", "kept")
	s.Restart(t)
	if out := s.MustKubectl(t, "", "get", "namespace", "kept", "-o", "name"); strings.TrimSpace(out) != "namespace/kept" {
		t.Errorf("got %q", out)
	}
}
