package vm_test

import (
	"testing"
	"time"

	"github.com/muslin-net/muslin/hack/vm"
	"github.com/muslin-net/muslin/hack/vm/gotest"
)

// TestSCTP tries policy on associations where the kernel has SCTP sockets.
func TestSCTP(t *testing.T) {
	t.Parallel()
	gotest.Run(t, 10*time.Minute, vm.Options{},
		gotest.Suite{Package: "github.com/muslin-net/muslin/felix/policynft", Tests: "SCTP", Tags: "vmtest"})
}
