// Package loadbalancer decides which addresses Services of type LoadBalancer get,
// in Calico's format: out of IPPools whose allowedUses are [LoadBalancer], in blocks
// that are affine to "virtual:load-balancer", under a handle that is a hash of the
// Service's name, namespace and UID.
//
// Decide is pure: Services, pools and blocks in; what to write, and what could not
// be honoured, out. What a Service has it keeps, whatever becomes of the pool, as
// long as it does not ask for something else; so does what its status says, if
// nobody has it. Then those get theirs who ask for an address by name, and then the
// others, each time the older Service first. What nobody holds any more is released,
// but never in the plan that gives something new: whoever carries a plan out writes
// grants, then statuses, then releases, so that no address stands in two statuses. A
// crash between leaves what the next plan goes on from.
//
// Services of one namespace that name the same key (AnnotationShare) share an
// address when their ports differ, and either all let any node answer
// (externalTrafficPolicy: Cluster) or all have the same pods. In the block it is
// the one's who had it first; when that one goes, another takes it over.
//
// Kernel and wire footprint: none. What is ours is recognised by the block's affinity and,
// in it, by the owner attributes service and namespace.
package loadbalancer
