package main

import "testing"

// The CRDs in manifests are those that the types and the overlays make.
func TestCRDsAreCurrent(t *testing.T) {
	if err := run("../..", true); err != nil {
		t.Error(err)
	}
}
