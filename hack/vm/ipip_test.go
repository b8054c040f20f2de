package vm_test

import (
	"testing"

	"github.com/muslin-net/muslin/hack/vm/gotest"
)

// TestTunnelDevices runs the IPIP tests of felix/tunnel where the kernel has
// such devices.
func TestTunnelDevices(t *testing.T) {
	gotest.Run(t, gotest.Options{Package: "github.com/muslin-net/muslin/felix/tunnel", Tests: "IPIP"})
}
