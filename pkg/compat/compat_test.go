package compat_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/muslin-net/muslin/pkg/compat"
	"github.com/muslin-net/muslin/pkg/kube/netpol"
	v3 "github.com/muslin-net/muslin/pkg/kube/v3"
	"github.com/muslin-net/muslin/pkg/model"
)

var update = flag.Bool("update", false, "write docs/compat.md")

// specs are the types of what stands below spec.
var specs = map[string][]reflect.Type{
	"FelixConfiguration":           {reflect.TypeFor[v3.FelixConfigurationSpec]()},
	"BGPConfiguration":             {reflect.TypeFor[v3.BGPConfigurationSpec]()},
	"BGPPeer":                      {reflect.TypeFor[v3.BGPPeerSpec]()},
	"BGPFilter":                    {reflect.TypeFor[v3.BGPFilterSpec](), reflect.TypeFor[calico.BGPFilterSpec]()},
	"IPPool":                       {reflect.TypeFor[v3.IPPoolSpec]()},
	"IPReservation":                {reflect.TypeFor[calico.IPReservationSpec]()},
	"IPAMConfiguration":            {reflect.TypeFor[v3.IPAMConfigurationSpec]()},
	"ClusterInformation":           {reflect.TypeFor[calico.ClusterInformationSpec]()},
	"KubeControllersConfiguration": {reflect.TypeFor[calico.KubeControllersConfigurationSpec]()},
	"CalicoNodeStatus":             {reflect.TypeFor[calico.CalicoNodeStatusSpec]()},
	"BlockAffinity":                {reflect.TypeFor[v3.BlockAffinitySpec]()},
	"NetworkPolicy":                {reflect.TypeFor[calico.NetworkPolicySpec]()},
	"GlobalNetworkPolicy":          {reflect.TypeFor[calico.GlobalNetworkPolicySpec]()},
	"NetworkSet":                   {reflect.TypeFor[calico.NetworkSetSpec]()},
	"GlobalNetworkSet":             {reflect.TypeFor[calico.GlobalNetworkSetSpec]()},
	"HostEndpoint":                 {reflect.TypeFor[calico.HostEndpointSpec]()},
	"Tier":                         {reflect.TypeFor[calico.TierSpec]()},
}

// newerFields are of releases of Calico's after the one whose types are built in.
var newerFields = map[string][]string{"FelixConfiguration": {"liveMigrationRouteConvergenceTime", "nftablesFlowTableOffload"}}

// TestEveryFieldIsInTheTable: of the API's types, as far down as the table goes,
// and nothing that is in none of them.
func TestEveryFieldIsInTheTable(t *testing.T) {
	for name, types := range specs {
		k, ok := compat.Find("projectcalico.org", name)
		if !ok {
			t.Errorf("%s: no entry", name)
		}
		left := maps.Clone(k.Fields)
		for _, of := range types {
			for _, path := range paths(of, "", k.Fields) {
				if _, ok := k.Fields[path]; !ok {
					t.Errorf("%s: spec.%s: not in the table", name, path)
				}
				delete(left, path)
			}
		}
		for _, newer := range newerFields[name] {
			delete(left, newer)
		}
		for path := range left {
			t.Errorf("%s: spec.%s: in the table, and no field of the API", name, path)
		}
		for path, f := range k.Fields {
			if !f.Effect && f.Why == "" {
				t.Errorf("%s: spec.%s: nothing says why it has no effect", name, path)
			}
		}
	}
	k, _ := compat.Find("networking.k8s.io", "NetworkPolicy")
	for _, path := range paths(reflect.TypeFor[networking.NetworkPolicySpec](), "", k.Fields) {
		if _, ok := k.Fields[path]; !ok {
			t.Errorf("Kubernetes' NetworkPolicy: spec.%s: not in the table", path)
		}
	}
	k, _ = compat.Find("policy.networking.k8s.io", "ClusterNetworkPolicy")
	api := paths(reflect.TypeFor[netpol.ClusterPolicySpec](), "", k.Fields)
	slices.Sort(api)
	if d := cmp.Diff(slices.Sorted(maps.Keys(k.Fields)), api); d != "" {
		t.Errorf("ClusterNetworkPolicy (-table +API):\n%s", d)
	}
}

