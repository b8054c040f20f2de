package vm_test

import (
	"testing"

	"github.com/muslin-net/muslin/hack/vm/gotest"
)

// TestIPIPDevices and TestIPIPAcceptance run the IPIP tests where the kernel
// has such devices.
func TestIPIPDevices(t *testing.T) {
	t.Parallel()
	gotest.Run(t, gotest.Options{Package: "github.com/muslin-net/muslin/felix/tunnel", Tests: "IPIP", Tags: "vmtest"})
}

func TestIPIPAcceptance(t *testing.T) {
	t.Parallel()
	gotest.Run(t, gotest.Options{Package: "github.com/muslin-net/muslin/felix/acceptance", Tests: "IPIP", Tags: "vmtest"})
}
