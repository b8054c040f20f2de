//go:build soak

package app_test

import (
	"testing"
	"time"
)

// TestSoakAPIServerAway: ten minutes without an API server.
func TestSoakAPIServerAway(t *testing.T) { serverAway(t, 10*time.Minute) }
