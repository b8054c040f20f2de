// Package pod is the pods of light nodes: network namespaces, plugged by the node's
// own CNI plugin as a kubelet's runtime would.
package pod

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/muslin-net/muslin/hack/lab/machine"
	"github.com/muslin-net/muslin/hack/lab/topology"
)

// Pod is one pod of a light node.
type Pod struct {
	Node            machine.Machine
	Namespace, Name string
}

// Add makes a network namespace called NAMESPACE-NAME on the light node and
// plugs it as the kubelet's runtime would: with the first network list in
// /etc/cni/net.d and the plugins in /opt/cni/bin of that node. It returns the
// pod's first IPv4 address, or the first address when there is none.
func (p Pod) Add(ctx context.Context) (netip.Addr, error) {
	config, list, runtime, err := p.cni(ctx)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("add pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	if _, err := p.Node.Exec(ctx, "ip", "netns", "add", p.netns()); err != nil {
		return netip.Addr{}, fmt.Errorf("add pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	result, err := config.AddNetworkList(ctx, list, runtime)
	if err != nil {
		// As the kubelet's runtime does, so that the pod may be tried again.
		undone := p.Delete(ctx)
		return netip.Addr{}, errors.Join(fmt.Errorf("add pod %s/%s on %s: %w", p.Namespace, p.Name, p.Node.Name, err), undone)
	}
	if _, err := p.Node.Exec(ctx, "ip", "-n", p.netns(), "link", "set", "lo", "up"); err != nil {
		return netip.Addr{}, fmt.Errorf("add pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	return firstAddress(result)
}

// Delete takes the pod's network down and removes its namespace. A pod that is
// not there is success, as far as the plugin agrees.
func (p Pod) Delete(ctx context.Context) error {
	config, list, runtime, err := p.cni(ctx)
	if err != nil {
		return fmt.Errorf("delete pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	if err := config.DelNetworkList(ctx, list, runtime); err != nil {
		return fmt.Errorf("delete pod %s/%s on %s: %w", p.Namespace, p.Name, p.Node.Name, err)
	}
	script := `if [ -e "$0" ]; then ip netns del "$1"; fi`
	if _, err := p.Node.Exec(ctx, "sh", "-c", script, runtime.NetNS, p.netns()); err != nil {
		return fmt.Errorf("delete pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	return nil
}

// Exec runs argv in the network of a pod made by Add.
func (p Pod) Exec(ctx context.Context, argv ...string) ([]byte, error) {
	return p.Node.Exec(ctx, append([]string{"ip", "netns", "exec", p.netns()}, argv...)...)
}

func (p Pod) netns() string { return p.Namespace + "-" + p.Name }

// cni returns what libcni needs to plug one pod of a light node.
func (p Pod) cni(ctx context.Context) (*libcni.CNIConfig, *libcni.NetworkConfigList, *libcni.RuntimeConf, error) {
	if known, ok := p.Node.Node(); !ok || known.Kind != topology.Light {
		return nil, nil, nil, fmt.Errorf("%s is not a light node", p.Node.Name)
	}
	list, err := p.networkList(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	id := p.netns()
	runtime := &libcni.RuntimeConf{
		ContainerID: id, NetNS: "/run/netns/" + id, IfName: "eth0",
		Args: [][2]string{
			{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", p.Namespace}, {"K8S_POD_NAME", p.Name}, {"K8S_POD_INFRA_CONTAINER_ID", id},
		},
	}
	cache := filepath.Join(p.Node.Dir(), "cni-cache")
	exec := &machineExec{machine: p.Node}
	return libcni.NewCNIConfigWithCacheDir([]string{"/opt/cni/bin"}, cache, exec), list, runtime, nil
}

// networkList reads the network that a runtime on the node would pick.
func (p Pod) networkList(ctx context.Context) (*libcni.NetworkConfigList, error) {
	out, err := p.Node.Exec(ctx, "find", "/etc/cni/net.d", "-name", "*.conflist")
	if err != nil {
		return nil, err
	}
	files := strings.Fields(string(out))
	slices.Sort(files)
	if len(files) == 0 {
		return nil, fmt.Errorf("no network list in /etc/cni/net.d of %s", p.Node.Name)
	}
	data, err := p.Node.Exec(ctx, "cat", files[0])
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
