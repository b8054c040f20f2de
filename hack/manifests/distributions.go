package manifests

import (
	"fmt"
	"strings"
)

// Overlay is a folder below manifests/overlays.
type Overlay struct {
	Name, For string
	// Differs are all fields in which its objects differ from those of the base, as
	// Differences gives them.
	Differs []string
}

const (
	agentVolumes = "DaemonSet/muslin-agent spec.template.spec.volumes."
	seedMap      = "ConfigMap/muslin-seed "
)

// fields are those of several objects: of each its name, then its fields with spaces
// between.
func fields(pairs ...string) []string {
	var out []string
	for i := 0; i < len(pairs); i += 2 {
		for _, f := range strings.Fields(pairs[i+1]) {
			out = append(out, pairs[i]+f)
		}
	}
	return out
}

// Overlays are all that there are, in the order of the docs.
var Overlays = []Overlay{
	{"no-encap", "plain routes: one subnet, or routers that learn pods by BGP", []string{seedMap + "data.pools.yaml"}},
	{"ipip-cross-subnet", "IPIP between subnets, plain routes within one", []string{seedMap + "data.pools.yaml"}},
	{"vxlan", "VXLAN everywhere: networks that pass UDP alone", []string{seedMap + "data.pools.yaml"}},
	{"route-reflector", "reflectors instead of a full mesh", []string{seedMap + "data.bgp.yaml"}},
	{"dual-stack", "IPv4 and IPv6", []string{seedMap + "data.pools.yaml"}},
	{"ipv6", "IPv6 alone", []string{seedMap + "data.pools.yaml"}},
	{"monitoring", "metrics for Prometheus on other machines, over TLS, by token", fields(
		"ClusterRole/muslin-metrics-reader ", "rules.0.nonResourceURLs.0 rules.0.verbs.0",
		"ClusterRole/muslin-metrics-review ", "rules.0.apiGroups.0 rules.0.resources.0 rules.0.verbs.0 rules.1.apiGroups.0 rules.1.resources.0 rules.1.verbs.0",
		"ClusterRoleBinding/muslin-metrics-review ", "roleRef.apiGroup roleRef.kind roleRef.name subjects.muslin-agent.kind subjects.muslin-agent.name subjects.muslin-agent.namespace subjects.muslin-controller.kind subjects.muslin-controller.name subjects.muslin-controller.namespace",
		"DaemonSet/muslin-agent ", "spec.template.spec.containers.agent.env.MUSLIN_METRICS_ADDR.name spec.template.spec.containers.agent.env.MUSLIN_METRICS_ADDR.value spec.template.spec.containers.agent.env.MUSLIN_METRICS_AUTHORIZATION.name spec.template.spec.containers.agent.env.MUSLIN_METRICS_AUTHORIZATION.value spec.template.spec.containers.agent.env.MUSLIN_METRICS_TLS.name spec.template.spec.containers.agent.env.MUSLIN_METRICS_TLS.value spec.template.spec.containers.agent.ports.metrics.containerPort spec.template.spec.containers.agent.ports.metrics.name spec.template.spec.containers.agent.ports.metrics.protocol",
		"Deployment/muslin-controller ", "spec.template.spec.containers.controller.env.MUSLIN_METRICS_ADDR.name spec.template.spec.containers.controller.env.MUSLIN_METRICS_ADDR.value spec.template.spec.containers.controller.env.MUSLIN_METRICS_AUTHORIZATION.name spec.template.spec.containers.controller.env.MUSLIN_METRICS_AUTHORIZATION.value spec.template.spec.containers.controller.env.MUSLIN_METRICS_TLS.name spec.template.spec.containers.controller.env.MUSLIN_METRICS_TLS.value spec.template.spec.containers.controller.ports.metrics.containerPort spec.template.spec.containers.controller.ports.metrics.name spec.template.spec.containers.controller.ports.metrics.protocol",
	)},
	{"seccomp", "a seccomp profile of the agent's own; docs/security.md", fields(
		"DaemonSet/muslin-agent ", "spec.template.spec.containers.agent.securityContext.seccompProfile.localhostProfile spec.template.spec.containers.agent.securityContext.seccompProfile.type",
	)},
	{"policy-relay", "the controller tells each agent the pods that its policies ask for: large clusters; docs/policy.md", fields(
		"ClusterRole/muslin-relay ", "rules.0.apiGroups.0 rules.0.resources.0 rules.0.verbs.0 rules.1.apiGroups.0 rules.1.resources.0 rules.1.verbs.0 rules.1.verbs.1 rules.2.apiGroups.0 rules.2.resources.0 rules.2.verbs.0 rules.2.verbs.1",
		"ClusterRoleBinding/muslin-relay ", "roleRef.apiGroup roleRef.kind roleRef.name subjects.muslin-controller.kind subjects.muslin-controller.name subjects.muslin-controller.namespace",
		"DaemonSet/muslin-agent ", "spec.template.spec.containers.agent.env.MUSLIN_POLICY_RELAY.name spec.template.spec.containers.agent.env.MUSLIN_POLICY_RELAY.value spec.template.spec.containers.agent.volumeMounts.relay-token.mountPath spec.template.spec.containers.agent.volumeMounts.relay-token.name spec.template.spec.containers.agent.volumeMounts.relay-token.readOnly spec.template.spec.volumes.relay-token.name spec.template.spec.volumes.relay-token.projected.sources.0.serviceAccountToken.audience spec.template.spec.volumes.relay-token.projected.sources.0.serviceAccountToken.expirationSeconds spec.template.spec.volumes.relay-token.projected.sources.0.serviceAccountToken.path",
		"Deployment/muslin-controller ", "spec.replicas spec.strategy.rollingUpdate.maxSurge spec.strategy.rollingUpdate.maxUnavailable spec.strategy.type spec.template.spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution.0.labelSelector.matchLabels.app.kubernetes.io/component spec.template.spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution.0.labelSelector.matchLabels.app.kubernetes.io/name spec.template.spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution.0.topologyKey spec.template.spec.containers.controller.env.MUSLIN_RELAY_ADDR.name spec.template.spec.containers.controller.env.MUSLIN_RELAY_ADDR.value spec.template.spec.containers.controller.env.POD_IP.name spec.template.spec.containers.controller.env.POD_IP.valueFrom.fieldRef.fieldPath spec.template.spec.containers.controller.ports.relay.containerPort spec.template.spec.containers.controller.ports.relay.name spec.template.spec.containers.controller.ports.relay.protocol",
		"Role/muslin-relay ", "rules.0.apiGroups.0 rules.0.resourceNames.0 rules.0.resources.0 rules.0.verbs.0",
		"Role/muslin-relay-publish ", "rules.0.apiGroups.0 rules.0.resourceNames.0 rules.0.resources.0 rules.0.verbs.0",
		"RoleBinding/muslin-relay ", "roleRef.apiGroup roleRef.kind roleRef.name subjects.muslin-agent.kind subjects.muslin-agent.name subjects.muslin-agent.namespace subjects.muslin-controller.kind subjects.muslin-controller.name subjects.muslin-controller.namespace",
		"RoleBinding/muslin-relay-publish ", "roleRef.apiGroup roleRef.kind roleRef.name subjects.muslin-controller.kind subjects.muslin-controller.name subjects.muslin-controller.namespace",
	)},
	{"k3s", "k3s without flannel: its pod CIDR", []string{seedMap + "data.pools.yaml"}},
	{"microk8s", "MicroK8s: the CNI directories of its snap, its pod CIDR", []string{
		seedMap + "data.pools.yaml",
		agentVolumes + "cni-bin.hostPath.path", agentVolumes + "cni-conf.hostPath.path",
	}},
}

