package scenario

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/hack/lab/kube"
)

// badPods are pods that cannot get what they ask for; the event that kubelet
// shows says which object, which field and what to do.
var badPods = []struct {
	name, annotation string
	says             []string
}{
	{"annotation that is no list", `cni.projectcalico.org/ipv4pools: default`, []string{"cni.projectcalico.org/ipv4pools", "JSON list"}},
	{"pool that is not there", `cni.projectcalico.org/ipv4pools: '["absent"]'`, []string{"absent"}},
	{"address outside every pool", `cni.projectcalico.org/ipAddrs: '["192.0.2.7"]'`, []string{"192.0.2.7", "pool"}},
	{"address that is taken", `cni.projectcalico.org/ipAddrs: '["TAKEN"]'`, []string{"TAKEN"}},
	{"pool that is full", `cni.projectcalico.org/ipv4pools: '["tiny"]'`, []string{"tiny"}},
	{"floating address", `cni.projectcalico.org/floatingIPs: '["10.244.9.9/32"]'`, []string{"cni.projectcalico.org/floatingIPs", "not an address"}},
	{"MAC that is none", `cni.projectcalico.org/hwAddr: nonsense`, []string{"cni.projectcalico.org/hwAddr", "Ethernet"}},
}

// badPodsSayWhy: each bad pod's event names what is wrong, and the good pods
// keep what they have.
func (s story) badPodsSayWhy(t *testing.T, ctx context.Context) {
	// A pool of one address, reserved: nothing can be had from it.
	s.apply(t, ctx, `
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: tiny}
spec: {cidr: 10.251.0.0/32, blockSize: 32, assignmentMode: Manual}
---
apiVersion: projectcalico.org/v3
kind: IPReservation
metadata: {name: tiny}
spec: {reservedCIDRs: [10.251.0.0/32]}`)
	t.Cleanup(func() {
		s.delete(t, ctx, "ipreservation.projectcalico.org", "tiny")
		s.delete(t, ctx, "ippool.projectcalico.org", "tiny")
	})
	taken := s.report.Pods[0].IP.String()
	for i, bad := range badPods {
		name := fmt.Sprintf("bad-%d", i)
		s.apply(t, ctx, strings.ReplaceAll(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata:
  name: %s
  annotations: {%s}
spec:
  nodeName: %s
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: %q, imagePullPolicy: Never, args: [serve]}]
`, name, bad.annotation, s.report.Pods[0].Node, kube.ProbeImage), "TAKEN", taken))
		t.Cleanup(func() { s.delete(t, ctx, "pod", name) })
	}
	for i, bad := range badPods {
		if err := s.eventually(ctx, time.Minute, func() error {
			out, err := s.Kubectl(ctx, "", "get", "events", "--field-selector", fmt.Sprintf("involvedObject.name=bad-%d,reason=FailedCreatePodSandBox", i),
				"-o", "jsonpath={range .items[*]}{.message}{end}")
			if err != nil {
				return err
			}
			for _, word := range bad.says {
				if word = strings.ReplaceAll(word, "TAKEN", taken); !strings.Contains(string(out), word) {
					return fmt.Errorf("the event is %q, want %q in it", out, word)
				}
			}
			return nil
		}); err != nil {
			t.Errorf("%s: %v", bad.name, err)
		}
	}
}
