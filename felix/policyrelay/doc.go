// Package policyrelay gives agents those pods of the cluster that the policies of
// their own pods ask for, so that no agent has to watch all of them. It has both
// ends: an Index and the Server around it, which every replica of the controller
// runs, and the Client of an agent.
//
// An agent names selectors and names of ports, felix/policy's Needs; it gets the pods
// that these select, then what changes of them, and is told when it has all there
// is. What a pod is to policy is decided by the agent, with the same code as where
// it watches pods itself: the relay only leaves out what cannot matter.
//
// An agent acknowledges what its kernel has: so a relay can tell, when an address has gone
// from one pod to another, once no agent takes it for the former one's (HandOver).
//
// It never decides what is allowed, and never looks at the kernel.
//
// Wire: gRPC over TLS 1.3, the port of MUSLIN_RELAY_ADDR. Footprint in the API: the ConfigMap
// muslin-relay in muslin-system has a key for each replica, with its address and certificate. A replica
// recognises its own by its name.
package policyrelay
