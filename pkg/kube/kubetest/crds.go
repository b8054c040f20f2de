package kubetest

import (
	"path/filepath"
	"testing"
)

// InstallCRDs applies manifests/crds and waits until the server serves them.
func (s *Server) InstallCRDs(t testing.TB) {
	t.Helper()
	if err := s.installCRDs(); err != nil {
		t.Fatal(err)
	}
}

// Install applies all of manifests, at the first call: an apply takes seconds, and
// what a test changes of them stays changed.
func (s *Server) Install(t testing.TB) {
	t.Helper()
	s.installing.Lock()
	defer s.installing.Unlock()
	if !s.installed {
		s.MustKubectl(t, "", "apply", "-k", filepath.Join(Root(), "manifests"))
		s.installed = true
	}
}

func (s *Server) installCRDs() error {
	if err := s.run("apply", "--server-side", "-k", filepath.Join(Root(), "manifests", "crds")); err != nil {
		return err
	}
	return s.run("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
}
