package felix

import (
	"cmp"

	"github.com/muslin-net/muslin/pkg/model"
)

// Failsafe gives what a node's FelixConfigurations say that no policy of host endpoints
// may cut, nil where they say nothing, and the UDP port of VXLAN.
func Failsafe(s model.Snapshot, self model.NodeName) (in, out []model.FailsafePort, vxlan uint16) {
	c := settings(Input{Self: self, Snapshot: s})
	return c.FailsafeIn, c.FailsafeOut, uint16(cmp.Or(c.VXLANPort, DefaultVXLANPort))
}
