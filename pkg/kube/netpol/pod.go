package netpol

import (
	"net/netip"

	"github.com/muslin-net/muslin/pkg/model"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// annotationPodIP has a pod's address; empty, the pod's sandbox is gone (Calico).
const annotationPodIP = "cni.projectcalico.org/podIP"

// Pod translates a pod.
func Pod(o *corev1.Pod) *model.PolicyPod {
	out := &model.PolicyPod{
		Namespace: o.Namespace, Name: o.Name, Node: model.NodeName(o.Spec.NodeName),
		ServiceAccount: o.Spec.ServiceAccountName, Labels: o.Labels, Created: o.CreationTimestamp.Time,
		HostNetwork: o.Spec.HostNetwork, Finished: finished(o),
	}
	for _, ip := range o.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			out.Addresses = append(out.Addresses, a.Unmap())
		}
	}
	for _, list := range [][]corev1.Container{o.Spec.InitContainers, o.Spec.Containers} {
		for _, c := range list {
			for _, p := range c.Ports {
				if number, ok := Protocol(&p.Protocol); ok && p.Name != "" && p.ContainerPort > 0 && p.ContainerPort <= 65535 {
					out.Ports = append(out.Ports, model.NamedPort{Name: p.Name, Protocol: number, Port: uint16(p.ContainerPort)})
				}
			}
		}
	}
	return out
}

// finished reports whether a pod's addresses are no longer its own.
func finished(o *corev1.Pod) bool {
	if o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed {
		return true
	}
	ip, announced := o.Annotations[annotationPodIP]
	return o.DeletionTimestamp != nil && announced && ip == ""
}

// StripPod takes from a pod in place what Pod does not ask for. A cluster's pods
// are many, and most of each is for others.
func StripPod(o *corev1.Pod) {
	spec := corev1.PodSpec{NodeName: o.Spec.NodeName, ServiceAccountName: o.Spec.ServiceAccountName, HostNetwork: o.Spec.HostNetwork}
	spec.InitContainers, spec.Containers = portsOnly(o.Spec.InitContainers), portsOnly(o.Spec.Containers)
	meta := metav1.ObjectMeta{
		Namespace: o.Namespace, Name: o.Name, ResourceVersion: o.ResourceVersion, Labels: o.Labels,
		CreationTimestamp: o.CreationTimestamp, DeletionTimestamp: o.DeletionTimestamp,
	}
	if ip, announced := o.Annotations[annotationPodIP]; announced {
		meta.Annotations = map[string]string{annotationPodIP: ip}
	}
	o.ObjectMeta, o.Spec = meta, spec
	o.Status = corev1.PodStatus{Phase: o.Status.Phase, PodIPs: o.Status.PodIPs}
}

func portsOnly(list []corev1.Container) []corev1.Container {
	var out []corev1.Container
	for _, c := range list {
		if len(c.Ports) > 0 {
			out = append(out, corev1.Container{Ports: c.Ports})
		}
	}
	return out
}
