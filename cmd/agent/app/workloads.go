package app

import (
	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
)

// workloads are this node's pods as BGPPeers select them: those that are plugged
// in, with the labels that the API has of them. Without a BGPPeer that asks for
// pods there are none, and it costs nothing.
func workloads(s model.Snapshot, eps []model.Endpoint, known []kube.Pod) []model.Workload {
	if !bgp.AsksForWorkloads(s) {
		return nil
	}
	type name struct{ namespace, pod string }
	pods := map[name]kube.Pod{}
	for _, p := range known {
		pods[name{p.Namespace, p.Name}] = p
	}
	var out []model.Workload
	for _, ep := range eps {
		p, ok := pods[name{ep.Namespace, ep.Pod}]
		if !ok || p.Finished {
			continue
		}
		labels := model.WorkloadLabels(ep.Namespace, p.Labels)
		out = append(out, model.Workload{Namespace: ep.Namespace, Pod: ep.Pod, Labels: labels, Addresses: ep.Addresses})
	}
	return out
}
