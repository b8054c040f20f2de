package lab

import (
	"context"

	"github.com/muslin-net/muslin/hack/lab/topology"
)

// MachineStatus is what Status tells of one machine.
type MachineStatus struct {
	Name string
	// Role is control plane, outside, router (with its program) or node (with
	// its kind).
	Role    string
	Rack    string // of nodes
	Address topology.Address
	// On tells whether the machine runs; PID is then its process 1, as the host
	// numbers it.
	On  bool
	PID int
	// Ready is the Kubernetes condition of nodes: True, False, Unknown, or why it
	// is not known.
	Ready string
}

// Status tells of every machine. A control plane that does not answer is seen
// in the nodes' Ready.
func (l *Lab) Status(ctx context.Context) []MachineStatus {
	ready := l.NodesReady(ctx)
	var all []MachineStatus
	for _, name := range l.Topology().Machines() {
		status := MachineStatus{Name: name, Address: l.Topology().Links(name)[0].Address}
		pid, err := l.Machine(name).PID()
		status.On, status.PID = err == nil, pid
		switch node, isNode := l.Topology().Node(name); {
		case isNode:
			status.Role, status.Rack, status.Ready = "node ("+string(node.Kind)+")", node.Rack, ready(name)
		case name == l.Topology().ControlPlane.Name:
			status.Role = "control plane"
		case name == l.Topology().Outside.Name:
			status.Role = "outside"
		default:
			status.Role = "router (" + string(l.Topology().Router(name).Kind) + ")"
		}
		all = append(all, status)
	}
	return all
}
