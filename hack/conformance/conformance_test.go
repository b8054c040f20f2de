package conformance

import (
	"slices"
	"testing"

	"github.com/muslin-net/muslin/hack/lab/topology"
)

// The cases of dual stack run where there are both families.
func TestSuitesFor(t *testing.T) {
	for name, want := range map[string][]string{
		"two-racks":      {"cluster-policy", "cyclonus", "netpol", "sig-network"},
		"two-racks-v6":   {"cluster-policy", "cyclonus", "netpol", "sig-network"},
		"two-racks-dual": {"cluster-policy", "cyclonus", "dual-stack", "netpol", "sig-network"},
	} {
		read, err := topology.Read("../lab/topologies/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		if got := suitesFor(read); !slices.Equal(got, want) {
			t.Errorf("%s: suites %q, want %q", name, got, want)
		}
	}
}