// paths gives the fields of a type by path, down to those that hold no others; what
// is below an entry without effect is told with it.
func paths(of reflect.Type, prefix string, table map[string]compat.Field) []string {
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		of = of.Elem()
	}
	var out []string
	for i := range of.NumField() {
		f := of.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		path := prefix + name
		entry, ok := table[path]
		switch {
		case name == "" && strings.Contains(options, "inline"), name == "" && f.Anonymous:
			out = append(out, paths(f.Type, prefix, table)...)
		case ok && !entry.Effect, isLeaf(f.Type):
			out = append(out, path)
		default:
			out = append(out, paths(f.Type, path+".", table)...)
		}
	}
	return out
}

// isLeaf: a value, a map, a selector of labels, or what reads its own text.
func isLeaf(of reflect.Type) bool {
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		of = of.Elem()
	}
	return of.Kind() != reflect.Struct || of == reflect.TypeFor[metav1.LabelSelector]() || reflect.PointerTo(of).Implements(reflect.TypeFor[json.Unmarshaler]())
}

// TestEveryKindIsInTheTable: of those that Calico's API registers.
func TestEveryKindIsInTheTable(t *testing.T) {
	s := runtime.NewScheme()
	if err := calico.AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	for gvk, of := range s.AllKnownTypes() {
		if gvk.Group != "projectcalico.org" || !strings.HasPrefix(of.PkgPath(), "github.com/projectcalico") || strings.HasSuffix(gvk.Kind, "List") {
			continue
		}
		if _, ok := compat.Find(gvk.Group, gvk.Kind); !ok {
			t.Errorf("%s: no entry", gvk.Kind)
		}
	}
}

