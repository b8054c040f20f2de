package felix

import "github.com/muslin-net/muslin/pkg/model"

// Input is everything that Desired looks at. All of it is read only.
type Input struct {
	// Self names the node that the State is for.
	Self model.NodeName
	// Snapshot is the cluster as this node knows it.
	Snapshot model.Snapshot
	// Learned are the prefixes that BGP has chosen, sorted by prefix (an
	// unsorted slice is accepted and costs a sort).
	Learned []model.Learned
	// LearnedSynced is true once BGP has heard what its peers had to say, or
	// has given up waiting for them.
	LearnedSynced bool
	// Host is the node's kernel. HostSynced is true once it was read.
	Host       model.Host
	HostSynced bool
	// Endpoints are the pods of this node. EndpointsSynced is true once the
	// ones that live in the kernel are among them.
	Endpoints       []model.Endpoint
	EndpointsSynced bool
}
