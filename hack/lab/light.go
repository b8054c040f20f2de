package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sync/errgroup"

	"github.com/muslin-net/muslin/hack/lab/internal/boot"
	"github.com/muslin-net/muslin/hack/lab/topology"
)

// makeLightNode writes the disk and spec of a node that runs the agent alone.
// Its /etc/cni/net.d and /opt/cni/bin are empty: a setup program fills them.
func (l *Lab) makeLightNode(authority *authority, node topology.Node) error {
	config, err := l.kubeconfig(authority, identity{name: "muslin-light:" + node.Name, groups: []string{"system:masters"}})
	if err != nil {
		return err
	}
	fresh := []string{kubeDir, "/etc/cni", "/etc/cni/net.d", "/opt/cni", "/opt/cni/bin", "/var/lib/cni"}
	if err := l.writeDisk(node.Name, fresh, []content{l.hostsFile(), {kubeconfigFile, config}}); err != nil {
		return err
	}
	spec := l.newSpec(node.Name)
	env := append([]string{"NODE_NAME=" + node.Name, "KUBECONFIG=" + kubeconfigFile}, l.options.Light.Env...)
	programs := append([][]string{}, l.options.Light.Setup...)
	for i, argv := range programs {
		spec.Services = append(spec.Services, boot.Service{Name: fmt.Sprintf("setup-%d", i+1), Argv: argv, Env: env, Once: true})
	}
	if agent := l.options.Light.Agent; len(agent) > 0 {
		spec.Services = append(spec.Services, boot.Service{Name: "agent", Argv: agent, Env: env})
		programs = append(programs, agent)
	}
	for _, argv := range programs {
		if filepath.IsAbs(argv[0]) {
			spec.Share = append(spec.Share, filepath.Dir(argv[0]))
		}
	}
	return l.writeSpec(node.Name, spec)
}

