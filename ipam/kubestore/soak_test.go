//go:build soak

package kubestore_test

import "testing"

// TestSoakRace is the long form of TestRace.
func TestSoakRace(t *testing.T) { race(t, 200_000) }
