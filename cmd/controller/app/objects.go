package app

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

const (
	v3Path  = "/apis/projectcalico.org/v3/"
	crdPath = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

	jsonType    = "application/json"
	jsonNames   = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
	jsonMeta    = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	callTimeout = 10 * time.Second
	pageSize    = 500

	// defaultLeakGrace is Calico's, for a KubeControllersConfiguration without
	// spec.controllers.node.leakGracePeriod.
	defaultLeakGrace = 15 * time.Minute
)

// Objects reads and writes what the collector of garbage needs and package kube
// does not keep: pods of every node, names of handles, finalizers of pools.
type Objects struct {
	client *rest.RESTClient
	pods   *podIndex
	log    *slog.Logger
}

// NewObjects makes the clients and opens no connection.
func NewObjects(cfg *rest.Config, logger *slog.Logger) (*Objects, error) {
	scheme := runtime.NewScheme()
	gv := corev1.SchemeGroupVersion
	scheme.AddKnownTypes(gv, &corev1.Pod{}, &corev1.PodList{})
	metav1.AddToGroupVersion(scheme, gv)
	c := rest.CopyConfig(cfg)
	c.GroupVersion, c.APIPath = &gv, "/api"
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.ContentType = runtime.ContentTypeProtobuf
	c.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	c.UserAgent = "muslin-controller"
	if c.QPS == 0 {
		c.QPS, c.Burst = 50, 200
	}
	client, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("make client for the collector: %w", err)
	}
	return &Objects{client: client, pods: newPodIndex(), log: logger}, nil
}

// livePod asks the server itself, not a cache; false: there is no such pod.
func (o *Objects) livePod(ctx context.Context, namespace, name string) (podFacts, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var p corev1.Pod
	err := o.client.Get().Namespace(namespace).Resource("pods").Name(name).Do(ctx).Into(&p)
	if apierrors.IsNotFound(err) {
		return podFacts{}, false, nil
	}
	if err != nil {
		return podFacts{}, false, fmt.Errorf("get pod %s/%s: %w", namespace, name, err)
	}
	return factsOf(&p), true, nil
}

// factsOf keeps of a pod what decides about its addresses.
func factsOf(p *corev1.Pod) podFacts {
	f := podFacts{
		node: p.Spec.NodeName, host: p.Spec.HostNetwork,
		finished: p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed,
	}
	if text, ok := p.Annotations[annotationAddrs]; ok {
		_ = json.Unmarshal([]byte(text), &f.asks) // the pod's agent tells what is wrong with it
	}
	if len(p.Status.PodIPs) > 0 {
		f.ips = make([]netip.Addr, 0, len(p.Status.PodIPs))
	}
	for _, ip := range p.Status.PodIPs {
		if addr, err := netip.ParseAddr(ip.IP); err == nil {
			f.ips = append(f.ips, addr)
		}
	}
	return f
}

// handleNames lists the object names of all IPAMHandles, in pages; never nil
// without an error.
func (o *Objects) handleNames(ctx context.Context) ([]string, error) {
	names := []string{}
	next := ""
	for {
		req := o.client.Get().AbsPath(v3Path+"ipamhandles").SetHeader("Accept", jsonNames).Param("limit", strconv.Itoa(pageSize))
		if next != "" {
			req.Param("continue", next)
		}
		data, err := fetch(ctx, req)
		if err != nil {
			return nil, fmt.Errorf("list handles: %w", err)
		}
		var page struct {
			Metadata struct {
				Continue string `json:"continue"`
			} `json:"metadata"`
			Items []struct {
				Metadata struct {
					Name string `json:"name"`
				} `json:"metadata"`
			} `json:"items"`
		}
		if err := json.Unmarshal(data, &page); err != nil {
			return nil, fmt.Errorf("list handles: %w", err)
		}
		for _, i := range page.Items {
			names = append(names, i.Metadata.Name)
		}
		if next = page.Metadata.Continue; next == "" {
			return names, nil
		}
	}
}

// leakGrace reads KubeControllersConfiguration/default,
// spec.controllers.node.leakGracePeriod: how long an address has to be found
// without an owner before it is freed. 0 means never, as Calico has it.
func (o *Objects) leakGrace(ctx context.Context) (time.Duration, error) {
	data, err := fetch(ctx, o.client.Get().AbsPath(v3Path+"kubecontrollersconfigurations/default").SetHeader("Accept", jsonType))
	if apierrors.IsNotFound(err) {
		return defaultLeakGrace, nil
	}
	if err != nil {
		return 0, fmt.Errorf("get KubeControllersConfiguration default: %w", err)
	}
	return readLeakGrace(data)
}

func readLeakGrace(data []byte) (time.Duration, error) {
	var o struct {
		Spec struct {
			Controllers struct {
				Node *struct {
					LeakGracePeriod string `json:"leakGracePeriod"`
				} `json:"node"`
			} `json:"controllers"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(data, &o); err != nil {
		return 0, fmt.Errorf("read KubeControllersConfiguration default: %w", err)
	}
	node := o.Spec.Controllers.Node
	if node == nil || node.LeakGracePeriod == "" {
		return defaultLeakGrace, nil
	}
	d, err := time.ParseDuration(node.LeakGracePeriod)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("KubeControllersConfiguration default: spec.controllers.node.leakGracePeriod: %q is not a duration such as 15m", node.LeakGracePeriod)
	}
	return d, nil
}

// fetch sends a request with a bound on its time.
func fetch(ctx context.Context, req *rest.Request) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r := req.Do(ctx)
	if err := r.Error(); err != nil {
		return nil, err
	}
	return r.Raw()
}
