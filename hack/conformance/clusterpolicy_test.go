package conformance

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Nothing to skip skips nothing: an empty expression would skip all.
func TestSelection(t *testing.T) {
	if got, want := selection(Options{}), "-test.run=^TestConformance$/"; got[len(got)-1] != want {
		t.Errorf("all cases: %q, want %s last", got, want)
	}
	got := selection(Options{Focus: "Gress", Skip: "SCTP"})
	for _, want := range []string{"-test.run=^TestConformance$/Gress", "-test.skip=^TestConformance$/SCTP"} {
		if !slices.Contains(got, want) {
			t.Errorf("some cases: %q, want %s", got, want)
		}
	}
}

// The image has every name that the suite's manifest asks for.
func TestClusterPolicyImages(t *testing.T) {
	dir, err := moduleDir(t.Context(), "../clusterpolicy", "sigs.k8s.io/network-policy-api")
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile(filepath.Join(dir, "conformance/base/manifests.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(manifest)) {
		if _, ref, ok := strings.Cut(line, "image: "); ok && !slices.Contains(agnhostRefs, strings.TrimSpace(ref)) {
			t.Errorf("no image %s is made", strings.TrimSpace(ref))
		}
	}
}
