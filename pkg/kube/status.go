package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
	corev1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// SetNetworkUnavailable sets the condition NetworkUnavailable of this node. It
// writes only when status, reason or message differ from what the node has.
func (c *Cluster) SetNetworkUnavailable(ctx context.Context, unavailable bool, reason, message string) error {
	return c.setCondition(ctx, condition(corev1.NodeNetworkUnavailable, unavailable, reason, message), true)
}

// ReflectorPressure is the condition of a node that reflects more routes to more
// clients than it should.
const ReflectorPressure corev1.NodeConditionType = "RouteReflectorPressure"

// SetReflectorPressure sets that condition of this node; a node that never had
// it does not get it as false.
func (c *Cluster) SetReflectorPressure(ctx context.Context, pressed bool, reason, message string) error {
	return c.setCondition(ctx, condition(ReflectorPressure, pressed, reason, message), pressed)
}

// NodeProblem is the condition of a node whose agent cannot do what is asked of
// this node itself: its address, its files, its ports.
const NodeProblem corev1.NodeConditionType = "MuslinProblem"

// SetNodeProblem sets that condition of this node; a node that never had it does
// not get it as false.
func (c *Cluster) SetNodeProblem(ctx context.Context, is bool, reason, message string) error {
	return c.setCondition(ctx, condition(NodeProblem, is, reason, cut(message, 1024)), is)
}

func condition(kind corev1.NodeConditionType, on bool, reason, message string) corev1.NodeCondition {
	out := corev1.NodeCondition{Type: kind, Status: corev1.ConditionFalse, Reason: reason, Message: message}
	if on {
		out.Status = corev1.ConditionTrue
	}
	return out
}

// setCondition writes a condition of this node when it differs from what the
// node has; with add, also when the node has none.
func (c *Cluster) setCondition(ctx context.Context, want corev1.NodeCondition, add bool) error {
	node, err := c.ownNode(ctx)
	if err != nil {
		return err
	}
	now := metav1.NewTime(time.Now())
	want.LastTransitionTime, want.LastHeartbeatTime = now, now
	for _, have := range node.Status.Conditions {
		if have.Type != want.Type {
			continue
		}
		if have.Status == want.Status && have.Reason == want.Reason && have.Message == want.Message {
			return nil
		}
		if have.Status == want.Status {
			want.LastTransitionTime = have.LastTransitionTime
		}
		add = true
	}
	if !add {
		return nil
	}
	body, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []corev1.NodeCondition{want}}})
	if err != nil {
		return fmt.Errorf("encode condition %s: %w", want.Type, err)
	}
	// A strategic merge patch changes this condition and leaves the kubelet's alone.
	return c.patchNode(ctx, types.StrategicMergePatchType, body, "set condition "+string(want.Type)+" of")
}

// AnnotateNode merges annotations into this node through nodes/status; an empty
// value removes the annotation. What the node has already is not written.
func (c *Cluster) AnnotateNode(ctx context.Context, annotations map[string]string) error {
	node, err := c.ownNode(ctx)
	if err != nil {
		return err
	}
	change := map[string]any{}
	for k, v := range annotations {
		have, ok := node.Annotations[k]
		switch {
		case v == "" && ok:
			change[k] = nil
		case v != "" && have != v:
			change[k] = v
		}
	}
	if len(change) == 0 {
		return nil
	}
	body, err := annotationPatch(change)
	if err != nil {
		return err
	}
	return c.patchNode(ctx, types.MergePatchType, body, "annotate")
}

// AnnotationWriter asks the server which field manager wrote an annotation of
// this node, as `kubectl get node --show-managed-fields` tells; empty when none
// is known. An agent is known by its Options.Component.
func (c *Cluster) AnnotationWriter(ctx context.Context, annotation string) (string, error) {
	node, err := c.ownNode(ctx)
	if err != nil {
		return "", err
	}
	for _, m := range node.ManagedFields {
		var set struct {
			Metadata struct {
				Annotations map[string]any `json:"f:annotations"`
			} `json:"f:metadata"`
		}
		if m.FieldsV1 == nil || json.Unmarshal(m.FieldsV1.GetRawBytes(), &set) != nil {
			continue // of an API server with another notation: nobody is known
		}
		if _, ok := set.Metadata.Annotations["f:"+annotation]; ok {
			return m.Manager, nil
		}
	}
	return "", nil
}

func (c *Cluster) ownNode(ctx context.Context) (*corev1.Node, error) {
	var node corev1.Node
	if err := c.core.Get().Resource("nodes").Name(string(c.node)).Do(ctx).Into(&node); err != nil {
		return nil, fmt.Errorf("get node %s: %w", c.node, err)
	}
	return &node, nil
}

func (c *Cluster) patchNode(ctx context.Context, kind types.PatchType, body []byte, verb string) error {
	err := c.core.Patch(kind).Resource("nodes").Name(string(c.node)).SubResource("status").Body(body).Do(ctx).Error()
	if err != nil {
		return fmt.Errorf("%s node %s: %w", verb, c.node, err)
	}
	return nil
}

func annotationPatch[V any](annotations map[string]V) ([]byte, error) {
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}})
	if err != nil {
		return nil, fmt.Errorf("encode annotations: %w", err)
	}
	return body, nil
}

// EventType is how bad an event is.
type EventType string

// The values of EventType.
const (
	EventNormal  EventType = "Normal"
	EventWarning EventType = "Warning"
)

// Event is something a user should see in `kubectl describe` of an object.
type Event struct {
	Object  model.Ref
	UID     string // of the object; events of an unknown UID are not shown by describe
	Type    EventType
	Reason  string // one CamelCase word
	Message string // at most 1024 bytes; the rest is cut
}

// Record writes an event. Callers send one on a transition, not on every retry:
// nothing here counts or joins them.
func (c *Cluster) Record(ctx context.Context, e Event) error {
	namespace := e.Object.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	now := metav1.NewTime(time.Now())
	apiVersion, kind := "v1", e.Object.Kind
	if _, ok := resources[kind]; ok {
		apiVersion = GroupVersion.String()
	} else if kind == model.KindClusterPolicy {
		apiVersion = policyVersions[0].String()
	} else if kind == model.KindKubernetesPolicy {
		apiVersion, kind = networking.SchemeGroupVersion.String(), "NetworkPolicy"
	}
	event := corev1.Event{
		TypeMeta:       metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, GenerateName: strings.ToLower(e.Object.Name) + "."},
		InvolvedObject: corev1.ObjectReference{APIVersion: apiVersion, Kind: kind, Namespace: e.Object.Namespace, Name: e.Object.Name, UID: types.UID(e.UID)},
		Reason:         e.Reason, Message: cut(e.Message, 1024), Type: string(e.Type),
		Source:         corev1.EventSource{Component: c.component, Host: string(c.node)},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
		ReportingController: c.component, ReportingInstance: string(c.node),
	}
	if err := c.core.Post().Namespace(namespace).Resource("events").Body(&event).Do(ctx).Error(); err != nil {
		return fmt.Errorf("record event %s of %s: %w", e.Reason, e.Object, err)
	}
	return nil
}

func cut(text string, most int) string {
	if len(text) > most {
		return text[:most]
	}
	return text
}
