package policynft

import (
	"context"
	"net"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/model"
)

// BenchmarkDenied has a rule deny a thousand packets a second for five seconds, by turns without
// anybody who listens, then with: what the first packet of another rule takes until it is told, and what part of a
// processor the listening costs.
func BenchmarkDenied(b *testing.B) {
	const rate, seconds = 1000, 5
	n := newNode(b)
	pod, one, other := n.hosts[0], n.hosts[1], n.hosts[2]
	n.apply(b, program(map[string]policy.Endpoint{pod.name: {Ingress: "i-0"}, one.name: {}, other.name: {Ingress: "i-1"}}, nil, chain("i-0"),
		chain("i-1", policy.Rule{Verdict: policy.Deny, Origin: policy.Origin{Tier: "kube-admin", Policy: model.Ref{Kind: "ClusterNetworkPolicy", Name: "shut"}}})))
	// send gives what of the process's time was not its own.
	send := func(to host, count int) float64 {
		before, own := processor(), 0.0
		if err := inside(one.ns, func() error {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			began := usage(unix.RUSAGE_THREAD)
			defer func() { own = usage(unix.RUSAGE_THREAD) - began }()
			c, err := net.Dial("udp", at(to.addrs[0], 80).String())
			if err != nil {
				return err
			}
			defer c.Close()
			for end, i := time.Now(), 0; i < count; i++ {
				if _, err := c.Write([]byte("x")); err != nil {
					return err
				}
				end = end.Add(time.Second / rate)
				time.Sleep(time.Until(end))
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
		return processor() - before - own
	}
	var quiet, loud float64
	var first time.Duration
	messages := 0
	for range b.N {
		quiet += send(pod, rate*seconds)

		ctx, cancel := context.WithCancel(b.Context())
		received, ended := make(chan Denied, rate*seconds), make(chan error, 1)
		go func() { ended <- n.sink.Listen(ctx, func(d Denied) { received <- d }) }()
		time.Sleep(time.Second) // until it listens, and until the rule may log a burst again
		loud += send(pod, rate*seconds)
		sent := time.Now()
		send(other, 1)
		for d := range received {
			if messages++; d.Destination.Addr() == other.addrs[0] {
				break
			}
		}
		first += time.Since(sent)
		cancel()
		if err := <-ended; err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(100*(loud-quiet)/float64(b.N*seconds)/1e9, "%-of-a-processor")
	b.ReportMetric(first.Seconds()*1e3/float64(b.N), "ms/told")
	b.ReportMetric(float64(messages)/float64(b.N), "messages")
	b.ReportMetric(0, "ns/op")
}
