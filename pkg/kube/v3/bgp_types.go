package v3

import (
	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ConditionsStatus is the status of the kinds that Muslin reports on.
type ConditionsStatus struct {
	// Conditions say what Muslin makes of the object. Accepted is False, with
	// the field and the cause in its message, when part of the object could not
	// be honoured.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// BGPPeer says with whom nodes of the cluster speak BGP.
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=bgppeers,shortName=bgpp
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="PeerIP",type=string,JSONPath=`.spec.peerIP`
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.spec.node`
// +kubebuilder:printcolumn:name="ASN",type=string,JSONPath=`.spec.asNumber`
// +kubebuilder:printcolumn:name="NodeSelector",type=string,JSONPath=`.spec.nodeSelector`
// +kubebuilder:printcolumn:name="PeerSelector",type=string,JSONPath=`.spec.peerSelector`,priority=1
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type BGPPeer struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              BGPPeerSpec      `json:"spec"`
	Status            ConditionsStatus `json:"status,omitempty"`
}

// BGPPeerSpec is Calico's, with the fields that newer releases add.
type BGPPeerSpec struct {
	calico.BGPPeerSpec `json:",inline"`

	// KeepaliveTime is the time between two KEEPALIVE messages; a third of the
	// hold time when it is not set.
	// +optional
	KeepaliveTime *metav1.Duration `json:"keepaliveTime,omitempty"`
}

// BGPConfiguration holds the BGP settings of the cluster ("default") or of one
// node ("node.<name>").
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=bgpconfigurations,shortName=bgpconfig;bgpconfigs
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="LogSeverity",type=string,JSONPath=`.spec.logSeverityScreen`
// +kubebuilder:printcolumn:name="MeshEnabled",type=boolean,JSONPath=`.spec.nodeToNodeMeshEnabled`
// +kubebuilder:printcolumn:name="ASNumber",type=string,JSONPath=`.spec.asNumber`
// +kubebuilder:printcolumn:name="ListenPort",type=integer,JSONPath=`.spec.listenPort`,priority=1
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type BGPConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              BGPConfigurationSpec `json:"spec,omitempty"`
	Status            ConditionsStatus     `json:"status,omitempty"`
}

// BGPConfigurationSpec is Calico's, with the fields that newer releases add.
type BGPConfigurationSpec struct {
	calico.BGPConfigurationSpec `json:",inline"`

	// ProgramClusterRoutes says who programs the routes between nodes in
	// Calico. It is accepted and has no effect: what BGP learns is in the kernel
	// always.
	// +optional
	ProgramClusterRoutes *string `json:"programClusterRoutes,omitempty"`

	// IPv4NormalRoutePriority is the metric of ordinary IPv4 routes: LOCAL_PREF
	// is 2147483647 less it.
	// +optional
	IPv4NormalRoutePriority *int `json:"ipv4NormalRoutePriority,omitempty"`

	// IPv6NormalRoutePriority is the metric of ordinary IPv6 routes: LOCAL_PREF
	// is 2147483647 less it.
	// +optional
	IPv6NormalRoutePriority *int `json:"ipv6NormalRoutePriority,omitempty"`
}

// BGPFilter is a set of import and export rules that BGPPeers name.
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=bgpfilters
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type BGPFilter struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              BGPFilterSpec    `json:"spec,omitempty"`
	Status            ConditionsStatus `json:"status,omitempty"`
}

// BGPFilterSpec has four ordered lists; in each the first rule that matches
// decides. A route that no rule matches is accepted on import and falls to the
// default rules on export.
type BGPFilterSpec struct {
	// +optional
	// +listType=atomic
	ExportV4 []BGPFilterRule `json:"exportV4,omitempty"`
	// +optional
	// +listType=atomic
	ImportV4 []BGPFilterRule `json:"importV4,omitempty"`
	// +optional
	// +listType=atomic
	ExportV6 []BGPFilterRule `json:"exportV6,omitempty"`
	// +optional
	// +listType=atomic
	ImportV6 []BGPFilterRule `json:"importV6,omitempty"`
}

// BGPFilterRule is one rule: what is set has to match, and then action is taken.
// +kubebuilder:validation:XValidation:rule="(has(self.cidr) && self.cidr.size() > 0) == (has(self.matchOperator) && self.matchOperator.size() > 0)",message="cidr and matchOperator go together: set both or neither"
// +kubebuilder:validation:XValidation:rule="!has(self.prefixLength) || (has(self.cidr) && self.cidr.size() > 0)",message="prefixLength needs cidr"
// +kubebuilder:validation:XValidation:rule="!has(self.operations) || self.operations.size() == 0 || self.action == 'Accept'",message="operations are for action Accept only"
type BGPFilterRule struct {
	// CIDR of the rule's own family.
	// +optional
	// +kubebuilder:validation:MaxLength=43
	CIDR string `json:"cidr,omitempty"`

	// PrefixLength bounds the length of the route's prefix.
	// +optional
	PrefixLength *BGPFilterPrefixLength `json:"prefixLength,omitempty"`

	// Source RemotePeers matches routes learned from BGP.
	// +optional
	// +kubebuilder:validation:Enum=RemotePeers
	Source string `json:"source,omitempty"`

	// Interface matches the route's interface; * stands for any text.
	// +optional
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:Pattern=`^[a-zA-Z0-9_.*:@-]+$`
	Interface string `json:"interface,omitempty"`

	// PeerType matches the kind of the session.
	// +optional
	// +kubebuilder:validation:Enum=eBGP;iBGP
	PeerType string `json:"peerType,omitempty"`

	// MatchOperator says how the route's prefix is compared with cidr.
	// +optional
	// +kubebuilder:validation:Enum=Equal;NotEqual;In;NotIn
	MatchOperator string `json:"matchOperator,omitempty"`

	// Communities matches routes that carry the community.
	// +optional
	Communities *BGPFilterCommunities `json:"communities,omitempty"`

	// ASPathPrefix matches routes whose AS path begins with these numbers.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	ASPathPrefix []uint32 `json:"asPathPrefix,omitempty"`

	// Priority matches the metric of a route of this node.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=2147483646
	Priority *int `json:"priority,omitempty"`

	// Action is what happens to a route that matches.
	// +kubebuilder:validation:Enum=Accept;Reject
	Action string `json:"action"`

	// Operations change an accepted route, in order.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	Operations []BGPFilterOperation `json:"operations,omitempty"`
}

// BGPFilterPrefixLength bounds a prefix length; both ends are inclusive.
// +kubebuilder:validation:XValidation:rule="!has(self.min) || !has(self.max) || self.min <= self.max",message="min must not be greater than max"
type BGPFilterPrefixLength struct {
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=128
	Min *int `json:"min,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=128
	Max *int `json:"max,omitempty"`
}

// BGPFilterCommunities lists community values.
type BGPFilterCommunities struct {
	// Values has one standard (aa:nn) or large (aa:nn:mm) community.
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1
	Values []CommunityValue `json:"values"`
}

// CommunityValue is a standard community aa:nn, of two 16-bit numbers
// (RFC 1997), or a large community aa:nn:mm, of three 32-bit numbers (RFC 8092).
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:XValidation:rule="self.matches('^[0-9]{1,5}:[0-9]{1,5}$') ? self.split(':').all(n, int(n) <= 65535) : self.matches('^[0-9]{1,10}:[0-9]{1,10}:[0-9]{1,10}$') && self.split(':').all(n, int(n) <= 4294967295)",message="must be a community aa:nn of two 16-bit numbers or aa:nn:mm of three 32-bit numbers"
type CommunityValue string

// BGPFilterOperation is one change of a route; exactly one field is set.
// +kubebuilder:validation:XValidation:rule="(has(self.addCommunity) ? 1 : 0) + (has(self.prependASPath) ? 1 : 0) + (has(self.setPriority) ? 1 : 0) == 1",message="set exactly one of addCommunity, prependASPath, setPriority"
type BGPFilterOperation struct {
	// +optional
	AddCommunity *BGPFilterAddCommunity `json:"addCommunity,omitempty"`
	// +optional
	PrependASPath *BGPFilterPrependASPath `json:"prependASPath,omitempty"`
	// +optional
	SetPriority *BGPFilterSetPriority `json:"setPriority,omitempty"`
}

// BGPFilterAddCommunity adds a community to the route.
type BGPFilterAddCommunity struct {
	Value CommunityValue `json:"value"`
}

// BGPFilterPrependASPath puts AS numbers before the route's AS path.
type BGPFilterPrependASPath struct {
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=10
	Prefix []uint32 `json:"prefix"`
}

// BGPFilterSetPriority sets the route's metric.
type BGPFilterSetPriority struct {
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=2147483646
	Value int `json:"value"`
}