// Distribution is a way to make a Kubernetes cluster, and what Muslin needs to know
// of it. Texts are Markdown.
type Distribution struct {
	Name    string
	Without string // how it is made without a pod network of its own
	Bin     string // where its runtime looks for CNI plugins; empty: DefaultBin
	Conf    string // and for their configuration; empty: DefaultConf
	PodCIDR string // where its pod CIDR is set, which the pool has to have
	Overlay string // empty: the base, or any of the others
	Notes   []string
}

// Where runtimes look when nothing else is said.
const (
	DefaultBin  = "/opt/cni/bin"
	DefaultConf = "/etc/cni/net.d"
)

// Distributions is the table of docs/distributions.md.
var Distributions = []Distribution{
	{
		Name: "kubeadm", Without: "it installs none", PodCIDR: "`--pod-network-cidr`",
		Notes: []string{"kube-proxy's `clusterCIDR` comes from it: give the pool the same range."},
	},
	{
		Name: "kind", Without: "`networking.disableDefaultCNI: true`", PodCIDR: "`networking.podSubnet` (10.244.0.0/16)",
		Notes: []string{
			"Load the image with `kind load image-archive dist/muslin.tar`.",
			"Nodes are containers of one bridge: a router to peer with has to be a container of network `kind`.",
		},
	},
	{
		Name: "k3s", Without: "`--flannel-backend=none --disable-network-policy`; `--disable=servicelb` if BGP announces load balancers", PodCIDR: "`--cluster-cidr` (10.42.0.0/16)",
		Overlay: "k3s",
		Notes: []string{
			"Without flannel k3s sets no CNI directories, and containerd's own hold. While flannel is on they are `/var/lib/rancher/k3s/data/cni` (older: `/var/lib/rancher/k3s/data/current/bin`) and `/var/lib/rancher/k3s/agent/etc/cni/net.d`: a node that moves from flannel has leftovers there.",
			"`--egress-selector-mode=pod` needs podCIDRs of nodes, which Muslin's blocks are not: leave it at `agent`.",
		},
	},
	{
		Name: "RKE2", Without: "`cni: none` in `/etc/rancher/rke2/config.yaml`", PodCIDR: "`cluster-cidr` (10.42.0.0/16)", Overlay: "k3s",
		Notes: []string{
			"The k3s overlay is for it too: the pod CIDR is the same.",
			"`profile: cis` enforces Pod Security: namespace muslin-system has to be exempt, or labelled privileged, as the manifests do.",
			"The chart goes into `/var/lib/rancher/rke2/server/manifests` as a HelmChart with `spec.bootstrap: true`.",
		},
	},
	{
		Name: "k0s", Without: "`spec.network.provider: custom`", PodCIDR: "`spec.network.podCIDR` (10.244.0.0/16)",
		Notes: []string{"Its own default is kube-router; a cluster that runs is not switched, k0s says, but made anew.", "Controllers without a kubelet reach pods by konnectivity."},
	},
	{
		Name: "Talos", Without: "`cluster.network.cni.name: none`", PodCIDR: "`cluster.network.podSubnets` (10.244.0.0/16)",
		Notes: []string{
			"Pod Security is enforced at baseline: the namespace's label `privileged`, which the manifests have, is needed.",
			"Pods load no kernel modules: `machine.kernel.modules` with `ipip` or `vxlan` for encapsulation.",
			"Without kube-proxy: ConfigMap `kubernetes-services-endpoint` with KubePrism, `KUBERNETES_SERVICE_HOST: localhost`, `KUBERNETES_SERVICE_PORT: \"7445\"`.",
			"There is no shell on a node: `muslin-agent cleanup` runs as a pod.",
			"`cluster.extraManifests` takes a URL of `muslin.yaml`, `cluster.inlineManifests` its text.",
		},
	},
	{
		Name: "MicroK8s", Without: "`microk8s kubectl delete -f /var/snap/microk8s/current/args/cni-network/cni.yaml`", PodCIDR: "`--cluster-cidr` in `args/kube-proxy` (10.1.0.0/16)",
		Bin: "/var/snap/microk8s/current/opt/cni/bin", Conf: "/var/snap/microk8s/current/args/cni-network", Overlay: "microk8s",
		Notes: []string{"It runs Calico with VXLAN by default; [compat](compat.md) says what of its objects has an effect in Muslin."},
	},
	{
		Name: "kOps", Without: "`spec.networking.cni: {}`", PodCIDR: "`spec.networking.podCIDR`", Overlay: "vxlan",
		Notes: []string{"On AWS the VPC learns no routes by BGP and drops what is not its own: VXLAN, or IPIP, and the source/destination check of the instances off for plain routes."},
	},
	{
		Name: "Cluster API", Without: "providers install none", PodCIDR: "`Cluster.spec.clusterNetwork.pods.cidrBlocks`",
		Notes: []string{"A ClusterResourceSet with `muslin.yaml` in a ConfigMap, or the chart by HelmChartProxy; Machines are not healthy before there is a network, so give MachineHealthCheck's `nodeStartupTimeout` time."},
	},
}

