package model

import (
	"net/netip"
	"time"
)

// BalancedService is a Service as LoadBalancer IPAM sees it: of spec.type
// LoadBalancer, or of another one and still with addresses in its status.
type BalancedService struct {
	Namespace, Name string
	UID             string
	Created         time.Time
	LoadBalancer    bool   // spec.type
	Class           string // spec.loadBalancerClass; empty: none
	IPv4, IPv6      bool   // spec.ipFamilies
	Optional        bool   // spec.ipFamilyPolicy is PreferDualStack: one family will do
	Wanted          string // spec.loadBalancerIP, as it is written
	LocalTraffic    bool   // spec.externalTrafficPolicy: Local
	Selector        string // spec.selector in one canonical text; empty: none
	Labels          map[string]string
	Annotations     map[string]string // Calico's, Muslin's and other allocators'
	Ports           []ServicePort
	// Addrs are the addresses in status.loadBalancer.ingress, in its order. Others
	// says that there is more in it: names of hosts, or ports.
	Addrs  []netip.Addr
	Others bool
}

// Ref names the Service in problems.
func (s *BalancedService) Ref() Ref {
	return Ref{Kind: "Service", Namespace: s.Namespace, Name: s.Name}
}

// ServicePort is a port of a Service.
type ServicePort struct {
	Protocol string // TCP, UDP, SCTP
	Port     uint16
}
