package felix

import "github.com/muslin-net/muslin/pkg/model"

// Epochs gives whether a node's FelixConfigurations have established connections evaluated again when
// policy is tightened, and the bits of their mark that this takes; 0: the default.
func Epochs(all []model.FelixConfiguration, self model.NodeName) (on bool, mask uint32) {
	c := settings(Input{Self: self, Snapshot: model.Snapshot{Felix: all}})
	return c.Established == model.ActionReevaluate, c.EpochMask
}
