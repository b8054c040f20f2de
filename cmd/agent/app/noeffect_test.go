package app

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/muslin-net/muslin/cmd/agent/cniserver"
	"github.com/muslin-net/muslin/pkg/kube"
)

// TestWhatPodsAskForInVain: an event of each pod, and one of the node for a
// configuration, however many pods come with it; nothing of what has an effect.
func TestWhatPodsAskForInVain(t *testing.T) {
	v := newNoEffect("n1")
	plain := []byte(`{"type": "muslin", "mtu": 1400, "ipam": {"type": "muslin-ipam"}}`)
	calico := []byte(`{"type": "muslin", "log_level": "info", "ipam": {"type": "calico-ipam"}}`)
	good := cniserver.PodInfo{UID: "1", Annotations: map[string]string{"cni.projectcalico.org/ipAddrs": `["10.1.2.3"]`, "cni.projectcalico.org/podIP": "10.1.2.3/32"}}
	bad := cniserver.PodInfo{UID: "2", Annotations: map[string]string{"qos.projectcalico.org/ingressBandwidth": "1M"}}
	v.added("ns", "good", good, plain)
	v.added("ns", "bad", bad, calico)
	v.added("ns", "other", good, calico)
	v.added("ns", "worse", bad, plain)
	ctx, cancel := context.WithCancel(t.Context())
	var got []string
	v.run(ctx, func(_ context.Context, events []kube.Event) []kube.Event {
		field, _, _ := strings.Cut(events[0].Message, " has no effect")
		got = append(got, events[0].Object.String()+" "+events[0].UID+" "+field)
		if len(got) == 3 {
			cancel()
		}
		return nil
	})
	want := []string{
		"Pod ns/bad 2 metadata.annotations[qos.projectcalico.org/ingressBandwidth]:",
		"Node n1 n1 CNI configuration: plugin muslin.log_level: info",
		"Pod ns/worse 2 metadata.annotations[qos.projectcalico.org/ingressBandwidth]:",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
