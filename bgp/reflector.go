package bgp

import (
	"fmt"

	"github.com/muslin-net/muslin/pkg/model"
)

// ReflectorRecords is how many records of what was sent, clients times routes,
// a route reflector should keep at most: with as many, everything takes about
// a second to reach everybody and the agent some 90 MiB; five times as many take
// four seconds and 240 MiB on two cores
// (docs/performance.md, BenchmarkReflector).
const ReflectorRecords = 200_000

// ReasonReflectorOverloaded is the reason of ReflectorLoad's problem.
const ReasonReflectorOverloaded = "ReflectorOverloaded"

// ReflectorLoad says when a node reflects more routes to more clients than it
// should; routes is how many it has learned. It keeps working, slowly.
func ReflectorLoad(cfg Config, self model.NodeName, routes int) []model.Problem {
	clients := 0
	for _, p := range cfg.Peers {
		if p.ReflectorClient {
			clients++
		}
	}
	if clients*(routes+len(cfg.Paths)) <= ReflectorRecords {
		return nil
	}
	return []model.Problem{{
		Object: model.Ref{Kind: "Node", Name: string(self)},
		Field:  `metadata.annotations["projectcalico.org/RouteReflectorClusterID"]`,
		Reason: ReasonReflectorOverloaded,
		Message: fmt.Sprintf("a route reflector with %d clients should know at most %d routes, and this one knows more: "+
			"let more nodes be reflectors, each for a part of the nodes (BGPPeer nodeSelector), or let the routers reflect", clients, ReflectorRecords/clients),
	}}
}
