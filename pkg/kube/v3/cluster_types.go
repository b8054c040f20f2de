package v3

import (
	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// CalicoNodeStatus asks a node for its status and holds the answer.
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=caliconodestatuses
// +kubebuilder:subresource:status
// +kubebuilder:selectablefield:JSONPath=`.spec.node`
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.spec.node`
// +kubebuilder:printcolumn:name="Classes",type=string,JSONPath=`.spec.classes`
// +kubebuilder:printcolumn:name="LastUpdated",type=date,JSONPath=`.status.lastUpdated`
type CalicoNodeStatus struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              calico.CalicoNodeStatusSpec   `json:"spec"`
	Status            calico.CalicoNodeStatusStatus `json:"status,omitempty"`
}

// FelixConfiguration holds the data plane's settings of the cluster ("default")
// or of one node ("node.<name>").
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=felixconfigurations,shortName=felixconfig;felixconfigs
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type FelixConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              FelixConfigurationSpec `json:"spec,omitempty"`
	Status            ConditionsStatus       `json:"status,omitempty"`
}

// FelixConfigurationSpec is Calico's, with the routing fields that newer
// releases add.
type FelixConfigurationSpec struct {
	calico.FelixConfigurationSpec `json:",inline"`

	// IPv4NormalRoutePriority is the metric of ordinary IPv4 routes.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=2147483646
	IPv4NormalRoutePriority *int `json:"ipv4NormalRoutePriority,omitempty"`
	// IPv4ElevatedRoutePriority is the metric of preferred IPv4 routes.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=2147483646
	IPv4ElevatedRoutePriority *int `json:"ipv4ElevatedRoutePriority,omitempty"`
	// IPv6NormalRoutePriority is the metric of ordinary IPv6 routes.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=2147483646
	IPv6NormalRoutePriority *int `json:"ipv6NormalRoutePriority,omitempty"`
	// IPv6ElevatedRoutePriority is the metric of preferred IPv6 routes.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=2147483646
	IPv6ElevatedRoutePriority *int `json:"ipv6ElevatedRoutePriority,omitempty"`
	// LocalSubnetL2Reachability answers ARP and ND for pods on the node's own
	// subnet.
	// +optional
	LocalSubnetL2Reachability *string `json:"localSubnetL2Reachability,omitempty"`
}

// ClusterInformation says which cluster this is; its name is "default".
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=clusterinformations,shortName=clusterinfo;clusterinfos
// +kubebuilder:printcolumn:name="ClusterGUID",type=string,JSONPath=`.spec.clusterGUID`
// +kubebuilder:printcolumn:name="ClusterType",type=string,JSONPath=`.spec.clusterType`
// +kubebuilder:printcolumn:name="CalicoVersion",type=string,JSONPath=`.spec.calicoVersion`
// +kubebuilder:printcolumn:name="DatastoreReady",type=boolean,JSONPath=`.spec.datastoreReady`
type ClusterInformation struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              calico.ClusterInformationSpec `json:"spec,omitempty"`
}

// KubeControllersConfiguration holds the controller's settings; its name is
// "default".
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=kubecontrollersconfigurations,shortName=kubecontrollersconfig
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type KubeControllersConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              calico.KubeControllersConfigurationSpec   `json:"spec,omitempty"`
	Status            calico.KubeControllersConfigurationStatus `json:"status,omitempty"`
}