func TestWhatHasNoEffectIsTold(t *testing.T) {
	for _, c := range []struct {
		object string
		want   []string
	}{
		{`{"apiVersion": "projectcalico.org/v3", "kind": "BGPConfiguration", "metadata": {"name": "default"}, "spec":
			{"asNumber": 64999, "bindMode": "NodeIP", "ignoredInterfaces": ["eth1"], "programClusterRoutes": "Enabled"}}`,
			[]string{`BGPConfiguration default: spec.ignoredInterfaces: has no effect in Muslin: no prefix of an interface is announced`}},
		{`{"apiVersion": "crd.projectcalico.org/v1", "kind": "BGPConfiguration", "metadata": {"name": "node.n1"}, "spec":
			{"asNumber": 64999, "listenPort": 1179, "bindMode": "None", "nodeMeshMaxRestartTime": "30s", "communities": [{"name": "a", "value": "1:2"}]}}`,
			[]string{
				`BGPConfiguration node.n1: spec.asNumber: has no effect here; set it on the object named default`,
				`BGPConfiguration node.n1: spec.nodeMeshMaxRestartTime: has no effect here; set it on the object named default`,
			}},
		{`{"apiVersion": "projectcalico.org/v3", "kind": "KubeControllersConfiguration", "metadata": {"name": "default"}, "spec":
			{"healthChecks": "Enabled", "etcdV3CompactionPeriod": "10m", "controllers": {"node": {"leakGracePeriod": "5m", "syncLabels": "Enabled",
			"hostEndpoint": {"autoCreate": "Enabled", "createDefaultHostEndpoint": "Enabled", "templates": [{"generateName": "a"}]}}, "policy": {}, "policyMigration": {"a": "b"}}}}`,
			[]string{
				`KubeControllersConfiguration default: spec.controllers.node.hostEndpoint.templates: has no effect in Muslin: a node gets one HostEndpoint, for all its interfaces: write others yourself`,
				`KubeControllersConfiguration default: spec.etcdV3CompactionPeriod: 10m has no effect in Muslin: etcd is the API server's`,
			}},
		{`{"apiVersion": "projectcalico.org/v3", "kind": "IPAMConfiguration", "metadata": {"name": "default"}, "spec": {"strictAffinity": true, "kubeVirtVMAddressPersistence": "Enabled"}}`,
			[]string{`IPAMConfiguration default: spec.kubeVirtVMAddressPersistence: Enabled has no effect in Muslin: a machine that starts anew gets another address; ask for one by the annotation cni.projectcalico.org/ipAddrs`}},
		{`{"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": "p", "annotations": {"cni.projectcalico.org/ipAddrs": "[]",
			"qos.projectcalico.org/ingressPacketRate": "100", "kubernetes.io/ingress-bandwidth": "1M", "cni.projectcalico.org/unheardOf": "x"}}}`,
			[]string{
				`Pod a/p: metadata.annotations[cni.projectcalico.org/unheardOf]: has no effect in Muslin: it is no annotation of this kind that Muslin knows`,
				`Pod a/p: metadata.annotations[qos.projectcalico.org/ingressPacketRate]: has no effect in Muslin: limit bandwidth by kubernetes.io/ingress-bandwidth and egress-bandwidth; packets and connections are not limited`,
			}},
		{`{"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "a", "name": "s", "annotations": {"projectcalico.org/loadBalancerIPs": "[\"192.0.2.1\"]"}}}`, nil},
		{`{"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "a", "name": "s", "annotations": {"metallb.io/address-pool": "p", "metallb.io/of-tomorrow": "x",
			"metallb.universe.tf/ip-allocated-from-pool": "p", "io.cilium/lb-ipam-ips": "192.0.2.1"}}, "spec": {"type": "LoadBalancer"}}`,
			[]string{
				`Service a/s: metadata.annotations[io.cilium/lb-ipam-ips]: has no effect in Muslin: ask for addresses by projectcalico.org/loadBalancerIPs`,
				`Service a/s: metadata.annotations[metallb.io/address-pool]: has no effect in Muslin: name IPPools by projectcalico.org/ipv4pools or ipv6pools`,
				`Service a/s: metadata.annotations[metallb.io/of-tomorrow]: has no effect in Muslin: it is another allocator's`,
			}},
		{`{"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "a", "name": "s", "annotations": {"metallb.io/address-pool": "p"}}, "spec": {"type": "ClusterIP"}}`, nil},
		{`{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "annotations": {"cni.projectcalico.org/ipv4pools": "[\"p\"]", "cni.projectcalico.org/hwAddr": "02:00:00:00:00:01"}}}`,
			[]string{`Namespace a: metadata.annotations[cni.projectcalico.org/hwAddr]: has no effect in Muslin: it is read on pods alone`}},
		{`{"apiVersion": "projectcalico.org/v3", "kind": "HostEndpoint", "metadata": {"name": "h"}, "spec": {"node": "n", "ports": [{"name": "web"}]}}`,
			[]string{`HostEndpoint h: spec.ports: has no effect in Muslin: rules that name a port do not look at those of host endpoints: write numbers there`}},
		{`{"apiVersion": "operator.tigera.io/v1", "kind": "ManagementCluster", "metadata": {"name": "m"}}`, []string{`ManagementCluster m: is of a kind that Muslin does not know`}},
		{`{"apiVersion": "policy.networking.k8s.io/v1beta1", "kind": "ClusterNetworkPolicy", "metadata": {"name": "c"}, "spec":
			{"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}],
			"egress": [{"action": "Accept", "to": [{"networks": ["10.0.0.0/8"]}, {"domainNames": ["example.org"]}]}]}}`,
			[]string{`ClusterNetworkPolicy c: spec.egress[0].to[1].domainNames: has no effect in Muslin: nothing follows the addresses of names, and the rule is closed: name networks`}},
		{`{"apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "AdminNetworkPolicy", "metadata": {"name": "a"}}`,
			[]string{`AdminNetworkPolicy a: no object of this kind has an effect in Muslin: it is of an older version of the API: write a ClusterNetworkPolicy`}},
		{`{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 1}}`, nil},
		// Deep inside what is honoured.
		{`{"apiVersion": "projectcalico.org/v3", "kind": "BGPFilter", "metadata": {"name": "f"}, "spec":
			{"exportV4": [{"action": "Accept"}, {"action": "Accept", "cidr": "10.0.0.0/8", "prefixLength": {"min": 8, "most": 9}, "operations": [{"setLocalPreference": {"value": 5}}]}]}}`,
			[]string{
				`BGPFilter f: spec.exportV4[1].operations[0].setLocalPreference: is no field that Muslin knows: it has no effect`,
				`BGPFilter f: spec.exportV4[1].prefixLength.most: is no field that Muslin knows: it has no effect`,
			}},
		{`{"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy", "metadata": {"namespace": "a", "name": "p"}, "spec":
			{"ingress": [{"action": "Allow", "metadata": {"annotations": {"a": "b"}}, "source": {"selector": "all()", "netz": ["10.0.0.0/8"]}, "icmp": {"type": 8}}]}}`,
			[]string{
				`NetworkPolicy a/p: spec.ingress[0].metadata.annotations: has no effect in Muslin: rules of the kernel bear no comments`,
				`NetworkPolicy a/p: spec.ingress[0].source.netz[0]: is no field that Muslin knows: it has no effect`,
			}},
		{`{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"namespace": "a", "name": "p"}, "spec": {"podSelector": {"matchLabels": {"a": "b"}},
			"ingress": [{"from": [{"podSelector": {}}, {"serviceSelector": {"matchLabels": {"a": "b"}}}], "ports": [{"port": "web"}]}]}}`,
			[]string{`NetworkPolicy a/p: spec.ingress[0].from[1].serviceSelector: is no field that Muslin knows: it has no effect`}},
		{`{"apiVersion": "crd.projectcalico.org/v1", "kind": "IPAMConfig", "metadata": {"name": "default"}, "spec": {"strictAffinity": true, "autoAllocateBlocks": true}}`, nil},
	} {
		var o map[string]any
		if err := json.Unmarshal([]byte(c.object), &o); err != nil {
			t.Fatal(err)
		}
		problems, _ := compat.Object(o)
		// An unknown kind of controller is of a newer API: it is told as well.
		problems = slices.DeleteFunc(problems, func(p model.Problem) bool { return strings.Contains(p.Field, "policyMigration") })
		if d := cmp.Diff(c.want, texts(problems)); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.object, d)
		}
	}
}

