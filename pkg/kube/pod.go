package kube

import (
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Pod is what the CNI server has to know of a pod.
type Pod struct {
	Namespace, Name, UID string
	Node                 string
	Labels               map[string]string
	Annotations          map[string]string // those under cni.projectcalico.org/ and Muslin's own
	IPs                  []string          // status.podIPs
	HostNetwork          bool
	Deleting             bool
	Finished             bool // phase Succeeded or Failed
}

// Namespace is what the CNI server has to know of a namespace.
type Namespace struct {
	Name        string
	Labels      map[string]string
	Annotations map[string]string // those under cni.projectcalico.org/ and Muslin's own
}

func stripPod(obj any) (any, error) {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return obj, nil
	}
	p.ManagedFields, p.OwnerReferences = nil, nil
	p.Annotations = ours(p.Annotations)
	p.Spec = corev1.PodSpec{NodeName: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork}
	p.Status = corev1.PodStatus{Phase: p.Status.Phase, PodIPs: p.Status.PodIPs}
	return p, nil
}

func readPod(obj any) reading[Pod] {
	p := obj.(*corev1.Pod)
	out := Pod{
		Namespace: p.Namespace, Name: p.Name, UID: string(p.UID), Node: p.Spec.NodeName,
		Labels: p.Labels, Annotations: ours(p.Annotations), HostNetwork: p.Spec.HostNetwork,
		Deleting: p.DeletionTimestamp != nil,
		Finished: p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed,
	}
	for _, ip := range p.Status.PodIPs {
		out.IPs = append(out.IPs, ip.IP)
	}
	return reading[Pod]{value: out, ok: true}
}

func stripNamespace(obj any) (any, error) {
	if n, ok := obj.(*corev1.Namespace); ok {
		n.ManagedFields = nil
		n.Annotations = ours(n.Annotations)
	}
	return obj, nil
}

func readNamespace(obj any) reading[Namespace] {
	n := obj.(*corev1.Namespace)
	return reading[Namespace]{value: Namespace{Name: n.Name, Labels: n.Labels, Annotations: ours(n.Annotations)}, ok: true}
}

// notePod: pods are not part of the snapshot, and news only where BGP is spoken
// with some of them. The caller holds mu.
func (c *Cluster) notePod() {
	for _, p := range c.peers.rows {
		if p.value.HasLocalWorkloadPeering {
			c.noteChange()
			return
		}
	}
	c.checkSynced()
}

// Pod gives a pod of this node from the cache, and asks the server when the
// cache does not have it, or has another one of the same name (uid; empty
// accepts any). The error of an absent pod, and of one that another has taken the
// name of, satisfies apierrors.IsNotFound.
func (c *Cluster) Pod(ctx context.Context, namespace, name, uid string) (Pod, error) {
	if c.pods != nil {
		c.mu.Lock()
		r, ok := c.pods.rows[namespace+"/"+name]
		c.mu.Unlock()
		if ok && (uid == "" || r.value.UID == uid) {
			return clonePod(r.value), nil
		}
	}
	var p corev1.Pod
	err := c.core.Get().Namespace(namespace).Resource("pods").Name(name).Do(ctx).Into(&p)
	if err != nil {
		return Pod{}, fmt.Errorf("get pod %s/%s: %w", namespace, name, err)
	}
	// The runtime knows a static pod by another UID than that of its mirror.
	if _, static := p.Annotations[corev1.MirrorPodAnnotationKey]; uid != "" && string(p.UID) != uid && !static {
		return Pod{}, fmt.Errorf("get pod %s/%s with UID %s: the one of that name has UID %s: %w", namespace, name, uid, p.UID,
			apierrors.NewNotFound(corev1.Resource("pods"), name))
	}
	return readPod(&p).value, nil
}

// Pods gives the cached pods of this node. They are shared: nobody may change them.
func (c *Cluster) Pods() []Pod {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pods.values()
}

func clonePod(p Pod) Pod {
	p.Labels, p.Annotations = maps.Clone(p.Labels), maps.Clone(p.Annotations)
	return p
}

// NamespaceOf gives a namespace from the cache, else from the server.
func (c *Cluster) NamespaceOf(ctx context.Context, name string) (Namespace, error) {
	c.mu.Lock()
	r, ok := c.namespaces.rows[name]
	c.mu.Unlock()
	if ok {
		return r.value, nil
	}
	var n corev1.Namespace
	if err := c.core.Get().Resource("namespaces").Name(name).Do(ctx).Into(&n); err != nil {
		return Namespace{}, fmt.Errorf("get namespace %s: %w", name, err)
	}
	return readNamespace(&n).value, nil
}
