package app

import (
	"maps"
	"net/netip"

	"github.com/muslin-net/muslin/pkg/model"
)

// tenure knows which sandbox has which address, and which addresses may have
// connections of somebody who had them before. It is as large as the addresses that the
// node's pods have had.
type tenure struct {
	owner   map[netip.Addr]string // "": it is free
	unclean map[netip.Addr]bool   // may have connections that are not its owner's
}

// newTenure takes those that pods have had since before this process.
func newTenure(pods []model.Endpoint) *tenure {
	t := &tenure{owner: map[netip.Addr]string{}, unclean: map[netip.Addr]bool{}}
	t.next(pods)
	clear(t.unclean)
	return t
}

// next takes the pods of now. Unclean are addresses that have another owner than before
// or none, and those that are seen for the first time: who had them while nobody looked
// is not known.
func (t *tenure) next(pods []model.Endpoint) {
	now := map[netip.Addr]string{}
	for _, e := range pods {
		for _, a := range e.Addresses {
			now[a] = e.ContainerID
		}
	}
	for a, was := range t.owner {
		if was != "" && now[a] != was {
			t.unclean[a] = true
		}
		t.owner[a] = now[a]
	}
	for a := range now {
		if _, seen := t.owner[a]; !seen {
			t.unclean[a] = true
		}
	}
	maps.Copy(t.owner, now)
}

// urgent reports whether a pod has an address that is unclean.
func (t *tenure) urgent() bool {
	for a := range t.unclean {
		if t.owner[a] != "" {
			return true
		}
	}
	return false
}

// unjudged notes that there is no policy, and so nothing to inherit. What is free may
// have any connection from here on.
func (t *tenure) unjudged() {
	clear(t.unclean)
	maps.DeleteFunc(t.owner, func(_ netip.Addr, owner string) bool { return owner == "" })
}
