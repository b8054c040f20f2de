package scenario

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// refused are objects that the API server itself turns away, naming the field.
var refused = []struct{ name, yaml, says string }{
	{"peer address that is none", `
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: bad}
spec: {peerIP: 10.1.1.300, asNumber: 65101}`, "peerIP"},
	{"ipip on an IPv6 pool", `
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: bad}
spec: {cidr: "fd00:10:244::/64", ipipMode: Always}`, "ipipMode"},
	{"unknown field", `
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: bad}
spec: {cidr: 10.250.0.0/16, natOutgoings: true}`, "natOutgoings"},
	{"two tunnels at once", `
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: bad}
spec: {cidr: 10.250.0.0/16, ipipMode: Always, vxlanMode: Always}`, "vxlanMode"},
}

// badObjects: what cannot be honoured is refused by the API or shown as a
// condition that names object and field, and everything else keeps working.
func (s story) badObjects(t *testing.T, ctx context.Context) {
	for _, r := range refused {
		_, err := s.Kubectl(ctx, r.yaml, "apply", "-f", "-")
		if err == nil {
			t.Errorf("%s: accepted", r.name)
		} else if !strings.Contains(err.Error(), r.says) {
			t.Errorf("%s: %v, want it to name %s", r.name, err, r.says)
		}
	}
	s.overlappingPool(t, ctx)
	s.unreachablePeer(t, ctx)
	tries, err := s.Matrix(ctx, s.report.Pods)
	if err != nil {
		t.Fatal(err)
	}
	if err := failedTries(tries); err != nil {
		t.Errorf("with bad objects present: %v", err)
	}
}

// overlappingPool: a younger pool that overlaps an older one is not allocatable
// and says why; the older one is.
func (s story) overlappingPool(t *testing.T, ctx context.Context) {
	s.apply(t, ctx, `
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: overlapping}
spec: {cidr: 10.244.128.0/17}`)
	t.Cleanup(func() { s.delete(t, ctx, "ippool.projectcalico.org", "overlapping") })
	s.wantCondition(t, ctx, "ippool.projectcalico.org/overlapping", "Allocatable", "False CIDROverlap", "spec.cidr", "default-ipv4-ippool")
	s.wantCondition(t, ctx, "ippool.projectcalico.org/default-ipv4-ippool", "Allocatable", "True")
}

// unreachablePeer: a peer with an unknown filter is not accepted, and says
// which object and field.
func (s story) unreachablePeer(t *testing.T, ctx context.Context) {
	s.apply(t, ctx, `
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: no-such-filter}
spec: {peerIP: 10.1.0.99, asNumber: 65199, filters: [absent]}`)
	t.Cleanup(func() { s.delete(t, ctx, "bgppeer.projectcalico.org", "no-such-filter") })
	s.wantCondition(t, ctx, "bgppeer.projectcalico.org/no-such-filter", "Accepted", "False", "spec.filters", "absent")
}

func (s story) apply(t *testing.T, ctx context.Context, yaml string) {
	t.Helper()
	if _, err := s.Kubectl(ctx, yaml, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

func (s story) delete(t *testing.T, ctx context.Context, kind, name string) {
	t.Helper()
	if _, err := s.Kubectl(context.WithoutCancel(ctx), "", "delete", kind, name, "--timeout=30s"); err != nil {
		t.Error(err)
	}
}

// wantCondition waits for a condition that begins with "STATUS REASON MESSAGE"
// and holds every word.
func (s story) wantCondition(t *testing.T, ctx context.Context, object, kind, begins string, words ...string) {
	t.Helper()
	path := fmt.Sprintf(`jsonpath={range .status.conditions[?(@.type=="%s")]}{.status} {.reason} {.message}{end}`, kind)
	if err := s.eventually(ctx, 30*time.Second, func() error {
		out, err := s.Kubectl(ctx, "", "get", object, "-o", path)
		if err != nil {
			return err
		}
		for _, w := range append(words, begins) {
			if !strings.Contains(string(out), w) {
				return fmt.Errorf("%s: condition %s is %q, want %q in it", object, kind, out, w)
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
