package app

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"strconv"

	"github.com/muslin-net/muslin/felix/nodeview"
	"github.com/muslin-net/muslin/felix/nodeview/kernel"
)

// handleShow adds what `muslinctl node show` and `explain` ask an agent for:
//
//	GET /show              the desired state, the RIB, and what the kernel has
//	GET /show/denied       the packets that network policy denied, the last ones first
//	GET /show/flows        the connections of pods that the kernel tracks
//	GET /show/path?to=IP   the kernel's way to an address, and two echoes there,
//	                       the second of size= bytes, the pods' MTU by default
//
// All only read, and like /status they answer root of the node alone.
func (a *agent) handleShow(mux *http.ServeMux) {
	mux.HandleFunc("GET /show", func(w http.ResponseWriter, _ *http.Request) { a.answer(w, a.view()) })
	mux.HandleFunc("GET /show/denied", func(w http.ResponseWriter, _ *http.Request) { a.answer(w, a.policy.denied.get()) })
	mux.HandleFunc("GET /show/flows", func(w http.ResponseWriter, _ *http.Request) { a.answer(w, a.flows()) })
	mux.HandleFunc("GET /show/path", func(w http.ResponseWriter, r *http.Request) {
		to, err := netip.ParseAddr(r.URL.Query().Get("to"))
		if err != nil {
			http.Error(w, "to: "+err.Error(), http.StatusBadRequest)
			return
		}
		size, err := strconv.Atoi(r.URL.Query().Get("size"))
		if err != nil || size < 64 || size > 65535 {
			size = a.dataplane.podMTU()
		}
		a.answer(w, kernel.Path(r.Context(), to.Unmap(), size))
	})
}

func (a *agent) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		a.log.Debug("write view", "error", err)
	}
}

// mostFlows is how many connections of each IP version are told of.
const mostFlows = 20000

// flows are the connections of this node's pods; those that differ in nothing but the
// source port are one.
func (a *agent) flows() []nodeview.Flow {
	of := map[netip.Addr]bool{}
	for _, e := range a.endpoints.List() {
		for _, addr := range e.Addresses {
			of[addr] = true
		}
	}
	list, err := a.policy.sink.Flows(of, mostFlows)
	if err != nil {
		a.log.Debug("list connections", "error", err)
	}
	seen := map[nodeview.Flow]bool{}
	out := []nodeview.Flow{}
	for _, f := range list {
		flow := nodeview.Flow{
			Source: f.Source.Addr(), Destination: f.Destination.Addr(), Protocol: f.Protocol, SourcePort: f.Source.Port(), Port: f.Destination.Port(),
			ICMPType: f.ICMPType, ICMPCode: f.ICMPCode,
		}
		key := flow
		key.SourcePort = 0
		if !seen[key] {
			seen[key] = true
			out = append(out, flow)
		}
	}
	return out
}

// view is what the loops were told last and what they hear now. Looking changes
// nothing: no refusal is counted, no memory tuned, nothing computed anew from other
// inputs than theirs.
func (a *agent) view() nodeview.View {
	s := a.status()
	in := a.in.gather()
	own := ownOf(in.snapshot.Blocks, s.Node)
	v := nodeview.View{
		Node: s.Node, Version: s.Version, Waiting: s.Waiting, Peers: s.Peers,
		Blocks: own, Others: len(in.snapshot.Blocks) - len(own), Borrowed: in.snapshot.Borrowed, Problems: a.problems(), Host: in.host, Kernel: kernel.Read(), System: kernel.System("/"),
		State: a.dataplane.desired(), Policy: a.policy.text(),
	}
	v.BGP, _ = a.bgp.configured()
	v.Learned, v.EndOfRIB = in.rib.routes()
	v.Endpoints = in.pods.list
	return v
}
