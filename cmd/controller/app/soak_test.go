//go:build soak

package app

import "testing"

// TestSoakController holds the controller to its memory beside 100,000 pods on
// 3,334 nodes, each with an address and a handle.
func TestSoakController(t *testing.T) {
	const pods = 100_000
	s, program := populate(t, pods)
	m := runBeside(t, s, program, pods)
	t.Logf("%d pods: %.0f MB at most, %.0f MB at rest, first survey after %s", pods, m.peak, m.end, m.firstSurvey)
	if m.peak > mostMemory {
		t.Errorf("the controller had %.0f MB; its bound is %d", m.peak, mostMemory)
	}
}
