package gobgp

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/bgp/internal/bgptest"
)

// The speaker runs out of file descriptors at the moment in which a peer
// connects. Once there are some again the peer is answered. The release's
// listener ends with the first error, and peers that this node waits for are lost.
func TestListenerOutOfFileDescriptors(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b := n.Host(1), n.Host(2)
	// BIRD listens elsewhere, so that the session is its to open.
	dead := bgptest.BIRDPeer("node", b.V4+" port 1790", 65001, a.V4, 64512, "disabled;")
	bird := b.StartBIRD(dead)
	s := startSpeaker(t, a, "")
	s.apply(desired(t, withPeer(clusterOf(a), b.V4, 65001)))
	bgptest.Eventually(t, "no way for the speaker to connect", bgptest.Contains(s.peers, "connection refused"))

	if err := unix.Prlimit(s.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: 1 << 10}, nil); err != nil {
		t.Fatal(err)
	}
	bird.Ask("enable", "node")
	bgptest.Eventually(t, "error of the listener", bgptest.Contains(s.log.String, "Failed to AcceptTCP", "too many open files"))
	if err := unix.Prlimit(s.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1 << 10, Max: 1 << 10}, nil); err != nil {
		t.Fatal(err)
	}
	if patched("0007") {
		s.established(b.V4)
	} else {
		bgptest.Steady(t, "nobody answers", 5*time.Second, bgptest.Lacks(s.peers, "Established"))
	}
}
