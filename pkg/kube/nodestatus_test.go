package kube_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/muslin-net/muslin/pkg/kube"
	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// readStatus reads a CalicoNodeStatus with Calico's own type, which has to know
// every field.
func readStatus(t *testing.T, name string) calico.CalicoNodeStatus {
	t.Helper()
	var out calico.CalicoNodeStatus
	d := json.NewDecoder(bytes.NewBufferString(server.MustKubectl(t, "", "get", "caliconodestatus", name, "-o", "json")))
	d.DisallowUnknownFields()
	if err := d.Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestNodeStatusIsAskedForAndWritten(t *testing.T) {
	apply(t, v3("CalicoNodeStatus", "mine", `{node: n1, classes: [Agent, BGP, Routes], updatePeriodSeconds: 10}`)+
		v3("CalicoNodeStatus", "anothers", `{node: n2, classes: [BGP], updatePeriodSeconds: 10}`))
	c := watch(t, kube.Options{Node: "n1"})
	eventually(t, c, func() string {
		if got := c.StatusRequests(); len(got) != 1 || got[0].Name != "mine" || got[0].Period != 10*time.Second || !got[0].Wants(kube.ClassRoutes) {
			return fmt.Sprintf("requests: %+v", got)
		}
		return ""
	})
	full := kube.NodeStatus{
		LastUpdated: metav1.Now(),
		Agent:       &kube.DaemonStatus{V4: kube.Daemon{State: "Ready", Version: "muslin dev", RouterID: "192.0.2.1"}, V6: kube.Daemon{State: "NotReady"}},
		BGP: &kube.BGPStatus{EstablishedV4: 1, NotEstablishedV6: 2, PeersV4: []kube.NodePeer{
			{PeerIP: "192.0.2.2", Type: "NodeMesh", State: "Established", Since: "2026-01-02T03:04:05Z"}}},
		Routes: &kube.RouteStatus{V4: []kube.NodeRoute{
			{Type: "FIB", Destination: "10.244.2.0/26", Gateway: "192.0.2.2", Interface: "eth0", LearnedFrom: kube.LearnedFrom{SourceType: "NodeMesh", PeerIP: "192.0.2.2"}}}},
	}
	if err := c.WriteNodeStatus(t.Context(), "mine", full); err != nil {
		t.Fatal(err)
	}
	s := readStatus(t, "mine").Status
	if s.LastUpdated.IsZero() || s.Agent.BIRDV4.State != calico.BGPDaemonStateReady || s.Agent.BIRDV4.RouterID != "192.0.2.1" ||
		s.BGP.NumberEstablishedV4 != 1 || s.BGP.NumberNotEstablishedV6 != 2 || len(s.BGP.PeersV4) != 1 || s.BGP.PeersV4[0].Type != calico.BGPPeerTypeNodeMesh ||
		len(s.Routes.RoutesV4) != 1 || s.Routes.RoutesV4[0].LearnedFrom.SourceType != calico.RouteSourceTypeNodeMesh {
		t.Errorf("status: %+v", s)
	}

	less := kube.NodeStatus{LastUpdated: metav1.Now(), BGP: &kube.BGPStatus{}}
	if err := c.WriteNodeStatus(t.Context(), "mine", less); err != nil {
		t.Fatal(err)
	}
	s = readStatus(t, "mine").Status
	if s.Agent.BIRDV4.State != "" || len(s.BGP.PeersV4) != 0 || len(s.Routes.RoutesV4) != 0 {
		t.Errorf("what is no longer there, or not asked for, stays: %+v", s)
	}
	if err := c.WriteNodeStatus(t.Context(), "absent", less); err != nil {
		t.Errorf("an object that is gone: %v", err)
	}
}
