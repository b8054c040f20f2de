package vm_test

import (
	"testing"
	"time"

	"github.com/muslin-net/muslin/hack/vm"
	"github.com/muslin-net/muslin/hack/vm/gotest"
)

// TestIPIP runs the tests of IPIP's data plane where the kernel has such devices. make
// soak has whole clusters, in one guest and in two.
func TestIPIP(t *testing.T) {
	t.Parallel()
	gotest.Run(t, 25*time.Minute, vm.Options{},
		gotest.Suite{Package: "github.com/muslin-net/muslin/felix/tunnel", Tests: "IPIP", Tags: "vmtest"},
		gotest.Suite{Package: "github.com/muslin-net/muslin/felix/acceptance", Tests: "IPIP", Tags: "vmtest"})
}
