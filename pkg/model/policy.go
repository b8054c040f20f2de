package model

import (
	"bytes"
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// PolicyView is what network policy is decided from, as far as a node knows the
// cluster at one moment. It is a value: nobody changes it. Slices are sorted by
// name, so that equal clusters give equal views.
type PolicyView struct {
	// Synced is true once everything below has been listed that Policies may ask for.
	// A view that is not synced decides nothing.
	Synced bool
	// Revision is another one whenever anything but Pods is; 0: nobody counts.
	Revision uint64
	Tiers    []Tier
	Policies Sorted[*Policy]
	// Of are the namespaces whose policies are all among Policies; nil: all are. A pod of the
	// node in another namespace is as one that is not known.
	Of map[string]bool
	// More: there are policies of namespaces that are not in Of.
	More bool
	Pods Sorted[*PolicyPod]
	// Namespaces and ServiceAccounts ("namespace/name") have the labels of each.
	Namespaces, ServiceAccounts map[string]map[string]string
	NetworkSets                 []NetworkSet
	HostEndpoints               []HostEndpoint // of all nodes
	// Services ("namespace/name") are those that policies name, with what serves
	// them, ready or not; sorted.
	Services map[string][]ServiceEndpoint
	// Nodes are all of the cluster if a policy names any, else none.
	Nodes []PolicyNode
	// Felix are an agent's FelixConfigurations, as in Snapshot.
	Felix []FelixConfiguration
}

// PolicyNode is a node as policies see it.
type PolicyNode struct {
	Name      NodeName
	Labels    map[string]string
	Addresses []netip.Addr // status.addresses, of every type that is an address
}

// ServiceEndpoint is an address and a port that serve a service.
type ServiceEndpoint struct {
	Addr     netip.Addr
	Protocol uint8 // IP protocol number; 0: no port, the address alone
	Port     uint16
}

// Compare orders by address, protocol, port.
func (e ServiceEndpoint) Compare(o ServiceEndpoint) int {
	return cmp.Or(e.Addr.Compare(o.Addr), cmp.Compare(e.Protocol, o.Protocol), cmp.Compare(e.Port, o.Port))
}

// The tiers that always exist, and the order of Kubernetes' NetworkPolicies in
// DefaultTier.
const (
	AdminTier    = "kube-admin"
	DefaultTier  = "default"
	BaselineTier = "kube-baseline"

	AdminTierOrder        = 1_000
	DefaultTierOrder      = 1_000_000
	BaselineTierOrder     = 10_000_000
	KubernetesPolicyOrder = 1_000
)

// Tier is an ordered list of policies (Calico Tier).
type Tier struct {
	Name  string
	Order float64 // NoOrder: after all that have one
	Pass  bool    // defaultAction: Pass; else Deny
}

// builtin are the tiers that exist whether or not they have an object, and that no
// object can change.
var builtin = [...]Tier{
	{Name: AdminTier, Order: AdminTierOrder, Pass: true},
	{Name: DefaultTier, Order: DefaultTierOrder},
	{Name: BaselineTier, Order: BaselineTierOrder, Pass: true},
}

// BuiltinTiers gives the tiers that always exist, in order.
func BuiltinTiers() []Tier { return slices.Clone(builtin[:]) }

// BuiltinTier reports whether a tier always exists.
func BuiltinTier(name string) bool {
	return name == AdminTier || name == DefaultTier || name == BaselineTier
}

// NoOrder is the order of tiers and policies that have none: after all others.
func NoOrder() float64 { return math.Inf(1) }

// Compare gives the sequence of tiers: order, then name.
func (t Tier) Compare(o Tier) int {
	return cmp.Or(cmp.Compare(t.Order, o.Order), cmp.Compare(t.Name, o.Name))
}

// The kinds of policies, as they stand in Ref.Kind. Calico's and Kubernetes'
// NetworkPolicy differ in their group only, which a Ref does not have.
const (
	KindKubernetesPolicy = "KubernetesNetworkPolicy"
	KindPolicy           = "NetworkPolicy"
	KindGlobalPolicy     = "GlobalNetworkPolicy"
	KindClusterPolicy    = "ClusterNetworkPolicy"
)

// Policy is a network policy of any API, in the terms of Calico's, with
// defaults filled in.
type Policy struct {
	Object Ref
	Tier   string
	Order  float64 // in the tier; NoOrder: last
	// Selector has the endpoints that the policy is for; for a namespaced one it names
	// the namespace too.
	Selector        Selector
	Ingress, Egress bool // the directions it decides (types)
	// Forward, Untracked and PreDNAT are for host endpoints (applyOnForward, doNotTrack,
	// preDNAT): packets that a node forwards are judged, too; packets are judged before
	// connections are known, or before services are resolved, and are pods' in neither case.
	Forward, Untracked, PreDNAT bool
	// IngressRules and EgressRules are looked at in order.
	IngressRules, EgressRules []PolicyRule
}

// Compare orders by object: kind, namespace, name.
func (p *Policy) Compare(o *Policy) int {
	return cmp.Or(strings.Compare(p.Object.Kind, o.Object.Kind), strings.Compare(p.Object.Namespace, o.Object.Namespace), strings.Compare(p.Object.Name, o.Object.Name))
}

// CompareOrder gives the sequence of policies of one tier, as Calico has it: order,
// then name, namespace and kind.
func (p *Policy) CompareOrder(o *Policy) int {
	if c := cmp.Compare(p.Order, o.Order); c != 0 {
		return c
	}
	var x, y [384]byte // the longest name, namespace and kind
	key := func(to []byte, r Ref) []byte {
		return append(append(append(append(append(to, r.Name...), '/'), r.Namespace...), '/'), r.Kind...)
	}
	return bytes.Compare(key(x[:0], p.Object), key(y[:0], o.Object))
}

// HostOnly reports whether the policy judges no packet of a pod, and none at the hooks
// that others judge at.
func (p *Policy) HostOnly() bool { return p.Untracked || p.PreDNAT }

// PolicyAction is what a rule does with a packet.
type PolicyAction string

// The values of PolicyAction.
const (
	PolicyAllow PolicyAction = "Allow"
	PolicyDeny  PolicyAction = "Deny"
	PolicyPass  PolicyAction = "Pass" // on to the next tier
	PolicyLog   PolicyAction = "Log"  // a line in the log, then the next rule
)

// PolicyRule matches packets. Every criterion that is set has to hold; the zero
// value of each stands for "any".
type PolicyRule struct {
	Action PolicyAction
	// Index is the rule's place in its object. Rules that follow each other may
	// share one: what Kubernetes says in one rule can be several here.
	Index int
	// Unreadable: something in the rule could not be understood, and is reported.
	// It matches nothing if it allows or logs, and everything, as a Deny, otherwise.
	Unreadable bool

	IPVersion             uint8 // 4, 6; 0: both
	Protocol, NotProtocol uint8 // IP protocol number
	ICMP, NotICMP         *ICMPMatch
	Source, Destination   PolicyPeer
}

// ICMPMatch is a type, with or without a code, of the rule's Protocol.
type ICMPMatch struct {
	Type uint8
	Code *uint8
}

// PolicyPeer is what a rule asks of one side of a packet.
type PolicyPeer struct {
	// Selector has the pods and network sets that the side is one of, NotSelector
	// those that it is none of. nil: not set, which is different from all(): any
	// address, also outside the cluster.
	Selector, NotSelector Selector
	Nets, NotNets         []netip.Prefix // masked; a list may not be of both IP versions
	Ports, NotPorts       []PolicyPort
	// Nodes has the side be an address of one of the nodes it selects, by their own
	// labels. nil: not set.
	Nodes Selector
	// Service ("namespace/name") has the side be one of what serves that: address,
	// protocol and port of a destination, the address alone of a source.
	Service string
}

// PolicyPort is a range of ports of the rule's protocol, or the name of one. A
// name stands for the address, protocol and port of every pod that Selector has
// (without it: any pod, or on the side that the policy is for, the pod itself) and
// that declares it.
type PolicyPort struct {
	First, Last uint16 // both included
	Name        string // if not empty, First and Last mean nothing
}

// PolicyPod is a pod as policies see it.
type PolicyPod struct {
	Namespace, Name string
	Node            NodeName
	ServiceAccount  string
	Labels          map[string]string
	Addresses       []netip.Addr // status.podIPs, and Leased
	// Leased are those that a block gives to the pod: no other one has them, whatever its
	// status has. Sorted. nil: blocks were not looked at.
	Leased  []netip.Addr
	Ports   []NamedPort
	Created time.Time
	// HostNetwork pods have the node's address and are neither subject nor peer.
	HostNetwork bool
	// Finished pods have no address any more: phase Succeeded or Failed, or the
	// sandbox is gone while the pod is being deleted.
	Finished bool
}

// Compare orders by namespace and name.
func (p *PolicyPod) Compare(o *PolicyPod) int {
	return cmp.Or(cmp.Compare(p.Namespace, o.Namespace), cmp.Compare(p.Name, o.Name))
}

// NamedPort is a port that a container of a pod declares.
type NamedPort struct {
	Name     string
	Protocol uint8 // IP protocol number
	Port     uint16
}

// NetworkSet is a list of prefixes with labels (Calico NetworkSet, and
// GlobalNetworkSet, which has no namespace).
type NetworkSet struct {
	Object Ref
	Labels map[string]string
	Nets   []netip.Prefix // masked; may overlap
}

// The labels that every pod has beside its own, and the prefixes of those it
// has from its namespace and its service account (Calico).
const (
	LabelNamespace         = "projectcalico.org/namespace"
	LabelOrchestrator      = "projectcalico.org/orchestrator"
	LabelServiceAccount    = "projectcalico.org/serviceaccount"
	LabelOwnName           = "projectcalico.org/name" // behind a prefix: that of the namespace or service account
	LabelPrefixOfNamespace = "pcns."
	LabelPrefixOfAccount   = "pcsa."
	OrchestratorKubernetes = "k8s"
)
