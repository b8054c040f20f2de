package agent

import (
	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
)

// workloads are this node's pods as BGPPeers select them: those that are plugged
// in, with the labels that the API has of them. Without a BGPPeer that asks for
// pods there are none, and it costs nothing.
func (a *agent) workloads(s model.Snapshot) []model.Workload {
	if !bgp.AsksForWorkloads(s) {
		return nil
	}
	type name struct{ namespace, pod string }
	pods := map[name]kube.Pod{}
	for _, p := range a.cluster.Pods() {
		pods[name{p.Namespace, p.Name}] = p
	}
	var out []model.Workload
	for _, ep := range a.endpoints.List() {
		p, known := pods[name{ep.Namespace, ep.Pod}]
		if !known || p.Finished {
			continue
		}
		labels := model.WorkloadLabels(ep.Namespace, p.Labels)
		out = append(out, model.Workload{Namespace: ep.Namespace, Pod: ep.Pod, Labels: labels, Addresses: ep.Addresses})
	}
	return out
}

// speakers are the pods that BGP is told to speak with, or will be once it
// starts: what they have in the kernel stays while the agent does.
func (s *speech) speakers(snap model.Snapshot) (out []felix.Speaker) {
	config := s.asked.Load()
	if config == nil {
		first, _ := bgp.DesiredOn(snap, s.a.cfg.Node, s.ways.get())
		config = &first
	}
	for _, p := range config.Peers {
		if p.IsPod() {
			out = append(out, felix.Speaker{Pod: p.Address, Node: p.LocalAddress})
		}
	}
	return out
}
