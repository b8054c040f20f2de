package app

import (
	"slices"
	"time"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/bgp/gobgp"
	"github.com/muslin-net/muslin/pkg/task"
)

// reviewAgain is how often it is looked at what peers announce, and how much:
// it changes with every route.
const reviewAgain = time.Minute

// review keeps BGP's problems: what the cluster asks for in ineffective, what the node is
// requested too much of as a route reflector, and what peers announce amiss.
func (s *bgpLoop) review(speaker *gobgp.Speaker) task.Next {
	next := task.Next{After: reviewAgain}
	unmet, applied := get(&s.unmet, &next.Changed), get(&s.applied, &next.Changed)
	over := bgp.ReflectorLoad(applied.config, s.node, speaker.Routes())
	s.pressure.Set(over)
	s.problems.set(slices.Concat(unmet, over, bgp.ReceivedProblems(applied.config, speaker.Peers(), speaker.Odd())))
	return next
}
