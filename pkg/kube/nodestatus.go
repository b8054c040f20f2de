package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
)

// StatusRequest is a CalicoNodeStatus that asks this node for its status.
type StatusRequest struct {
	Name    string
	Classes []string      // Agent, BGP, Routes
	Period  time.Duration // 1 s to 24 h; 0: no refresh is wanted
}

// Wants reports whether a class is asked for.
func (r StatusRequest) Wants(class string) bool { return slices.Contains(r.Classes, class) }

// The classes of a StatusRequest.
const (
	ClassAgent  = string(calico.NodeStatusClassTypeAgent)
	ClassBGP    = string(calico.NodeStatusClassTypeBGP)
	ClassRoutes = string(calico.NodeStatusClassTypeRoutes)
)

// NodeStatus is the status of a CalicoNodeStatus, with Calico's JSON. A class
// that is nil is removed from the object; so are lists that are nil.
type NodeStatus struct {
	LastUpdated metav1.Time   `json:"lastUpdated"`
	Agent       *DaemonStatus `json:"agent"`
	BGP         *BGPStatus    `json:"bgp"`
	Routes      *RouteStatus  `json:"routes"`
}

// DaemonStatus is the class Agent. Calico runs one BIRD a family; one speaker
// stands in for both.
type DaemonStatus struct {
	V4 Daemon `json:"birdV4"`
	V6 Daemon `json:"birdV6"`
}

// Daemon is a BGP daemon. Times are texts, RFC 3339.
type Daemon struct {
	State              string `json:"state"` // Ready, NotReady
	Version            string `json:"version"`
	RouterID           string `json:"routerID"`
	BootTime           string `json:"lastBootTime"`
	ReconfigurationWas string `json:"lastReconfigurationTime"`
}

// BGPStatus is the class BGP.
type BGPStatus struct {
	EstablishedV4    int        `json:"numberEstablishedV4"`
	EstablishedV6    int        `json:"numberEstablishedV6"`
	NotEstablishedV4 int        `json:"numberNotEstablishedV4"`
	NotEstablishedV6 int        `json:"numberNotEstablishedV6"`
	PeersV4          []NodePeer `json:"peersV4"`
	PeersV6          []NodePeer `json:"peersV6"`
}

// NodePeer is one session.
type NodePeer struct {
	PeerIP string `json:"peerIP"`
	Type   string `json:"type"`  // NodeMesh, NodePeer, GlobalPeer
	State  string `json:"state"` // RFC 4271 section 8.2.2
	Since  string `json:"since,omitempty"`
	// LastError is Muslin's own: why the session is not established, in words.
	LastError string `json:"lastError,omitempty"`
}

// RouteStatus is the class Routes.
type RouteStatus struct {
	V4 []NodeRoute `json:"routesV4"`
	V6 []NodeRoute `json:"routesV6"`
}

// NodeRoute is one way to a destination.
type NodeRoute struct {
	Type        string      `json:"type"` // FIB: packets take it; RIB: known only
	Destination string      `json:"destination"`
	Gateway     string      `json:"gateway,omitempty"`
	Interface   string      `json:"interface,omitempty"`
	LearnedFrom LearnedFrom `json:"learnedFrom"`
}

// LearnedFrom says where a route comes from.
type LearnedFrom struct {
	SourceType string `json:"sourceType"` // Kernel, Static, Direct, NodeMesh, BGPPeer
	PeerIP     string `json:"peerIP,omitempty"`
}

// addStatusRequests watches the CalicoNodeStatuses of this node. They are no
// part of the snapshot, and nothing waits for them.
func (c *Cluster) addStatusRequests() {
	f := c.kind("CalicoNodeStatus")
	f.fields = fields.OneTermEqualSelector("spec.node", string(c.node)).String()
	var s source
	c.requests, s = newTable(c, f, stripStatus, readStatusRequest)
	c.requestsChanged = make(chan struct{}, 1)
	c.requests.note = func() {
		select {
		case c.requestsChanged <- struct{}{}:
		default:
		}
	}
	c.aside = append(c.aside, s)
}

// stripStatus drops the answer, which is the larger part by far.
func stripStatus(obj any) (any, error) {
	if o, ok := obj.(*object); ok {
		o.Status = nil
	}
	return stripObject(obj)
}

func readStatusRequest(obj any) reading[StatusRequest] {
	o := obj.(*object)
	r := newReader("CalicoNodeStatus", &o.ObjectMeta)
	var spec calico.CalicoNodeStatusSpec
	r.spec(o, &spec)
	out := StatusRequest{Name: o.Name, Period: time.Duration(deref(spec.UpdatePeriodSeconds)) * time.Second}
	for _, class := range spec.Classes {
		out.Classes = append(out.Classes, string(class))
	}
	return finish(r, out)
}

// StatusRequests gives the CalicoNodeStatuses of this node, sorted by name.
func (c *Cluster) StatusRequests() []StatusRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.requests == nil {
		return nil
	}
	return c.requests.values()
}

// StatusRequestsChanged has a value whenever StatusRequests may differ.
func (c *Cluster) StatusRequestsChanged() <-chan struct{} { return c.requestsChanged }

// WriteNodeStatus fills in the status of a CalicoNodeStatus. An object that is
// gone by now is no error.
func (c *Cluster) WriteNodeStatus(ctx context.Context, name string, status NodeStatus) error {
	body, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return fmt.Errorf("encode status of CalicoNodeStatus %s: %w", name, err)
	}
	err = c.v3.Patch(types.MergePatchType).Resource(resources["CalicoNodeStatus"]).Name(name).
		SubResource("status").Body(body).Do(ctx).Error()
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write status of CalicoNodeStatus %s: %w", name, err)
	}
	return nil
}
