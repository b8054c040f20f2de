package kind

import (
	"crypto/sha1"
	"encoding/json"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// WorkloadEndpoint is Calico's, as far as a pod tells it. It is stored nowhere.
type WorkloadEndpoint struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              WorkloadEndpointSpec `json:"spec"`
}

// WorkloadEndpointSpec has the fields that calicoctl shows.
type WorkloadEndpointSpec struct {
	Orchestrator       string        `json:"orchestrator"`
	Node               string        `json:"node"`
	Pod                string        `json:"pod"`
	Endpoint           string        `json:"endpoint"`
	ServiceAccountName string        `json:"serviceAccountName,omitempty"`
	IPNetworks         []string      `json:"ipNetworks"`
	IPNATs             []EndpointNAT `json:"ipNATs,omitempty"`
	InterfaceName      string        `json:"interfaceName"`
	Profiles           []string      `json:"profiles"`
}

// EndpointNAT is a floating address and the pod's own.
type EndpointNAT struct {
	InternalIP string `json:"internalIP"`
	ExternalIP string `json:"externalIP"`
}

// CalicoEndpoint shows a pod as Calico does; nil for one without an address of
// its own in the pod network.
func CalicoEndpoint(pod map[string]any) map[string]any {
	addrs := PodIPs(pod)
	phase := Text(pod, "status.phase", "")
	if len(addrs) == 0 || Text(pod, "spec.hostNetwork", "") == "true" || phase == "Succeeded" || phase == "Failed" {
		return nil
	}
	namespace, name, node := Text(pod, "metadata.namespace", ""), Text(pod, "metadata.name", ""), Text(pod, "spec.nodeName", "")
	account := Text(pod, "spec.serviceAccountName", "")
	var networks []any
	for _, a := range addrs {
		networks = append(networks, fmt.Sprintf("%s/%d", a, a.BitLen()))
	}
	spec := map[string]any{
		"orchestrator": "k8s", "node": node, "pod": name, "endpoint": "eth0", "ipNetworks": networks,
		"interfaceName": hostInterface(namespace, name), "profiles": []any{"kns." + namespace},
	}
	if account != "" {
		spec["serviceAccountName"] = account
		spec["profiles"] = []any{"kns." + namespace, "ksa." + namespace + "." + account}
	}
	if nats := natsOf(pod); nats != nil {
		spec["ipNATs"] = nats
	}
	return map[string]any{
		"apiVersion": GroupVersion, "kind": "WorkloadEndpoint", "spec": spec,
		"metadata": endpointMeta(pod, endpointName(node, name), namespace, account),
	}
}

func endpointMeta(pod map[string]any, name, namespace, account string) map[string]any {
	labels := map[string]any{"projectcalico.org/namespace": namespace, "projectcalico.org/orchestrator": "k8s"}
	if account != "" {
		labels["projectcalico.org/serviceaccount"] = account
	}
	own, _ := At(pod, "metadata.labels").(map[string]any)
	for k, v := range own {
		labels[k] = v
	}
	meta := map[string]any{"name": name, "namespace": namespace, "labels": labels}
	for _, f := range []string{"uid", "resourceVersion", "creationTimestamp"} {
		if v := At(pod, "metadata."+f); v != nil {
			meta[f] = v
		}
	}
	return meta
}

// endpointName is Calico's: node, orchestrator, pod and interface, with each dash
// inside them doubled.
func endpointName(node, pod string) string {
	double := strings.NewReplacer("-", "--")
	return double.Replace(node) + "-k8s-" + double.Replace(pod) + "-eth0"
}

// endpointOf takes an endpointName apart.
func endpointOf(name string) (node, pod string, ok bool) {
	const dash = "\x00"
	parts := strings.Split(strings.ReplaceAll(name, "--", dash), "-")
	if len(parts) != 4 || parts[1] != "k8s" || parts[3] != "eth0" {
		return "", "", false
	}
	return strings.ReplaceAll(parts[0], dash, "-"), strings.ReplaceAll(parts[2], dash, "-"), true
}

// hostInterface is Calico's name for the node's end of the pod's link, with the
// prefix that it has unless FelixConfiguration says another.
func hostInterface(namespace, pod string) string {
	return fmt.Sprintf("cali%x", sha1.Sum([]byte(namespace+"."+pod)))[:15]
}

// natsOf are the floating addresses that the pod asks for.
func natsOf(pod map[string]any) []any {
	annotations, _ := At(pod, "metadata.annotations").(map[string]any)
	text, _ := annotations["cni.projectcalico.org/floatingIPs"].(string)
	var floating []string
	if json.Unmarshal([]byte(text), &floating) != nil {
		return nil // its agent says what is wrong with it
	}
	var out []any
	for _, f := range floating {
		for _, a := range PodIPs(pod) {
			if a.Is4() != strings.Contains(f, ":") {
				out = append(out, map[string]any{"internalIP": a.String(), "externalIP": f})
			}
		}
	}
	return out
}
