package acceptance

import "testing"

func TestVXLANChangesWithoutLoss(t *testing.T) { changeUnderTraffic(t, vxlan) }
