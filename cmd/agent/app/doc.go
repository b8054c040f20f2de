// Package app is the wiring of muslin-agent: which source feeds which pure
// function feeds which sink, in which order they start, and what each waits for.
//
// It decides nothing about routes, peers or addresses itself. It never writes
// the kernel or the wire except through the rooms.
//
// Read agent.tasks first: the pipeline is drawn there. Each value stands in a cell
// (inputs), with one writer; bgpLoop, dataplane and policyLoop gather them, decide,
// and hand the whole desired state to their sinks.
//
// Footprint: an HTTP server on a loopback address (/healthz, /readyz, /metrics,
// /status), and where one is asked for that of package metricsserver. A fresh process knows its pods by what felix/pod reads back from the
// kernel, its routes by their protocol number, its blocks by the API.
//
// Order of start, and why:
//
//	http        answers probes from the first moment on
//	links       the kernel's links and others' routes are inputs of everything
//	routes      adopts what an earlier process installed
//	cluster     lists the API's objects; nothing is deleted before that
//	ipam        learns the node's blocks
//	data plane  puts the first desired state into the kernel
//	bgp         speaks only once the kernel forwards what it announces
//	status      tells the API server: conditions, events, CalicoNodeStatuses
//	cni         answers when an ADD can be carried through
//	cni config  lets kubelet see a network, last of all
package app
