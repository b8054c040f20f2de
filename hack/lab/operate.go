package lab

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

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
	ready := l.nodeConditions(ctx)
	var all []MachineStatus
	for _, name := range l.topology.Machines() {
		status := MachineStatus{Name: name, Address: l.topology.Links(name)[0].Address}
		pid, err := l.initPID(name)
		status.On, status.PID = err == nil, pid
		switch node, isNode := l.topology.Node(name); {
		case isNode:
			status.Role, status.Rack, status.Ready = "node ("+string(node.Kind)+")", node.Rack, ready(name)
		case name == l.topology.ControlPlane.Name:
			status.Role = "control plane"
		case name == l.topology.Outside.Name:
			status.Role = "outside"
		default:
			status.Role = "router (" + string(l.topology.Router(name).Kind) + ")"
		}
		all = append(all, status)
	}
	return all
}

// nodeConditions asks once for all nodes.
func (l *Lab) nodeConditions(ctx context.Context) func(node string) string {
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct {
				Conditions []struct{ Type, Status string }
			}
		}
	}
	api, err := l.api()
	if err == nil {
		err = api.do(ctx, "GET", "/api/v1/nodes", nil, &list)
	}
	if err != nil {
		return func(string) string { return "no answer" }
	}
	conditions := map[string]string{}
	for _, node := range list.Items {
		for _, condition := range node.Status.Conditions {
			if condition.Type == "Ready" {
				conditions[node.Metadata.Name] = condition.Status
			}
		}
	}
	return func(node string) string {
		if status := conditions[node]; status != "" {
			return status
		}
		return "not registered"
	}
}

// PowerOff is a power cut: all processes of the machine end at once, unheard,
// and its network is gone. The disk stays.
func (l *Lab) PowerOff(ctx context.Context, machine string) error {
	if err := l.topology.Check(machine); err != nil {
		return err
	}
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := l.powerOff(ctx, machine); err != nil {
		return fmt.Errorf("power off %s: %w", machine, err)
	}
	return nil
}

// PowerOn boots a machine that is off and waits until its services are ready.
// What was not on its disk is gone: routes, rules, devices, /run and /tmp.
func (l *Lab) PowerOn(ctx context.Context, machine string) error {
	if err := l.topology.Check(machine); err != nil {
		return err
	}
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := l.initPID(machine); err == nil {
		return fmt.Errorf("power on %s: it is on", machine)
	}
	// After a crash rather than a power cut something may be left.
	if err := l.powerOff(ctx, machine); err != nil {
		return fmt.Errorf("power on %s: %w", machine, err)
	}
	if err := l.startMachines(ctx, []string{machine}); err != nil {
		return fmt.Errorf("power on %s: %w", machine, err)
	}
	return nil
}

// startMachines starts machines side by side and waits for their services.
func (l *Lab) startMachines(ctx context.Context, names []string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, name := range names {
		group.Go(func() error {
			if err := l.powerOn(name); err != nil {
				return err
			}
			return l.waitBooted(ctx, name)
		})
	}
	return group.Wait()
}
