package v3

import (
	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// IPPool is a range of addresses for pods, tunnels or load balancers.
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=ippools,shortName=ipp
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="CIDR",type=string,JSONPath=`.spec.cidr`
// +kubebuilder:printcolumn:name="NAT",type=boolean,JSONPath=`.spec.natOutgoing`
// +kubebuilder:printcolumn:name="IPIPMode",type=string,JSONPath=`.spec.ipipMode`
// +kubebuilder:printcolumn:name="VXLANMode",type=string,JSONPath=`.spec.vxlanMode`
// +kubebuilder:printcolumn:name="Disabled",type=boolean,JSONPath=`.spec.disabled`
// +kubebuilder:printcolumn:name="DisableBGPExport",type=boolean,JSONPath=`.spec.disableBGPExport`,priority=1
// +kubebuilder:printcolumn:name="Selector",type=string,JSONPath=`.spec.nodeSelector`
// +kubebuilder:printcolumn:name="AssignmentMode",type=string,JSONPath=`.spec.assignmentMode`,priority=1
// +kubebuilder:printcolumn:name="Allocatable",type=string,JSONPath=`.status.conditions[?(@.type=="Allocatable")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type IPPool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              IPPoolSpec       `json:"spec"`
	Status            ConditionsStatus `json:"status,omitempty"`
}

// IPPoolSpec is Calico's.
type IPPoolSpec struct {
	calico.IPPoolSpec `json:",inline"`
}

// IPAMConfiguration holds the IPAM settings of the cluster; its name is "default".
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=ipamconfigurations,shortName=ipamconfig;ipamconfigs
// +kubebuilder:printcolumn:name="StrictAffinity",type=boolean,JSONPath=`.spec.strictAffinity`
// +kubebuilder:printcolumn:name="AutoAllocateBlocks",type=boolean,JSONPath=`.spec.autoAllocateBlocks`
// +kubebuilder:printcolumn:name="MaxBlocksPerHost",type=integer,JSONPath=`.spec.maxBlocksPerHost`
type IPAMConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              IPAMConfigurationSpec `json:"spec"`
}

// IPAMConfigurationSpec is Calico's, with the fields that newer releases add.
// +kubebuilder:validation:XValidation:rule="self.strictAffinity || self.autoAllocateBlocks",message="strictAffinity and autoAllocateBlocks cannot both be false: no node could get an address",fieldPath=".autoAllocateBlocks"
type IPAMConfigurationSpec struct {
	calico.IPAMConfigurationSpec `json:",inline"`

	// AutoAllocateBlocks lets a node claim a block when it needs one.
	// +kubebuilder:default=true
	AutoAllocateBlocks *bool `json:"autoAllocateBlocks"`

	// KubeVirtVMAddressPersistence keeps the address of a KubeVirt machine over
	// a restart of its pod.
	// +optional
	// +kubebuilder:validation:Enum=Enabled;Disabled
	KubeVirtVMAddressPersistence *string `json:"kubeVirtVMAddressPersistence,omitempty"`

	// IPCooldownSeconds is how long a released address rests before it is
	// handed out again.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1200
	IPCooldownSeconds *int32 `json:"ipCooldownSeconds,omitempty"`
}

// IPReservation keeps addresses from being handed out.
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=ipreservations
// +kubebuilder:printcolumn:name="CIDRs",type=string,JSONPath=`.spec.reservedCIDRs`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type IPReservation struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              calico.IPReservationSpec `json:"spec"`
}

// BlockAffinity says that a block belongs to a node.
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=blockaffinities
// +kubebuilder:selectablefield:JSONPath=`.spec.node`
// +kubebuilder:selectablefield:JSONPath=`.spec.cidr`
// +kubebuilder:printcolumn:name="CIDR",type=string,JSONPath=`.spec.cidr`
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.spec.node`
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=`.spec.state`
type BlockAffinity struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              BlockAffinitySpec `json:"spec"`
}

// BlockAffinitySpec is Calico's, with the fields that newer releases add; others
// are kept.
// +kubebuilder:pruning:PreserveUnknownFields
type BlockAffinitySpec struct {
	calico.BlockAffinitySpec `json:",inline"`

	// Type says what owns the block: a host, or something virtual such as the
	// load balancer.
	// +optional
	Type string `json:"type,omitempty"`
}

// IPAMBlock is a block of addresses and who has which. Only IPAM writes it.
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=ipamblocks
// +kubebuilder:selectablefield:JSONPath=`.spec.affinity`
// +kubebuilder:printcolumn:name="CIDR",type=string,JSONPath=`.spec.cidr`
// +kubebuilder:printcolumn:name="Affinity",type=string,JSONPath=`.spec.affinity`
type IPAMBlock struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              IPAMBlockSpec `json:"spec"`
}

// IPAMBlockSpec has the JSON of Calico's. Fields that are not named here are kept.
// +kubebuilder:pruning:PreserveUnknownFields
type IPAMBlockSpec struct {
	// CIDR of the block.
	// +kubebuilder:validation:MaxLength=43
	CIDR string `json:"cidr"`

	// Affinity is "host:<node>" or "virtual:<owner>"; absent when the block
	// belongs to nobody.
	// +optional
	// +kubebuilder:validation:Pattern=`^(host|virtual):[a-zA-Z0-9\.\-_]+$`
	Affinity *string `json:"affinity,omitempty"`

	// AffinityClaimTime is when the affinity was taken.
	// +optional
	AffinityClaimTime *metav1.Time `json:"affinityClaimTime,omitempty"`

	// Allocations has one entry for each address of the block: the index of its
	// attribute, or null when it is free.
	Allocations []*int `json:"allocations"`

	// Unallocated is the queue of free ordinals: taken from the head, returned
	// to the end.
	Unallocated []int `json:"unallocated"`

	// Attributes say who has an address.
	Attributes []AllocationAttribute `json:"attributes"`

	// SequenceNumber grows by one with every write.
	// +optional
	// +kubebuilder:default=0
	SequenceNumber int64 `json:"sequenceNumber"`

	// SequenceNumberForAllocation is the block's sequence number when the
	// ordinal was allocated.
	// +optional
	SequenceNumberForAllocation map[string]int64 `json:"sequenceNumberForAllocation,omitempty"`

	// Deleted marks a block whose deletion is under way: it counts as absent.
	// +optional
	Deleted bool `json:"deleted,omitempty"`

	// StrictAffinity is obsolete; writers set it false.
	StrictAffinity bool `json:"strictAffinity"`
}

// AllocationAttribute says who has the addresses that point at it. Fields that
// are not named here are kept.
// +kubebuilder:pruning:PreserveUnknownFields
type AllocationAttribute struct {
	// +optional
	HandleID *string `json:"handle_id,omitempty"`
	// +optional
	Secondary map[string]string `json:"secondary,omitempty"`
}

// IPAMHandle says in which blocks a handle has how many addresses.
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=ipamhandles
// +kubebuilder:printcolumn:name="ID",type=string,JSONPath=`.spec.handleID`
type IPAMHandle struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              IPAMHandleSpec `json:"spec"`
}

// IPAMHandleSpec has the JSON of Calico's. Fields that are not named here are kept.
// +kubebuilder:pruning:PreserveUnknownFields
type IPAMHandleSpec struct {
	HandleID string         `json:"handleID"`
	Block    map[string]int `json:"block"`
	// +optional
	Deleted bool `json:"deleted,omitempty"`
}
