package cniserver_test

import (
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/muslin-net/muslin/pkg/cnirpc/client"
)

// Calico's num_queues reaches the wire, within what the kernel takes.
func TestQueuesOfTheConfiguration(t *testing.T) {
	n := start(t, newRooms())
	r := request("c1", "a")
	r.Config = []byte(`{"cniVersion":"1.0.0","name":"k8s-pod-network","type":"muslin","num_queues":4}`)
	n.must(t, client.Add, r)
	if w := n.interfaces[[2]string{"c1", "eth0"}]; w.Queues != 4 {
		t.Errorf("wire with %d queues, want 4", w.Queues)
	}
	r = request("c2", "b")
	r.Config = []byte(`{"cniVersion":"1.0.0","name":"k8s-pod-network","type":"muslin","num_queues":5000}`)
	_, err := n.call(t, client.Add, r)
	wantCode(t, err, types.ErrInvalidNetworkConfig, "num_queues")
}
