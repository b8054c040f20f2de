//go:build soak

package scenario

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muslin-net/muslin/hack/lab/fabric"
	"github.com/muslin-net/muslin/hack/lab/kube"
)

// rolledService are two replicas that go on serving for a while after they are ended,
// behind an address of the pool, which only their nodes announce.
const rolledService = `apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: rolled}
spec: {cidr: 203.0.113.0/29, blockSize: 29, allowedUses: [LoadBalancer], nodeSelector: all()}
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {asNumber: 64512, serviceLoadBalancerIPs: [{cidr: 203.0.113.0/29}]}
---
apiVersion: v1
kind: Service
metadata: {name: rolled, namespace: default}
spec: {type: LoadBalancer, externalTrafficPolicy: Local, selector: {app: rolled}, ports: [{port: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: rolled, namespace: default}
spec:
  replicas: 2
  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  selector: {matchLabels: {app: rolled}}
  template:
    metadata: {labels: {app: rolled}}
    spec:
      terminationGracePeriodSeconds: 30
      affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: rolled}}}]}}
      containers:
      - name: echo
        image: %q
        imagePullPolicy: Never
        args: [serve]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
        lifecycle: {preStop: {sleep: {seconds: 8}}}
`

// TestSoakReplicaRolled replaces the replicas of a Service behind two racks' routers.
func TestSoakReplicaRolled(t *testing.T) {
	tell(t, "mroll", []part{{"replica rolled", story.replicaRolled}})
}

// replicaRolled: a host outside opens connections to a Service with externalTrafficPolicy
// Local all the time, while its replicas are replaced, and one alone is: each is answered.
func (s story) replicaRolled(t *testing.T, ctx context.Context) {
	s.apply(t, ctx, fmt.Sprintf(rolledService, kube.ProbeImage))
	t.Cleanup(func() {
		for _, o := range []string{"deployment", "service", "ippool.projectcalico.org"} {
			s.delete(t, ctx, o, "rolled")
		}
		s.delete(t, ctx, "bgpconfiguration.projectcalico.org", "default")
	})
	s.kubectlOK(t, ctx, "", "rollout", "status", "deployment/rolled", "--timeout=120s")
	var address netip.Addr
	if err := s.eventually(ctx, time.Minute, func() (err error) {
		out, err := s.Kubectl(ctx, "", "get", "service", "rolled", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
		if err != nil {
			return err
		}
		address, err = netip.ParseAddr(string(out))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	s.awaitRolled(t, ctx, address)
	end := s.startConnecting(t, ctx, address)
	s.kubectlOK(t, ctx, "", "rollout", "restart", "deployment/rolled")
	s.kubectlOK(t, ctx, "", "rollout", "status", "deployment/rolled", "--timeout=180s")
	s.awaitRolled(t, ctx, address)
	pod, _, _ := strings.Cut(s.kubectlOK(t, ctx, "", "get", "pods", "-l", "app=rolled", "-o", "jsonpath={.items[*].metadata.name}"), " ")
	s.kubectlOK(t, ctx, "", "delete", "pod", pod, "--timeout=120s")
	s.awaitRolled(t, ctx, address)
	c := end()
	t.Logf("%d connections, %d lost, answered by %d replicas, longest %s", c.opened, len(c.lost), len(c.by), c.longest.Round(time.Millisecond))
	if len(c.by) < 2 { // the router outside may know but one way
		t.Errorf("answered by %v, want a replica of before and one of after", c.by)
	}
	for _, err := range c.lost {
		t.Error(err)
	}
}

// awaitRolled waits until two replicas are all there are, and the router of each node of
// theirs, and none of another, sends packets for the address to it.
func (s story) awaitRolled(t *testing.T, ctx context.Context, address netip.Addr) {
	t.Helper()
	if err := s.eventually(ctx, 2*time.Minute, func() error {
		out, err := s.Kubectl(ctx, "", "get", "pods", "-l", "app=rolled", "-o", "jsonpath={.items[*].spec.nodeName}")
		if err != nil {
			return err
		}
		nodes := strings.Fields(string(out))
		if len(nodes) != 2 {
			return fmt.Errorf("replicas on %v", nodes)
		}
		for _, n := range nodes {
			router := s.rackOf(n).Router
			routes, err := s.Fabric.Routes(router)
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(routes, func(r fabric.Route) bool {
				return r.To.Addr() == address && r.To.IsSingleIP() && slices.ContainsFunc(nodes, func(n string) bool { return r.Via == s.nodeAddr(n) })
			}) {
				return fmt.Errorf("%s of %s has no way to %s by %v: %v", router, n, address, nodes, routes)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// connected are the connections that were opened one after the other.
type connected struct {
	opened  int
	longest time.Duration
	by      map[string]int // answers by replica
	lost    []error
}

// startConnecting opens connections from outside, reads the answer of each and closes
// it, until the returned function is called.
func (s story) startConnecting(t *testing.T, ctx context.Context, to netip.Addr) func() connected {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	t.Cleanup(cancel)
	c, stop := connected{by: map[string]int{}}, make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-ctx.Done():
				return
			case <-time.After(5 * time.Millisecond): // the rate of them
			}
			began := time.Now()
			who, err := s.connect(ctx, to)
			c.opened++
			c.longest = max(c.longest, time.Since(began))
			if c.by[who]++; err != nil {
				c.lost = append(c.lost, fmt.Errorf("connection %d, of %s, after %s: %w", c.opened, began.Format(time.TimeOnly+".000"), time.Since(began), err))
			}
		}
	})
	return func() connected {
		close(stop)
		wg.Wait()
		return c
	}
}

// connect opens one, and gives the name of who answers.
func (s story) connect(ctx context.Context, to netip.Addr) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, err := s.Fabric.Dial(ctx, s.Topology().Outside.Name, "tcp", netip.AddrPortFrom(to, echoPort).String())
	if err != nil {
		return "", err
	}
	return readAnswer(ctx, conn)
}

func readAnswer(ctx context.Context, conn net.Conn) (string, error) {
	defer func() { _ = conn.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return "", err
		}
	}
	out, err := io.ReadAll(conn)
	if f := strings.Fields(string(out)); len(f) == 2 {
		return f[1], err
	}
	return "", fmt.Errorf("answered %q: %w", out, err)
}