// TestCalicosManifests: the objects of calico.yaml and canal.yaml that are no API of
// the network: each key and variable that says something, and no other.
func TestCalicosManifests(t *testing.T) {
	for _, c := range []struct {
		object string
		want   []string
	}{
		{`{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "kube-system", "name": "calico-config"},
			"data": {"typha_service_name": "none", "calico_backend": "bird", "veth_mtu": "0"}}`, nil},
		{`{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "kube-system", "name": "other"}, "data": {"veth_mtu": "1400"}}`, nil},
		{`{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "kube-system", "name": "canal-config"},
			"data": {"typha_service_name": "calico-typha", "masquerade": "true", "veth_mtu": "1450", "of_tomorrow": "x"}}`,
			[]string{
				"ConfigMap kube-system/canal-config: data[masquerade]: true has no effect in Muslin: say natOutgoing in an IPPool",
				"ConfigMap kube-system/canal-config: data[of_tomorrow]: is no field that Muslin knows: it has no effect",
				"ConfigMap kube-system/canal-config: data[typha_service_name]: calico-typha has no effect in Muslin: there is no Typha: agents watch the API server",
				"ConfigMap kube-system/canal-config: data[veth_mtu]: 1450 has no effect in Muslin: say mtu in the CNI configuration, or mtuIfacePattern in FelixConfiguration default",
			}},
		{`{"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"namespace": "kube-system", "name": "calico-node"}, "spec": {"template": {"spec": {
			"initContainers": [{"name": "install-cni", "image": "quay.io/calico/cni:v3", "env": [
				{"name": "CNI_NETWORK_CONFIG", "valueFrom": {"configMapKeyRef": {"name": "calico-config", "key": "cni_network_config"}}}, {"name": "SLEEP", "value": "false"}]}],
			"containers": [{"name": "other", "image": "nginx", "env": [{"name": "FELIX_VXLANMTU", "value": "1"}]},
				{"name": "calico-node", "image": "quay.io/calico/node:v3", "env": [
				{"name": "DATASTORE_TYPE", "value": "kubernetes"},
				{"name": "NODENAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
				{"name": "CLUSTER_TYPE", "value": "k8s,bgp"}, {"name": "IP", "value": "autodetect"}, {"name": "IP_AUTODETECTION_METHOD", "value": "interface=eth0"},
				{"name": "CALICO_IPV4POOL_IPIP", "value": "Always"}, {"name": "FELIX_VXLANMTU", "valueFrom": {"configMapKeyRef": {"name": "calico-config", "key": "veth_mtu"}}},
				{"name": "FELIX_IPINIPMTU", "valueFrom": {"configMapKeyRef": {"name": "mine", "key": "mtu"}}},
				{"name": "FELIX_HEALTHENABLED", "value": "true"}, {"name": "FELIX_IPV6SUPPORT", "value": "false"}, {"name": "FELIX_OFTOMORROW", "value": "1"}]}]}}}}`,
			[]string{
				"DaemonSet kube-system/calico-node: spec.template.spec.initContainers[install-cni].image: quay.io/calico/cni:v3 is Calico's own program: take it away when Muslin has its place",
				"DaemonSet kube-system/calico-node: spec.template.spec.containers[calico-node].image: quay.io/calico/node:v3 is Calico's own program: take it away when Muslin has its place",
				"DaemonSet kube-system/calico-node: spec.template.spec.containers[calico-node].env[IP_AUTODETECTION_METHOD]: interface=eth0 has no effect in Muslin: say it by the annotation muslin.io/ip-autodetection-method or projectcalico.org/IPv4Address",
				"DaemonSet kube-system/calico-node: spec.template.spec.containers[calico-node].env[CALICO_IPV4POOL_IPIP]: Always has no effect in Muslin: say it in an IPPool, or let the ConfigMap muslin-seed have one",
				"DaemonSet kube-system/calico-node: spec.template.spec.containers[calico-node].env[FELIX_IPINIPMTU]: its value has no effect in Muslin: say ipipMTU in FelixConfiguration default",
				"DaemonSet kube-system/calico-node: spec.template.spec.containers[calico-node].env[FELIX_IPV6SUPPORT]: false has no effect in Muslin: both address families are always on",
				"DaemonSet kube-system/calico-node: spec.template.spec.containers[calico-node].env[FELIX_OFTOMORROW]: 1 has no effect in Muslin: it is no setting that Muslin knows",
			}},
	} {
		var o map[string]any
		if err := json.Unmarshal([]byte(c.object), &o); err != nil {
			t.Fatal(err)
		}
		problems, _ := compat.Object(o)
		if d := cmp.Diff(c.want, texts(problems)); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.object, d)
		}
	}
}