// DistributionsPage is docs/distributions.md.
func DistributionsPage() []byte {
	var b strings.Builder
	b.WriteString(pageHead)
	b.WriteString("\n## At a glance\n\n| distribution | without its own network | pod CIDR: give it to the pool | overlay |\n|---|---|---|---|\n")
	for _, d := range Distributions {
		overlay := "none needed"
		if d.Overlay != "" {
			overlay = "`manifests/overlays/" + d.Overlay + "`"
		}
		fmt.Fprintf(&b, "| [%s](#%s) | %s | %s | %s |\n", d.Name, anchor(d.Name), d.Without, d.PodCIDR, overlay)
	}
	b.WriteString("\n## Overlays\n\nEach is the base and what is listed, no more. The seed says what objects a cluster begins with\n([install](install.md#what-the-cluster-begins-with-the-seed)).\n\n| overlay | for | differs from the base in |\n|---|---|---|\n")
	for _, o := range Overlays {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", o.Name, o.For, "`"+strings.Join(o.Differs, "`, `")+"`")
	}
	for _, d := range Distributions {
		fmt.Fprintf(&b, "\n## %s\n\n- Made without its own network by: %s.\n- Pod CIDR: %s.\n", d.Name, d.Without, d.PodCIDR)
		if d.Bin != "" {
			fmt.Fprintf(&b, "- CNI plugins in `%s`, their configuration in `%s`.\n", d.Bin, d.Conf)
		}
		for _, n := range d.Notes {
			b.WriteString("- " + n + "\n")
		}
	}
	b.WriteString(pageTail)
	return []byte(b.String())
}

