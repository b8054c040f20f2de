package acceptance

import (
	"testing"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/pkg/model"
)

var vxlan = encapsulation{
	devices: []string{felix.VXLANDevice, felix.VXLANDeviceV6},
	set:     func(p *model.Pool, e model.Encap) { p.IPIP, p.VXLAN = model.EncapNever, e },
}

func TestVXLANChangesWithoutLoss(t *testing.T) { changeUnderTraffic(t, vxlan) }
