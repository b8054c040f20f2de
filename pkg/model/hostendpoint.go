package model

import "net/netip"

// HostEndpoint is an interface of a node that policies select (Calico HostEndpoint).
type HostEndpoint struct {
	Object    Ref
	Labels    map[string]string
	Node      NodeName
	Interface string       // AnyInterface; or a name; empty: the one that has one of Addresses
	Addresses []netip.Addr // expectedIPs: what selectors see of it, and nothing else
	Profiles  []string
	Ports     []NamedPort
}

// KindHostEndpoint is the Kind in HostEndpoint.Object.
const KindHostEndpoint = "HostEndpoint"

// AnyInterface is the interface of a HostEndpoint that stands for all of a node but
// those of pods, and but those that another one names.
const AnyInterface = "*"

// ProfileAllow is the profile that allows what no policy decides, in both directions.
const ProfileAllow = "projectcalico-default-allow"

// ProfilePrefixOfNamespace and ProfilePrefixOfAccount begin the names of the profiles that
// stand for a namespace, which allows everything, and a service account, which has no
// rules.
const (
	ProfilePrefixOfNamespace = "kns."
	ProfilePrefixOfAccount   = "ksa."
)

// FailsafePort is what no policy of a host endpoint may cut (Calico ProtoPort).
type FailsafePort struct {
	Protocol uint8
	Port     uint16       // 0: all of the protocol
	Net      netip.Prefix // of the other side; the zero value: any
}