func anchor(title string) string { return strings.ReplaceAll(strings.ToLower(title), " ", "-") }

const pageHead = `<!-- Made by make manifests from hack/manifests/distributions.go; not written by hand. -->
# Distributions

What to turn off, which directories, which pod CIDR. Where nothing else is said, plugins are in ` + "`" + DefaultBin + "`" + `,
their configuration is in ` + "`" + DefaultConf + "`" + `, and ` + "`kubectl apply -f manifests/muslin.yaml`" + ` is the install. These are facts about
other projects, read in their documentation; the project's own tests run kubelets of kubeadm's kind alone.
`

const pageTail = `
## Other directories

The three directories of a node that a distribution may want elsewhere are volumes of the DaemonSet: ` + "`cni-bin`" + `,
` + "`cni-conf`" + ` and ` + "`state`" + `. One patch sets them together, as
[manifests/overlays/microk8s/paths.yaml](../manifests/overlays/microk8s/paths.yaml) does. ` + "`state`" + ` is read by the plugin as well, so it keeps its
path in the container: with another one set ` + "`MUSLIN_STATE`" + ` on both containers, and the mount.

## On every distribution

- TCP 179 between nodes and to their routers; UDP 4789 for VXLAN (FelixConfiguration ` + "`vxlanPort`" + `), IP protocol 4 for IPIP,
  UDP 3784 for BFD.
- NetworkManager leaves pods' links and tunnels alone with ` + "`unmanaged-devices=interface-name:cali*`" + ` in a file below
  ` + "`/etc/NetworkManager/conf.d`" + `; systemd-networkd leaves routes alone with ` + "`ManageForeignRoutes=no`" + ` in ` + "`networkd.conf`" + `.
- firewalld: pods' range in zone ` + "`trusted`" + `, and the ports above.
- OpenShift wants a certified operator and SecurityContextConstraints; Muslin has neither.
`
