//go:build vmtest

package acceptance

import "testing"

func TestIPIPChangesWithoutLoss(t *testing.T) { changeUnderTraffic(t, ipip) }
