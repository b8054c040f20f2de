//go:build soak

package scenario

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/muslin-net/muslin/hack/lab"
)

// TestSoakFamilies plays the main job on nodes with both address families, and on nodes
// with IPv6 alone: the whole matrix, Services included, and the routers' tables.
func TestSoakFamilies(t *testing.T) {
	source, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for topology, families := range map[string]int{"two-racks-dual": 2, "two-racks-v6": 1} {
		t.Run(topology, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), Timeout)
			defer cancel()
			options := lab.Options{Name: "msoak"}
			clean := func() {
				if err := lab.Down(context.WithoutCancel(ctx), options); err != nil {
					t.Errorf("lab down: %v", err)
				}
			}
			clean()
			t.Cleanup(clean)
			c, report, err := MainJob(ctx, MainJobOptions{
				Lab: options, Topology: filepath.Join(source, "hack/lab/topologies", topology+".yaml"), Source: source, Out: os.Stdout,
			})
			t.Log(report)
			if err != nil {
				t.Fatal(err)
			}
			kinds := map[string]bool{}
			for _, try := range report.Tries {
				kinds[try.Kind] = true
			}
			if len(kinds) != 8*families || c.families() != families {
				t.Errorf("the matrix has %d kinds of connections, want 8 a family: %v", len(kinds), kinds)
			}
		})
	}
}
