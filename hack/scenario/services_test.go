package scenario

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

const (
	balancedPool = `{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: balanced},
spec: {cidr: 203.0.113.0/29, blockSize: 30, allowedUses: [LoadBalancer], nodeSelector: all()}}`
	balancedRanges = `{"spec":{"serviceLoadBalancerIPs":[{"cidr":"198.51.100.0/24"},{"cidr":"203.0.113.0/29"}]}}`
	formerRanges   = `{"spec":{"serviceLoadBalancerIPs":[{"cidr":"198.51.100.0/24"}]}}`
)

// balanced: Services get addresses out of a pool, and the routers hear each from the
// nodes that serve it as soon as it is given; a Service that goes takes its address
// from them, and the next one gets another. A controller that is killed between finds
// what there was.
func (s spoken) balanced(t *testing.T, ctx context.Context) {
	s.startController(t, "a1")
	s.kubectl(t, ctx, balancedPool, "apply", "-f", "-")
	s.kubectl(t, ctx, "", "patch", "bgpconfiguration.projectcalico.org", "default", "--type=merge", "-p", balancedRanges)
	s.received(t, ctx, "203.0.113.0/29", "a1", "a2", "b1", "b2")

	serve := func(name, address string, nodes ...string) {
		t.Helper()
		s.kubectl(t, ctx, strings.ReplaceAll(endpoints(nodes...), "shared", name), "apply", "-f", "-")
		s.kubectl(t, ctx, strings.ReplaceAll(sharedService, "shared", name), "apply", "-f", "-")
		began := time.Now()
		s.received(t, ctx, address+"/32", nodes...)
		t.Logf("%s of Service %s heard within %s", address, name, time.Since(began).Round(time.Millisecond))
	}
	serve("first", "203.0.113.0", "a1", "b1")
	serve("second", "203.0.113.1", "a2")
	s.kubectl(t, ctx, "", "delete", "service", "first")
	s.received(t, ctx, "203.0.113.0/32")
	s.received(t, ctx, "203.0.113.1/32", "a2")
	if err := s.endProgram("muslin-controller", "a1", os.Kill); err != nil {
		t.Fatal(err)
	}
	s.received(t, ctx, "203.0.113.1/32", "a2")
	s.startController(t, "a1")
	serve("third", "203.0.113.2", "b2")
	s.received(t, ctx, "203.0.113.1/32", "a2")

	s.kubectl(t, ctx, "", "delete", "service", "second", "third")
	s.kubectl(t, ctx, "", "delete", "ippool.projectcalico.org", "balanced")
	s.kubectl(t, ctx, "", "patch", "bgpconfiguration.projectcalico.org", "default", "--type=merge", "-p", formerRanges)
	s.received(t, ctx, "203.0.113.0/29")
}
