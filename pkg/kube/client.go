package kube

import (
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
	corev1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// GroupVersion of the objects that Muslin shares with Calico.
var GroupVersion = schema.GroupVersion{Group: "projectcalico.org", Version: "v3"}

// The v3 kinds that are read or written here, with their resources.
var resources = map[string]string{
	"IPPool":                       "ippools",
	"BGPConfiguration":             "bgpconfigurations",
	"BGPPeer":                      "bgppeers",
	"BGPFilter":                    "bgpfilters",
	"FelixConfiguration":           "felixconfigurations",
	"BlockAffinity":                "blockaffinities",
	"IPAMBlock":                    "ipamblocks",
	"ClusterInformation":           "clusterinformations",
	"IPAMConfiguration":            "ipamconfigurations",
	"IPReservation":                "ipreservations",
	"CalicoNodeStatus":             "caliconodestatuses",
	"KubeControllersConfiguration": "kubecontrollersconfigurations",
	"NetworkPolicy":                "networkpolicies",
	"GlobalNetworkPolicy":          "globalnetworkpolicies",
	"Tier":                         "tiers",
	"NetworkSet":                   "networksets",
	"GlobalNetworkSet":             "globalnetworksets",
	"HostEndpoint":                 "hostendpoints",

	"StagedNetworkPolicy":           "stagednetworkpolicies",
	"StagedGlobalNetworkPolicy":     "stagedglobalnetworkpolicies",
	"StagedKubernetesNetworkPolicy": "stagedkubernetesnetworkpolicies",
}

// LoadConfig gives the client configuration from a kubeconfig file, or that of
// the pod's service account when kubeconfig is empty.
func LoadConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		cfg, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("read the pod's service account (set KUBECONFIG outside a pod): %w", err)
		}
		return cfg, nil
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig %s: %w", kubeconfig, err)
	}
	return cfg, nil
}

// clients are the REST clients: Kubernetes' own objects travel as protobuf, those
// of CRDs as JSON. They share connections.
type clients struct {
	core, discovery, networking, v3, crds *rest.RESTClient

	policy [len(policyVersions)]*rest.RESTClient // of each of policyVersions
}

func newClients(cfg *rest.Config) (clients, error) {
	h, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return clients{}, fmt.Errorf("make HTTP client: %w", err)
	}
	core, err := newProtobuf(cfg, h, "/api", corev1.SchemeGroupVersion,
		&corev1.Node{}, &corev1.NodeList{}, &corev1.Namespace{}, &corev1.NamespaceList{},
		&corev1.Pod{}, &corev1.PodList{}, &corev1.Secret{}, &corev1.SecretList{}, &corev1.Event{},
		&corev1.Service{}, &corev1.ServiceList{}, &corev1.ServiceAccount{}, &corev1.ServiceAccountList{})
	if err != nil {
		return clients{}, err
	}
	disco, err := newProtobuf(cfg, h, "/apis", discovery.SchemeGroupVersion, &discovery.EndpointSlice{}, &discovery.EndpointSliceList{})
	if err != nil {
		return clients{}, err
	}
	net, err := newProtobuf(cfg, h, "/apis", networking.SchemeGroupVersion,
		&networking.ServiceCIDR{}, &networking.ServiceCIDRList{}, &networking.NetworkPolicy{}, &networking.NetworkPolicyList{})
	if err != nil {
		return clients{}, err
	}
	v3, err := newJSON(cfg, h, GroupVersion, slices.Collect(maps.Keys(resources))...)
	if err != nil {
		return clients{}, err
	}
	crds, err := newJSON(cfg, h, crdVersion, crdKind)
	if err != nil {
		return clients{}, err
	}
	out := clients{core: core, discovery: disco, networking: net, v3: v3, crds: crds}
	for i, gv := range policyVersions {
		if out.policy[i], err = newJSON(cfg, h, gv, model.KindClusterPolicy); err != nil {
			return clients{}, err
		}
	}
	return out, nil
}

// newProtobuf makes a client for some types of one of Kubernetes' own groups.
func newProtobuf(cfg *rest.Config, h *http.Client, path string, gv schema.GroupVersion, kinds ...runtime.Object) (*rest.RESTClient, error) {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypes(gv, kinds...)
	metav1.AddToGroupVersion(scheme, gv)
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	c := rest.CopyConfig(cfg)
	c.GroupVersion, c.APIPath = &gv, path
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.ContentType = runtime.ContentTypeProtobuf
	c.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	client, err := rest.RESTClientForConfigAndClient(c, h)
	if err != nil {
		return nil, fmt.Errorf("make %s client: %w", gv, err)
	}
	return client, nil
}

// newJSON makes a client for some kinds of a group that CRDs define.
func newJSON(cfg *rest.Config, h *http.Client, gv schema.GroupVersion, kinds ...string) (*rest.RESTClient, error) {
	scheme := runtime.NewScheme()
	for _, kind := range kinds {
		scheme.AddKnownTypeWithName(gv.WithKind(kind), &object{})
		scheme.AddKnownTypeWithName(gv.WithKind(kind+"List"), &objectList{})
	}
	metav1.AddToGroupVersion(scheme, gv)
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	c := rest.CopyConfig(cfg)
	c.GroupVersion, c.APIPath = &gv, "/apis"
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.ContentType = runtime.ContentTypeJSON
	c.AcceptContentTypes = runtime.ContentTypeJSON
	client, err := rest.RESTClientForConfigAndClient(c, h)
	if err != nil {
		return nil, fmt.Errorf("make %s client: %w", gv, err)
	}
	return client, nil
}
