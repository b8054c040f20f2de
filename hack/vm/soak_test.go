//go:build soak

package vm_test

import (
	"testing"
	"time"

	"github.com/muslin-net/muslin/hack/vm"
	"github.com/muslin-net/muslin/hack/vm/gotest"
)

// old is the oldest release of Debian whose kernel apt still fetches: Linux 5.10.
const old = "bullseye"

// TestSoakIPIPInOneGuest has a cluster of two nodes with a router between them in one
// guest: minutes of translated instructions.
func TestSoakIPIPInOneGuest(t *testing.T) {
	cluster, o := inCluster(t, "ac")
	o.Env = append(o.Env, "MUSLIN_TEST_NODES_HERE=ac")
	gotest.Run(t, 25*time.Minute, o, cluster)
}

// TestSoakClock has the clock of a guest with a whole cluster jump, beside that of the API
// server, which is this machine's.
func TestSoakClock(t *testing.T) {
	cluster, o := inCluster(t, "ac")
	cluster.Tests = "TestClockInACluster"
	o.Env = append(o.Env, "MUSLIN_TEST_NODES_HERE=ac")
	gotest.Run(t, 25*time.Minute, o, cluster)
}

// TestSoakIPIPBetweenGuests has the cluster in two guests: node a in one, and b, c and
// the router between them in the other, joined by a cable. Both have this machine's
// release's kernel, then the old one's.
func TestSoakIPIPBetweenGuests(t *testing.T) {
	for name, kernels := range map[string][2]string{"new": {"", ""}, "old": {old, old}, "mixed": {"", old}} {
		t.Run(name, func(t *testing.T) {
			suite, o := inCluster(t, "abc")
			between(t, suite, o, [2]string{"a", "bc"}, kernels)
		})
	}
}

// TestSoakOldKernel has the data plane's tests, whole, on the old kernel.
func TestSoakOldKernel(t *testing.T) {
	for _, room := range []string{"route", "tunnel", "link", "sysctl", "nft", "policynft", "radv", "pod", "podlink", "cleanup", "acceptance"} {
		t.Run(room, func(t *testing.T) {
			gotest.Run(t, time.Hour, vm.Options{Kernel: old, Memory: 4096},
				gotest.Suite{Package: "github.com/muslin-net/muslin/felix/" + room, Tags: "vmtest"})
		})
	}
}
