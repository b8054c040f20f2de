package policynft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nstest"
	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/model"
)

// denials are the denied packets that were told, each once, without source ports.
type denials struct {
	mu       sync.Mutex
	reported map[string]int
}

func (d *denials) take(k Denied) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reported[fmt.Sprintf("%s: %d %s to %s", k.Denial, k.Protocol, k.Source.Addr(), k.Destination)]++
}

func (d *denials) has(want ...string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !slices.ContainsFunc(want, func(w string) bool { return d.reported[w] == 0 })
}

// listen hears what is denied until the test ends.
func (n *node) denials(t *testing.T) *denials {
	t.Helper()
	d := &denials{reported: map[string]int{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.sink.Listen(ctx, d.take) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("listen: %v", err)
		}
	})
	nstest.Eventually(t, "the group is bound", func() bool {
		return strings.Contains(n.ns.Run("cat", "/proc/net/netfilter/nfnetlink_log"), strconv.Itoa(LogGroup))
	})
	if err := n.sink.Listen(ctx, d.take); !errors.Is(err, unix.EPERM) {
		t.Errorf("a second one that listens: %v", err)
	}
	return d
}

// TestDenied: a denied packet is told with what denied it.
func TestDenied(t *testing.T) {
	n := newNode(t)
	pod, one, two := n.hosts[0], n.hosts[1], n.hosts[2]
	long := policy.Origin{Tier: "default", Policy: model.Ref{Kind: "NetworkPolicy", Namespace: strings.Repeat("n", 63), Name: strings.Repeat("x", 63)}}
	rule := func(port uint16, o policy.Origin) policy.Rule {
		return policy.Rule{Protocol: tcp, Destination: policy.Side{Ports: []policy.PortRange{{First: port, Last: port}}}, Verdict: policy.Deny, Origin: o}
	}
	short := policy.Origin{Tier: "kube-admin", Policy: model.Ref{Kind: "ClusterNetworkPolicy", Name: "shut"}, Index: 2}
	p := program(map[string]policy.Endpoint{pod.name: {Ingress: "i-0"}, one.name: {Egress: "e-0"}}, nil,
		chain("i-0", rule(80, short), rule(81, long)),
		chain("e-0", policy.Rule{Protocol: tcp, Verdict: policy.Allow}))
	n.apply(t, p)
	d := n.denials(t)
	for _, k := range []struct {
		from     *nstest.NS
		protocol uint8
		to       int
		port     uint16
	}{{one.ns, tcp, 0, 80}, {n.hosts[3].ns, tcp, 1, 81}, {n.hosts[3].ns, udp, 0, 443}, {one.ns, udp, 1, 443}, {two.ns, tcp, 0, 80}} {
		if reaches(k.from, k.protocol, at(pod.addrs[k.to], k.port)) {
			t.Errorf("port %d is open", k.port)
		}
	}
	_, _ = two.ns.Try("ping", "-c1", "-W1", pod.addrs[1].String())
	want := []string{
		fmt.Sprintf("ingress kube-admin ClusterNetworkPolicy shut rule 2: 6 %s to %s", one.addrs[0], at(pod.addrs[0], 80)),
		fmt.Sprintf("ingress %s: 6 %s to %s", long, n.hosts[3].addrs[1], at(pod.addrs[1], 81)),
		fmt.Sprintf("ingress default end: 17 %s to %s", n.hosts[3].addrs[0], at(pod.addrs[0], 443)),
		fmt.Sprintf("egress default end: 17 %s to %s", one.addrs[1], at(pod.addrs[1], 443)),
		fmt.Sprintf("egress a pod that is not known yet: 6 %s to %s", two.addrs[0], at(pod.addrs[0], 80)),
		fmt.Sprintf("egress a pod that is not known yet: 58 %s to %s", two.addrs[1], at(pod.addrs[1], 0)),
	}
	nstest.Eventually(t, "every denied packet is told", func() bool { return d.has(want...) })
	for direction, least := range map[string]uint64{ingress: 3, egress: 3} {
		if got, err := n.sink.Dropped(direction); err != nil || got < least {
			t.Errorf("%s: %d dropped, want %d at least: %v", direction, got, least, err)
		}
	}
	if t.Failed() {
		t.Log(d.reported)
	}
}

// TestMoreThanIsLogged: what is beyond the rate of the log is dropped all the same.
func TestMoreThanIsLogged(t *testing.T) {
	n := newNode(t)
	pod, one := n.hosts[0], n.hosts[1]
	n.apply(t, program(map[string]policy.Endpoint{pod.name: {Ingress: "i-0"}, one.name: {}}, nil, chain("i-0")))
	d := n.denials(t)
	const sent = 3 * logBurst
	if err := inside(one.ns, func() error {
		c, err := net.Dial("udp", at(pod.addrs[0], 80).String())
		if err != nil {
			return err
		}
		defer c.Close()
		for range sent {
			if _, err := c.Write([]byte("x")); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	nstest.Eventually(t, "all are dropped", func() bool {
		got, err := n.sink.Dropped(ingress)
		return err == nil && got == sent
	})
	key := fmt.Sprintf("ingress default end: 17 %s to %s", one.addrs[0], at(pod.addrs[0], 80))
	nstest.Eventually(t, "some are told", func() bool { return d.has(key) })
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reported[key] >= sent {
		t.Errorf("%d of %d packets were logged", d.reported[key], sent)
	}
}

// TestQuiet: a kernel that cannot log enforces the same.
func TestQuiet(t *testing.T) {
	n := newNode(t)
	n.sink.discard = true
	pod, one := n.hosts[0], n.hosts[1]
	p := program(map[string]policy.Endpoint{pod.name: {Ingress: "i-0"}, one.name: {}}, nil,
		chain("i-0", policy.Rule{Verdict: policy.Log}, policy.Rule{Protocol: tcp, Verdict: policy.Allow}))
	n.apply(t, p)
	if !reaches(one.ns, tcp, at(pod.addrs[0], 80)) || reaches(one.ns, udp, at(pod.addrs[0], 80)) {
		t.Error("without logs other packets pass")
	}
	if text := n.ns.Run("nft", "list", "table", "inet", TableName); strings.Contains(text, "log") {
		t.Errorf("something is logged:\n%s", text)
	}
	loud, err := New(Options{NetNS: n.ns.Path, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer loud.Close()
	if err := loud.Apply(t.Context(), p, []string{"cali"}); err != nil {
		t.Fatal(err)
	}
	if text := n.ns.Run("nft", "list", "chain", "inet", TableName, "i-0"); !strings.Contains(text, `log prefix "muslin-policy ingress `) {
		t.Errorf("the action Log does not name its policy:\n%s", text)
	}
}

// FuzzHeaders: whatever a packet is, reading it ends.
func FuzzHeaders(f *testing.F) {
	f.Add([]byte{0x45, 0, 0, 20})
	f.Add(append([]byte{0x60, 0, 0, 0, 0, 0, 44}, make([]byte, 60)...))
	f.Fuzz(func(_ *testing.T, b []byte) { _ = new(Denied).parse(b) })
}
