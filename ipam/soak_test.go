//go:build soak

package ipam_test

import "testing"

// TestSoakBlockAgainstModel is the long form of TestBlockAgainstModel.
func TestSoakBlockAgainstModel(t *testing.T) { againstModel(t, 1_000_000) }
