package app

import (
	"context"
	"strings"
	"time"

	"github.com/muslin-net/muslin/cmd/agent/cniserver"
	"github.com/muslin-net/muslin/pkg/compat"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
)

// reasonNoEffect is that of events of what has no effect.
const reasonNoEffect = "NoEffect"

// noEffect tells what pods' annotations and the network configuration ask for and
// Muslin does not do: by an event of the pod when it has started, and one of the
// node for each configuration that the runtime comes with.
type noEffect struct {
	node   model.NodeName
	events chan kube.Event
	known  map[string]bool // of events of the node that were sent; run's alone
}

func newNoEffect(node model.NodeName) *noEffect {
	return &noEffect{node: node, events: make(chan kube.Event, eventsWaiting), known: map[string]bool{}}
}

// eventsOf gives the events of a pod that has just started. It is pure.
func (v *noEffect) eventsOf(namespace, pod string, info cniserver.PodInfo, config []byte) []kube.Event {
	var out []kube.Event
	ref := model.Ref{Kind: "Pod", Namespace: namespace, Name: pod}
	if text := joined(compat.Annotations("", ref, info.Annotations)); text != "" {
		out = append(out, kube.Event{Object: ref, UID: info.UID, Type: kube.EventWarning, Reason: reasonNoEffect, Message: text})
	}
	ref = model.Ref{Kind: "Node", Name: string(v.node)}
	if text := joined(compat.CNI(ref, config)); text != "" {
		out = append(out, kube.Event{Object: ref, UID: ref.Name, Type: kube.EventWarning, Reason: reasonNoEffect, Message: "CNI configuration: " + text})
	}
	return out
}

func joined(problems []model.Problem) string {
	var lines []string
	for _, p := range problems {
		lines = append(lines, p.Field+": "+p.Message)
	}
	return strings.Join(lines, "; ")
}

// added is cniserver's Options.Added. While the API server cannot be reached
// events beyond the queue are dropped: a pod must not wait for them.
func (v *noEffect) added(namespace, pod string, info cniserver.PodInfo, config []byte) {
	for _, e := range v.eventsOf(namespace, pod, info, config) {
		select {
		case v.events <- e:
		default:
		}
	}
}

// run sends the events; one of the node is sent once.
func (v *noEffect) run(ctx context.Context, send func(context.Context, []kube.Event) []kube.Event) {
	for {
		var e kube.Event
		select {
		case <-ctx.Done():
			return
		case e = <-v.events:
		}
		if e.Object.Kind == "Node" && v.known[e.Message] {
			continue
		}
		for len(send(ctx, []kube.Event{e})) > 0 && ctx.Err() == nil {
			pause(ctx, 10*time.Second)
		}
		if e.Object.Kind == "Node" {
			v.known[e.Message] = true
		}
	}
}
