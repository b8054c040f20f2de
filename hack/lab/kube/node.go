package kube

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/muslin-net/muslin/hack/lab/internal/boot"
	"github.com/muslin-net/muslin/hack/lab/machine"
	"github.com/muslin-net/muslin/hack/lab/topology"
)

const containerdConfig = `version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + PauseImage + `"
  # Where the lab lacks CAP_SYS_RESOURCE, no sandbox could lower its score.
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
`

const containerdSocket = "/run/containerd/containerd.sock"

// kubeletSysctls are machine-wide values that the kubelet insists on. It is
// shown them; the host keeps its own.
var kubeletSysctls = map[string]string{
	"vm/overcommit_memory": "1", "vm/panic_on_oom": "0",
	"kernel/panic": "10", "kernel/panic_on_oops": "1",
	"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
}

// fullNode writes the disk and spec of a node with kubelet, containerd and
// kube-proxy. Its /etc/cni/net.d is empty: the pod network comes as a DaemonSet.
func (d *disks) fullNode(node topology.Node) error {
	kubelet, err := d.kubeconfig(identity{name: "system:node:" + node.Name, groups: []string{"system:nodes"}})
	if err != nil {
		return err
	}
	proxy, err := d.kubeconfig(identity{name: "system:kube-proxy"})
	if err != nil {
		return err
	}
	kubeletConfig, err := toYAML(d.kubeletConfig(node))
	if err != nil {
		return err
	}
	proxyConfig, err := toYAML(proxyConfig(node))
	if err != nil {
		return err
	}
	fresh := []string{kubeDir, "/etc/cni", "/etc/cni/net.d", "/opt/cni", "/opt/cni/bin", "/var/lib/cni", "/var/log/pods", "/var/log/containers", "/etc/containerd"}
	files := map[string]string{
		kubeDir + "/ca.crt":           string(d.authority.certPEM),
		machine.Kubeconfig:            kubelet,
		kubeDir + "/kubelet.yaml":     kubeletConfig,
		kubeDir + "/proxy.kubeconfig": proxy,
		kubeDir + "/proxy.yaml":       proxyConfig,
		"/etc/containerd/config.toml": containerdConfig,
	}
	m := d.site.Machine(node.Name)
	if err := m.WriteDisk(fresh, files); err != nil {
		return err
	}
	spec := m.Spec()
	spec.Sysctls = kubeletSysctls
	spec.Bind = map[string]string{
		// Snapshots of an overlay cannot lie on an overlay.
		filepath.Join(m.Dir(), "containerd"): "/var/lib/containerd",
		filepath.Join(m.Dir(), "kubelet"):    "/var/lib/kubelet",
	}
	spec.Services = d.fullNodeServices(node)
	return m.Make(spec)
}

func (d *disks) fullNodeServices(node topology.Node) []boot.Service {
	kubelab := d.site.Program("kubelab")
	importAll := `set -e; for archive in "$0"/*.tar; do ctr -n k8s.io images import "$archive"; done`
	var addresses []string
	for _, a := range node.Address.All() {
		addresses = append(addresses, a.String())
	}
	return []boot.Service{
		{Name: "cni-plugins", Argv: []string{"sh", "-c", "cp /usr/lib/cni/* /opt/cni/bin/"}, Once: true},
		{Name: "containerd", Argv: []string{"containerd", "--config", "/etc/containerd/config.toml"}, Socket: containerdSocket},
		{Name: "images", Argv: []string{"sh", "-c", importAll, d.site.ImageDir()}, Once: true},
		{Name: "kubelet", Argv: []string{
			kubelab, "kubelet", "--config=" + kubeDir + "/kubelet.yaml", "--kubeconfig=" + machine.Kubeconfig,
			"--hostname-override=" + node.Name, "--node-ip=" + strings.Join(addresses, ","),
			"--node-labels=" + joinLabels(nodeLabels(node)), "--v=2",
		}, Env: seldomCollected},
		{Name: "kube-proxy", Argv: []string{kubelab, "kube-proxy", "--config=" + kubeDir + "/proxy.yaml", "--v=2"}, Env: seldomCollected},
	}
}

// Labels of every node, beside the kubelet's own.
const (
	LabelRack  = "rack"
	LabelZone  = "topology.kubernetes.io/zone"
	LabelLight = "muslin-lab/light" // on light nodes alone
)

func nodeLabels(node topology.Node) map[string]string {
	labels := map[string]string{LabelRack: node.Rack, LabelZone: node.Rack}
	if node.Kind == topology.Light {
		labels[LabelLight] = "true"
	}
	return labels
}

func joinLabels(labels map[string]string) string {
	var all []string
	for key, value := range labels {
		all = append(all, key+"="+value)
	}
	return strings.Join(all, ",")
}

func (d *disks) kubeletConfig(node topology.Node) map[string]any {
	return map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"address":                  anyAddress(d.topology.Core.V6.IsValid()),
		"failCgroupV1":             false,
		"cgroupDriver":             "cgroupfs",
		"cgroupRoot":               "/" + d.site.Fabric.Netns(node.Name),
		"containerRuntimeEndpoint": "unix://" + containerdSocket,
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false},
			"webhook":   map[string]any{"enabled": true},
			"x509":      map[string]any{"clientCAFile": kubeDir + "/ca.crt"},
		},
		"authorization":               map[string]any{"mode": "Webhook"},
		"failSwapOn":                  false,
		"maxOpenFiles":                16384,
		"clusterDomain":               "cluster.local",
		"clusterDNS":                  []string{dns(d.topology).String()},
		"imageGCHighThresholdPercent": 100,
		"evictionHard":                map[string]any{"memory.available": "100Mi"},
		"nodeLeaseDurationSeconds":    int(nodeGracePeriod / time.Second),
		"nodeStatusUpdateFrequency":   "5s",
		"syncFrequency":               "10s",
		"shutdownGracePeriod":         "0s",
		// A pod that dies comes back soon: tests kill them on purpose.
		"crashLoopBackOff": map[string]any{"maxContainerRestartPeriod": "2s"},
	}
}

// proxyConfig turns off what would change machine-wide connection tracking.
func proxyConfig(node topology.Node) map[string]any {
	return map[string]any{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
		"mode":             "nftables",
		"hostnameOverride": node.Name,
		"clientConnection": map[string]any{"kubeconfig": kubeDir + "/proxy.kubeconfig"},
		"conntrack": map[string]any{
			"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
		},
	}
}
