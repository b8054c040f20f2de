//go:build soak

package scenario

import "testing"

const manyLight = "../lab/topologies/many-light.yaml"

// TestSoakMeshOfSixty is TestMeshAndReflectors with sixty agents.
func TestSoakMeshOfSixty(t *testing.T) { meshAndReflectors(t, manyLight, "d15") }

// TestSoakSixtyWithReflectors is TestReflectorsFromTheStart with sixty agents.
func TestSoakSixtyWithReflectors(t *testing.T) { reflectorsFromTheStart(t, manyLight) }
