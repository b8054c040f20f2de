package app

import (
	"maps"
	"net/netip"

	"github.com/muslin-net/muslin/pkg/model"
)

// tenure knows which sandbox has which address, "" where one had it before. It is as
// large as the addresses that the node's pods have had.
type tenure map[netip.Addr]string

// newTenure takes those that pods have had since before this process.
func newTenure(pods []model.Endpoint) tenure {
	t := tenure{}
	t.next(pods)
	return t
}

// next takes the pods of now, and gives the addresses that have another owner than
// before or none, and those that are seen for the first time: who had them while
// nobody looked is not known.
func (t tenure) next(pods []model.Endpoint) (changed []netip.Addr) {
	now := map[netip.Addr]string{}
	for _, e := range pods {
		for _, a := range e.Addresses {
			now[a] = e.ContainerID
		}
	}
	for a, was := range t {
		if was != "" && now[a] != was {
			changed = append(changed, a)
		}
		t[a] = now[a]
	}
	for a := range now {
		if _, seen := t[a]; !seen {
			changed = append(changed, a)
		}
	}
	maps.Copy(t, now)
	return changed
}
