package agent

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

// review keeps BGP's problems: what the cluster asks for in vain, what the node is
// asked too much of as a route reflector, and what peers announce amiss.
func (s *speech) review(speaker *gobgp.Speaker) task.Next {
	next := task.Next{After: reviewAgain}
	unmet, told := get(&s.unmet, &next.Changed), get(&s.told, &next.Changed)
	over := bgp.ReflectorLoad(told.config, s.node, speaker.Routes())
	s.pressure.Set(over)
	s.problems.set(slices.Concat(unmet, over, bgp.HeardProblems(told.config, speaker.Peers(), speaker.Odd())))
	return next
}
