package validate

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
)

// Pool is a pool, when it was made, and what of it something else uses.
type Pool struct {
	model.Pool
	Created time.Time
	InUse   []InUse // see Overlapping
}

// older orders pools by creation, then by name.
func older(a, b Pool) int {
	return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
}

// Overlaps gives, by name, the pools that overlap an older pool, with the name
// of the oldest pool they overlap. A pool that overlaps only pools that are
// themselves in the result is not: it does not contend with a pool in use.
func Overlaps(pools []Pool) map[string]string {
	sorted := slices.SortedFunc(slices.Values(pools), older)
	out := map[string]string{}
	inUse := sorted[:0:0]
	for _, p := range sorted {
		i := slices.IndexFunc(inUse, func(q Pool) bool { return q.CIDR.Overlaps(p.CIDR) })
		if i >= 0 {
			out[p.Name] = inUse[i].Name
			continue
		}
		inUse = append(inUse, p)
	}
	return out
}

// Verdict is what a pool's condition Allocatable says.
type Verdict struct {
	Allocatable bool
	// Reason is OK, CIDROverlap, Terminating or PoolDisabled (Calico
	// IPPool.status), or the reason of an InUse. A pool that overlaps in part
	// stays allocatable, and its reason says so.
	Reason  string
	Message string
}

// Pools gives the verdict on every pool, by name.
func Pools(pools []Pool) map[string]Verdict {
	overlaps := Overlaps(pools)
	byName := make(map[string]Pool, len(pools))
	for _, p := range pools {
		byName[p.Name] = p
	}
	out := make(map[string]Verdict, len(pools))
	for _, p := range pools {
		out[p.Name] = verdict(p, overlaps, byName)
	}
	return out
}

func verdict(p Pool, overlaps map[string]string, byName map[string]Pool) Verdict {
	switch first, overlap := overlaps[p.Name]; {
	case p.Deleting:
		return Verdict{Reason: "Terminating", Message: "the pool is being deleted; it goes when its blocks are empty"}
	case overlap:
		return Verdict{Reason: "CIDROverlap", Message: fmt.Sprintf(
			"spec.cidr: %s overlaps %s of the older IPPool %s; no address is taken from this pool: delete one of the two",
			p.CIDR, byName[first].CIDR, first)}
	case p.Disabled:
		return Verdict{Reason: "PoolDisabled", Message: "spec.disabled: no new address is taken from this pool"}
	case p.LoadBalancerOnly():
		return Verdict{Allocatable: true, Reason: "OK", Message: "addresses are given to Services of type LoadBalancer, to no pod"}
	}
	v := Verdict{Allocatable: true, Reason: "OK", Message: "addresses are taken from this pool"}
	if len(p.InUse) > 0 {
		v = overlapping(p)
	}
	return v
}

// overlapping is the verdict on a pool of which something else uses a part, or
// all.
func overlapping(p Pool) Verdict {
	v := Verdict{Allocatable: !WhollyExcluded(p.CIDR, Exclude(p.InUse)), Reason: p.InUse[0].Reason}
	rest := "no address is taken from this pool"
	if v.Allocatable {
		rest = "addresses are taken from the rest of this pool, no block from the overlap"
	}
	v.Message = fmt.Sprintf("spec.cidr: %s overlaps %s; %s: give the pool a range that nothing else uses", p.CIDR, hits(p.InUse), rest)
	return v
}
