package app

import (
	"maps"
	"slices"

	"github.com/muslin-net/muslin/pkg/task"
)

// gates is what the agent has reached. It answers /readyz and decides the node's
// NetworkUnavailable condition.
type gates struct {
	reached task.Cell[map[string]string] // gate → empty when passed, else what it waits for
}

// The gates, in the order in which they pass.
const (
	gateCluster = "cluster-data"  // every source of cluster data has listed once
	gateKernel  = "data-plane"    // the desired state is in the kernel
	gateBGP     = "bgp-sessions"  // tables were exchanged with the peers, where there are any
	gateSocket  = "cni-socket"    // CNI requests are answered
	gateConfig  = "cni-installed" // the CNI configuration is on the node
)

func newGates(names ...string) *gates {
	reached := map[string]string{}
	for _, name := range names {
		reached[name] = "starting"
	}
	g := &gates{}
	g.reached.Set(reached)
	return g
}

// pass marks a gate as passed.
func (g *gates) pass(gate string) { g.wait(gate, "") }

// wait says what a gate waits for.
func (g *gates) wait(gate, what string) {
	g.reached.Update(func() map[string]string {
		reached := maps.Clone(g.reached.Value())
		reached[gate] = what
		return reached
	})
}

// waitFirst says what a gate waits for, unless it has passed already.
func (g *gates) waitFirst(gate, what string) {
	if g.reached.Value()[gate] != "" {
		g.wait(gate, what)
	}
}

// waiting returns what is not reached yet, sorted; empty means ready. With
// names given, only those count.
func (g *gates) waiting(names ...string) []string {
	var out []string
	for name, what := range g.reached.Value() {
		if what != "" && (len(names) == 0 || slices.Contains(names, name)) {
			out = append(out, name+": "+what)
		}
	}
	slices.Sort(out)
	return out
}
