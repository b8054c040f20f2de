package vm_test

import (
	"testing"
	"time"

	"github.com/muslin-net/muslin/hack/vm/gotest"
)

// TestIPIP runs the tests of IPIP where the kernel has such devices: a cluster of two
// nodes with a router between them, in one guest, then the data plane by itself. make
// soak has a cluster in two guests.
func TestIPIP(t *testing.T) {
	t.Parallel()
	cluster, o := inCluster(t, "ac")
	o.Env = append(o.Env, "MUSLIN_TEST_NODES_HERE=ac")
	gotest.Run(t, 25*time.Minute, o, cluster,
		gotest.Suite{Package: "github.com/muslin-net/muslin/felix/tunnel", Tests: "IPIP", Tags: "vmtest"},
		gotest.Suite{Package: "github.com/muslin-net/muslin/felix/acceptance", Tests: "IPIP", Tags: "vmtest"})
}