func texts(problems []model.Problem) []string {
	var out []string
	for _, p := range problems {
		out = append(out, p.String())
	}
	return out
}

// TestKeysOfCNI: Calico's own template, with its placeholders, and a plugin alone.
func TestKeysOfCNI(t *testing.T) {
	ref := model.Ref{Kind: "ConfigMap", Namespace: "kube-system", Name: "calico-config"}
	got := texts(compat.CNI(ref, []byte(`{"name": "k8s-pod-network", "cniVersion": "1.0.0", "plugins": [
		{"type": "calico", "log_level": "info", "log_file_path": "/var/log/cni.log", "datastore_type": "kubernetes", "nodename": "__KUBERNETES_NODE_NAME__",
		 "mtu": __CNI_MTU__, "ipam": {"type": "calico-ipam"}, "policy": {"type": "k8s"}, "kubernetes": {"kubeconfig": "/etc/kubeconfig"}},
		{"type": "portmap", "snat": true, "capabilities": {"portMappings": true}}]}`)))
	want := []string{
		"ConfigMap kube-system/calico-config: plugin calico.kubernetes.kubeconfig: /etc/kubeconfig has no effect in Muslin: the plugin asks the agent, and has no token",
		"ConfigMap kube-system/calico-config: plugin calico.log_file_path: /var/log/cni.log has no effect in Muslin: the agent logs, not the plugin",
		"ConfigMap kube-system/calico-config: plugin calico.log_level: info has no effect in Muslin: set MUSLIN_LOG_LEVEL in the environment of the DaemonSet",
		"ConfigMap kube-system/calico-config: plugin calico.nodename: __KUBERNETES_NODE_NAME__ has no effect in Muslin: the node is the agent's",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	got = texts(compat.CNI(model.Ref{Kind: "File", Name: "x"}, []byte(`{"type": "muslin", "mtu": 1400, "windows_use_single_network": true, "container_settings": {"allow_ip_forwarding": true}}`)))
	if d := cmp.Diff([]string{"File x: plugin muslin.windows_use_single_network: is no field that Muslin knows: it has no effect"}, got); d != "" {
		t.Error(d)
	}
	if got := compat.CNI(ref, []byte(`no JSON`)); got != nil {
		t.Error(got)
	}
}

// TestDocs: docs/compat.md is the table, and docs/configuration.md has each field
// of FelixConfiguration that has an effect.
func TestDocs(t *testing.T) {
	const file = "../../docs/compat.md"
	want := compat.Markdown()
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, string(have)); d != "" {
		t.Errorf("go test ./pkg/compat -run TestDocs -update writes it (-want +have):\n%s", d)
	}
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## FelixConfiguration\n")
	section, _, _ = strings.Cut(section, "\n## ")
	felix, _ := compat.Find("projectcalico.org", "FelixConfiguration")
	for path, f := range felix.Fields {
		name, _, _ := strings.Cut(path, ".")
		if has := strings.Contains(section, fmt.Sprintf("`%s`", name)); has != f.Effect {
			t.Errorf("FelixConfiguration %s has an effect: %t; is in docs/configuration.md: %t", name, f.Effect, has)
		}
	}
}

// TestAdvisedFieldsExist: a field of FelixConfiguration that a message or the docs
// name has an effect.
func TestAdvisedFieldsExist(t *testing.T) {
	named := regexp.MustCompile("FelixConfiguration (?:`?default`?|[a-z ]*)[:,]? ?`?spec\\.(\\w+)|`?spec\\.(\\w+)`? of FelixConfiguration")
	felix, _ := compat.Find("projectcalico.org", "FelixConfiguration")
	var files []string
	for _, root := range []string{"../../pkg", "../../felix", "../../bgp", "../../cmd", "../../docs"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && (strings.HasSuffix(path, ".md") || strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go")) {
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	found := 0
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range named.FindAllStringSubmatch(string(text), -1) {
			found++
			if name := m[1] + m[2]; !felix.Fields[name].Effect {
				t.Errorf("%s advises %s, which has no effect", path, name)
			}
		}
	}
	if found == 0 {
		t.Error("the expression finds nothing")
	}
}
