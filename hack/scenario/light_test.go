package scenario

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/muslin-net/muslin/hack/lab"
)

// lightCluster brings a lab of light nodes up for one story and takes it down
// after it, and before it what a killed test has left of the same name. The
// topology is a path from this folder.
func lightCluster(t *testing.T, ctx context.Context, name, topology string) *LightCluster {
	t.Helper()
	source, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	options := lab.Options{Name: name}
	if err := lab.Down(ctx, options); err != nil {
		t.Fatal(err)
	}
	c, err := NewLightCluster(ctx, source, topology, options, os.Stdout)
	t.Cleanup(func() {
		if err := c.Close(context.WithoutCancel(ctx)); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// chapter is one that is told after those before it, on the cluster that they
// left.
type chapter struct {
	name string
	tell func(*testing.T, context.Context)
}

// tellChapters stops at the first that fails.
func tellChapters(t *testing.T, ctx context.Context, chapters []chapter) {
	t.Helper()
	for _, c := range chapters {
		began := time.Now()
		if !t.Run(c.name, func(t *testing.T) { c.tell(t, ctx) }) {
			return
		}
		fmt.Fprintf(os.Stdout, "%-22s %7.1fs  ok\n", c.name, time.Since(began).Seconds())
	}
}
