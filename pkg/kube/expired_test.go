package kube_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

// TestWatchesThatHaveExpired: each watch is resumed at a version that the server no
// longer knows the changes since, which it answers with 410 Gone; everything is listed
// anew, and what was deleted meanwhile is gone.
func TestWatchesThatHaveExpired(t *testing.T) {
	t.Parallel()
	own := kubetest.StartWithCRDs(t)
	config := own.Config()
	var away atomic.Bool
	config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if away.Load() {
			return nil, os.NewSyscallError("connect", syscall.ECONNREFUSED)
		}
		return own.Dial(ctx, network, address)
	}
	c := watchAs(t, config, kube.Options{Node: "n1"})
	only := func(name string) {
		t.Helper()
		eventually(t, c, func() string {
			s := c.Snapshot()
			if len(s.Peers) != 1 || s.Peers[0].Name != name || !s.Synced || len(c.Problems()) > 0 {
				return fmt.Sprintf("peers %v, synced %t, problems %v", s.Peers, s.Synced, c.Problems())
			}
			return ""
		})
	}
	own.MustKubectl(t, v3("BGPPeer", "round0", `{peerIP: 10.50.0.1, asNumber: 65001}`), "create", "-f", "-")
	only("round0")
	for round := 1; round <= 2; round++ {
		before, next := fmt.Sprintf("round%d", round-1), fmt.Sprintf("round%d", round)
		version := own.MustKubectl(t, "", "get", "bgppeers.projectcalico.org", "-o", "jsonpath={.items[0].metadata.resourceVersion}")
		away.Store(true)
		own.Restart(t) // ends every connection
		own.MustKubectl(t, "", "delete", "bgppeers.projectcalico.org", before)
		own.MustKubectl(t, v3("BGPPeer", next, fmt.Sprintf(`{peerIP: 10.5%d.0.1, asNumber: 65001}`, round)), "create", "-f", "-")
		own.Restart(t) // it knows the changes since now
		path := "/apis/projectcalico.org/v3/bgppeers?watch=1&timeoutSeconds=5&resourceVersion=" + strings.TrimSpace(version)
		if answer, _ := own.Kubectl("", "get", "--raw", path); !strings.Contains(answer, "410") {
			t.Errorf("a watch from version %s is answered %s", version, answer)
		}
		away.Store(false)
		only(next)
	}
}