// startLightNodes registers the light nodes, starts them, and waits until the
// keeper has made them Ready.
func (l *Lab) startLightNodes(ctx context.Context) error {
	nodes := l.topology.NodesOf(topology.Light)
	if len(nodes) == 0 {
		l.progress.note("there are none")
		return nil
	}
	api, err := l.api()
	if err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(parallel)
	var names []string
	for _, node := range nodes {
		names = append(names, node.Name)
		group.Go(func() error { return register(ctx, api, node) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return l.startMachines(ctx, names)
}

// register makes the Node object of a light node and reports it Ready once;
// the keeper goes on from there.
func register(ctx context.Context, api *apiClient, node topology.Node) error {
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
func reportReady(ctx context.Context, api *apiClient, node topology.Node) error {
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
func (l *Lab) lightKeeper() boot.Service {
	argv := []string{l.program("lab"), "keep-ready", kubeDir + "/lab"}
	for _, node := range l.topology.NodesOf(topology.Light) {
		argv = append(argv, node.Name)
	}
	return boot.Service{Name: "light-keeper", Argv: argv}
}

// KeepReady renews the leases of the named nodes, as their kubelets would,
// until the context ends. A node whose machine does not answer a ping on its
// InternalIP is left to fall NotReady.
func KeepReady(ctx context.Context, kubeconfig []byte, nodes []string, failed func(error)) error {
	api, err := newAPIClient(kubeconfig, nil)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		var group errgroup.Group
		group.SetLimit(parallel)
		for _, name := range nodes {
			group.Go(func() error {
				if err := keepReady(ctx, api, name); err != nil && ctx.Err() == nil {
					failed(err)
				}
				return nil
			})
		}
		_ = group.Wait()
		_ = sleep(ctx, nodeGracePeriod/4) // the loop asks the context
	}
	return nil
}

func keepReady(ctx context.Context, api *apiClient, name string) error {
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

func renewLease(ctx context.Context, api *apiClient, name string) error {
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

// AddPod makes a network namespace called NAMESPACE-NAME on a light node and
// plugs it as the kubelet's runtime would: with the first network list in
// /etc/cni/net.d and the plugins in /opt/cni/bin of that node. It returns the
// pod's first IPv4 address, or the first address when there is none.
func (l *Lab) AddPod(ctx context.Context, node, namespace, name string) (netip.Addr, error) {
	config, list, runtime, err := l.cni(ctx, node, namespace, name)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("add pod %s/%s: %w", namespace, name, err)
	}
	pod := podNetns(namespace, name)
	if _, err := l.Exec(ctx, node, "ip", "netns", "add", pod); err != nil {
		return netip.Addr{}, fmt.Errorf("add pod %s/%s: %w", namespace, name, err)
	}
	result, err := config.AddNetworkList(ctx, list, runtime)
	if err != nil {
		// As the kubelet's runtime does, so that the pod may be tried again.
		undone := l.DelPod(ctx, node, namespace, name)
		return netip.Addr{}, errors.Join(fmt.Errorf("add pod %s/%s on %s: %w", namespace, name, node, err), undone)
	}
	if _, err := l.Exec(ctx, node, "ip", "-n", pod, "link", "set", "lo", "up"); err != nil {
		return netip.Addr{}, fmt.Errorf("add pod %s/%s: %w", namespace, name, err)
	}
	return firstAddress(result)
}

// DelPod takes the pod's network down and removes its namespace. A pod that is
// not there is success, as far as the plugin agrees.
func (l *Lab) DelPod(ctx context.Context, node, namespace, name string) error {
	config, list, runtime, err := l.cni(ctx, node, namespace, name)
	if err != nil {
		return fmt.Errorf("delete pod %s/%s: %w", namespace, name, err)
	}
	if err := config.DelNetworkList(ctx, list, runtime); err != nil {
		return fmt.Errorf("delete pod %s/%s on %s: %w", namespace, name, node, err)
	}
	script := `if [ -e "$0" ]; then ip netns del "$1"; fi`
	pod := podNetns(namespace, name)
	if _, err := l.Exec(ctx, node, "sh", "-c", script, runtime.NetNS, pod); err != nil {
		return fmt.Errorf("delete pod %s/%s: %w", namespace, name, err)
	}
	return nil
}

// PodExec runs argv in the network of a pod made by AddPod.
func (l *Lab) PodExec(ctx context.Context, node, namespace, name string, argv ...string) ([]byte, error) {
	return l.Exec(ctx, node, append([]string{"ip", "netns", "exec", podNetns(namespace, name)}, argv...)...)
}

func podNetns(namespace, name string) string { return namespace + "-" + name }

// cni returns what libcni needs to plug one pod of a light node.
func (l *Lab) cni(ctx context.Context, node, namespace, name string) (*libcni.CNIConfig, *libcni.NetworkConfigList, *libcni.RuntimeConf, error) {
	if known, ok := l.topology.Node(node); !ok || known.Kind != topology.Light {
		return nil, nil, nil, fmt.Errorf("%s is not a light node", node)
	}
	list, err := l.networkList(ctx, node)
	if err != nil {
		return nil, nil, nil, err
	}
	id := podNetns(namespace, name)
	runtime := &libcni.RuntimeConf{
		ContainerID: id, NetNS: "/run/netns/" + id, IfName: "eth0",
		Args: [][2]string{
			{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", namespace}, {"K8S_POD_NAME", name}, {"K8S_POD_INFRA_CONTAINER_ID", id},
		},
	}
	cache := filepath.Join(l.machineDir(node), "cni-cache")
	exec := &machineExec{lab: l, machine: node}
	return libcni.NewCNIConfigWithCacheDir([]string{"/opt/cni/bin"}, cache, exec), list, runtime, nil
}

// networkList reads the network that a runtime on the node would pick.
func (l *Lab) networkList(ctx context.Context, node string) (*libcni.NetworkConfigList, error) {
	out, err := l.Exec(ctx, node, "find", "/etc/cni/net.d", "-name", "*.conflist")
	if err != nil {
		return nil, err
	}
	files := strings.Fields(string(out))
	sort.Strings(files)
	if len(files) == 0 {
		return nil, fmt.Errorf("no network list in /etc/cni/net.d of %s", node)
	}
	data, err := l.Exec(ctx, node, "cat", files[0])
	if err != nil {
		return nil, err
	}
	return libcni.NetworkConfFromBytes(data)
}

func firstAddress(result types.Result) (netip.Addr, error) {
	converted, err := current.NewResultFromResult(result)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("read CNI result: %w", err)
	}
	var first netip.Addr
	for _, ip := range converted.IPs {
		address, ok := netip.AddrFromSlice(ip.Address.IP)
		address = address.Unmap()
		if ok && address.Is4() {
			return address, nil
		}
		if ok && !first.IsValid() {
			first = address
		}
	}
	if !first.IsValid() {
		return first, errors.New("the CNI result has no address")
	}
	return first, nil
}
