package kube

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/muslin-net/muslin/felix/nodeview/kernel"
	"github.com/muslin-net/muslin/hack/lab/internal/boot"
	"github.com/muslin-net/muslin/hack/lab/internal/wait"
	"github.com/muslin-net/muslin/hack/lab/machine"
	"github.com/muslin-net/muslin/hack/lab/topology"
	"github.com/muslin-net/muslin/pkg/task"
)

// Light says what runs on light nodes. The environment of all programs
// holds NODE_NAME and KUBECONFIG.
type Light struct {
	// Setup programs run once at each boot, one after the other, before Agent;
	// such as one that installs the CNI plugin.
	Setup [][]string
	// Agent is the argv of the agent; empty runs none.
	Agent []string
	// Env is added to the environment, as KEY=value.
	Env []string
}

// lightNode writes the disk and spec of a node that runs the agent alone.
// Its /etc/cni/net.d and /opt/cni/bin are empty: a setup program fills them.
func (d *disks) lightNode(node topology.Node) error {
	config, err := d.kubeconfig(identity{name: "muslin-light:" + node.Name, groups: []string{"system:masters"}})
	if err != nil {
		return err
	}
	fresh := []string{kubeDir, "/etc/cni", "/etc/cni/net.d", "/opt/cni", "/opt/cni/bin", "/var/lib/cni"}
	m := d.site.Machine(node.Name)
	if err := m.WriteDisk(fresh, map[string]string{machine.Kubeconfig: config}); err != nil {
		return err
	}
	spec := m.Spec()
	env := append([]string{"NODE_NAME=" + node.Name, "KUBECONFIG=" + machine.Kubeconfig}, d.light.Env...)
	programs := append([][]string{}, d.light.Setup...)
	for i, argv := range programs {
		spec.Services = append(spec.Services, boot.Service{Name: fmt.Sprintf("setup-%d", i+1), Argv: argv, Env: env, Once: true})
	}
	if agent := d.light.Agent; len(agent) > 0 {
		spec.Services = append(spec.Services, boot.Service{Name: "agent", Argv: agent, Env: env})
		programs = append(programs, agent)
	}
	for _, argv := range programs {
		if filepath.IsAbs(argv[0]) {
			spec.Share = append(spec.Share, filepath.Dir(argv[0]))
		}
	}
	return m.Make(spec)
}

// register makes the Node object of a light node and reports it Ready once;
// the keeper goes on from there.
func register(ctx context.Context, api *client, node topology.Node) error {
	object := map[string]any{
		"apiVersion": "v1", "kind": "Node",
		"metadata": map[string]any{"name": node.Name, "labels": nodeLabels(node)},
		// Pods that the scheduler would place here have nobody to run them.
		"spec": map[string]any{"taints": []any{map[string]any{"key": LabelLight, "effect": "NoSchedule"}}},
	}
	if err := api.do(ctx, "POST", "/api/v1/nodes", object, nil); err != nil && apiStatus(err) != 409 {
		return fmt.Errorf("register node %s: %w", node.Name, err)
	}
	return reportReady(ctx, api, node)
}

// reportReady writes the addresses and the Ready condition of a light node and
// leaves its other conditions alone.
func reportReady(ctx context.Context, api *client, node topology.Node) error {
	addresses := []any{map[string]any{"type": "InternalIP", "address": node.Address.V4.String()}}
	if node.Address.V6.IsValid() {
		addresses = append(addresses, map[string]any{"type": "InternalIP", "address": node.Address.V6.String()})
	}
	now := time.Now().UTC().Format(time.RFC3339)
	status := map[string]any{
		"addresses": append(addresses, map[string]any{"type": "Hostname", "address": node.Name}),
		"conditions": []any{map[string]any{
			"type": "Ready", "status": "True", "reason": "LabLightNode", "message": "kept ready by the lab",
			"lastHeartbeatTime": now, "lastTransitionTime": now,
		}},
	}
	body := map[string]any{"status": status}
	if err := api.patchStrategic(ctx, "/api/v1/nodes/"+node.Name+"/status", body); err != nil {
		return fmt.Errorf("report node %s ready: %w", node.Name, err)
	}
	return nil
}

// lightKeeper is the service that plays the kubelets' heartbeat.
func (d *disks) lightKeeper() boot.Service {
	argv := []string{d.site.Program("lab"), "keep-ready", kubeDir + "/lab"}
	return boot.Service{Name: "light-keeper", Argv: append(argv, d.topology.NodesOf(topology.Light)...)}
}

// KeepReady renews the leases of the named nodes, as their kubelets would,
// until the context ends. A node whose machine does not answer a ping on its
// InternalIP is left to fall NotReady.
func KeepReady(ctx context.Context, kubeconfig []byte, nodes []string, failed func(error)) error {
	api, err := newClient(kubeconfig, nil)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		_ = task.Each(machine.Parallel, nodes, func(name string) error {
			if err := keepReady(ctx, api, name); err != nil && ctx.Err() == nil {
				failed(err)
			}
			return nil
		})
		_ = wait.Sleep(ctx, nodeGracePeriod/4) // the loop asks the context
	}
	return nil
}

func keepReady(ctx context.Context, api *client, name string) error {
	var object struct {
		Status struct {
			Addresses  []struct{ Type, Address string }
			Conditions []struct{ Type, Status string }
		}
	}
	registered, err := api.get(ctx, "/api/v1/nodes/"+name, &object)
	if err != nil || !registered {
		return err
	}
	node := topology.Node{Name: name}
	for _, entry := range object.Status.Addresses {
		address, err := netip.ParseAddr(entry.Address)
		if err != nil || entry.Type != "InternalIP" {
			continue
		}
		if address.Is4() {
			node.Address.V4 = address
		} else {
			node.Address.V6 = address
		}
	}
	if !node.Address.V4.IsValid() || !alive(ctx, node.Address.V4) {
		return nil
	}
	for _, condition := range object.Status.Conditions {
		if condition.Type == "Ready" && condition.Status != "True" {
			if err := reportReady(ctx, api, node); err != nil {
				return err
			}
		}
	}
	return renewLease(ctx, api, name)
}

// alive tells whether the address answers one of four ICMP echo requests within a second each.
func alive(ctx context.Context, address netip.Addr) bool {
	const size = 84 // of ping, by default
	for range 2 {   // of two requests each
		if kernel.Echo(ctx, address, netip.Addr{}, size).OK {
			return true
		}
	}
	return false
}

func renewLease(ctx context.Context, api *client, name string) error {
	const leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
	spec := map[string]any{
		"holderIdentity":       name,
		"leaseDurationSeconds": int(nodeGracePeriod / time.Second),
		"renewTime":            time.Now().UTC().Format("2006-01-02T15:04:05.000000Z"),
	}
	err := api.do(ctx, "PATCH", leases+"/"+name, map[string]any{"spec": spec}, nil)
	if apiStatus(err) == 404 {
		err = api.do(ctx, "POST", leases, map[string]any{"metadata": map[string]any{"name": name}, "spec": spec}, nil)
	}
	return err
}
