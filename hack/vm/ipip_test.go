package vm_test

import (
	"testing"
	"time"

	"github.com/muslin-net/muslin/hack/vm"
	"github.com/muslin-net/muslin/hack/vm/gotest"
)

// TestIPIP runs the tests of IPIP's data plane where the kernel has such devices.
func TestIPIP(t *testing.T) {
	t.Parallel()
	gotest.Run(t, 25*time.Minute, vm.Options{},
		gotest.Suite{Package: "github.com/muslin-net/muslin/felix/tunnel", Tests: "IPIP", Tags: "vmtest"},
		gotest.Suite{Package: "github.com/muslin-net/muslin/felix/acceptance", Tests: "IPIP", Tags: "vmtest"})
}

// TestIPIPBetweenGuests has a cluster of two nodes, each in a guest of its own, whose pool
// goes to IPIP and back. make soak has it with a router, a third node and older kernels.
func TestIPIPBetweenGuests(t *testing.T) {
	t.Parallel()
	suite, o := inCluster(t, "ab")
	o.Env = append(o.Env, "MUSLIN_TEST_MODES=Always Never")
	between(t, suite, o, [2]string{"a", "b"}, [2]string{})
}
