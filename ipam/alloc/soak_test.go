//go:build soak

package alloc_test

import "testing"

// TestSoakRace is the long form of TestRace.
func TestSoakRace(t *testing.T) { race(t, 32, 200_000, pool("p", "10.0.0.0/22", 26)) }

// TestSoakClusterAgainstModel is the long form of TestClusterAgainstModel.
func TestSoakClusterAgainstModel(t *testing.T) { clusterAgainstModel(t, 1_000_000) }
