package pod

import (
	"context"
	"sync"
	"testing"

	"github.com/muslin-net/muslin/felix/internal/nstest"
)

// BenchmarkAttachDetach plugs a pod in and out again, one after the other.
func BenchmarkAttachDetach(b *testing.B) {
	node, ns := nstest.New(b), nstest.New(b)
	p, err := New(Options{NetNS: node.Path})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	for b.Loop() {
		if _, err := p.Attach(context.Background(), spec(1, ns)); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := p.Detach(context.Background(), spec(1, ns).ContainerID, "eth0", spec(1, ns).HostInterface); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// BenchmarkDetach50 unplugs 50 pods at once.
func BenchmarkDetach50(b *testing.B) {
	node := nstest.New(b)
	p, err := New(Options{NetNS: node.Path})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	var specs []Spec
	for i := range 50 {
		specs = append(specs, spec(i+1, nstest.New(b)))
	}
	for b.Loop() {
		b.StopTimer()
		for _, s := range specs {
			if _, err := p.Attach(context.Background(), s); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		var wg sync.WaitGroup
		for _, s := range specs {
			wg.Go(func() {
				if err := p.Detach(context.Background(), s.ContainerID, s.Interface, s.HostInterface); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
	}
}
