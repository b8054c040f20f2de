package cniserver_test

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muslin-net/muslin/felix/pod"
	"github.com/muslin-net/muslin/pkg/cniserver"
	"github.com/muslin-net/muslin/pkg/model"
)

// benchWires is felix/pod alone; addresses and endpoints are in memory, so the
// figures are the plugin's, the socket's and the kernel's.
type benchWires struct{ p *pod.Plugger }

func (b benchWires) Prepare(context.Context, cniserver.WireSpec) error { return nil }
func (b benchWires) Attach(ctx context.Context, w cniserver.WireSpec) (cniserver.WireResult, error) {
	ep, err := b.p.Attach(ctx, spec(w))
	return cniserver.WireResult{HostMAC: pod.HostMAC.String(), MAC: ep.MAC}, err
}

func (b benchWires) Detach(ctx context.Context, w cniserver.WireSpec) error {
	return b.p.Detach(ctx, w.ContainerID, w.Interface, w.HostInterface)
}

func (b benchWires) Check(ctx context.Context, w cniserver.WireSpec) error {
	return b.p.Check(ctx, spec(w))
}
func (b benchWires) List(ctx context.Context) ([]model.Endpoint, error) { return b.p.List(ctx) }

// BenchmarkExecToExit runs ADD and DEL as a runtime does: one exec each.
func BenchmarkExecToExit(b *testing.B) {
	for _, parallel := range []int{1, 4, 16} {
		b.Run(fmt.Sprintf("x%d", parallel), func(b *testing.B) { benchExec(b, parallel) })
	}
}

func benchExec(b *testing.B, parallel int) {
	bin, err := plugin()
	if err != nil {
		b.Fatal(err)
	}
	nodeNS, _ := newNetns(b)
	plugger, err := pod.New(pod.Options{NetNS: nodeNS})
	if err != nil {
		b.Fatal(err)
	}
	defer plugger.Close()
	n := start(b, newRooms(), func(o *cniserver.Options) { o.Wires = benchWires{plugger} })
	conf := strings.Replace(netconf, "{", fmt.Sprintf(`{"socket":%q,`, n.socket), 1)
	call := func(verb, id, netns string) (time.Duration, error) {
		cmd := exec.Command(filepath.Join(bin, "muslin"))
		cmd.Env = []string{"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + id, "CNI_NETNS=" + netns, "CNI_IFNAME=eth0", "CNI_PATH=" + bin}
		cmd.Stdin = strings.NewReader(conf)
		start := time.Now()
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("%s %s: %w %s", verb, id, err, out)
		}
		return time.Since(start), err
	}
	var mu sync.Mutex
	took := map[string][]time.Duration{}
	work := make(chan int)
	var all sync.WaitGroup
	for w := range parallel {
		podNS, _ := newNetns(b)
		all.Go(func() {
			for i := range work {
				for _, verb := range []string{"ADD", "DEL"} {
					d, err := call(verb, fmt.Sprintf("c%d-%d", w, i), podNS)
					if err != nil {
						b.Error(err)
					}
					mu.Lock()
					took[verb] = append(took[verb], d)
					mu.Unlock()
				}
			}
		})
	}
	begin := time.Now()
	b.ResetTimer()
	for i := range b.N {
		work <- i
	}
	close(work)
	all.Wait()
	b.StopTimer()
	for verb, d := range took {
		slices.Sort(d)
		b.ReportMetric(ms(d[len(d)/2]), strings.ToLower(verb)+"-p50-ms")
		b.ReportMetric(ms(d[len(d)*95/100]), strings.ToLower(verb)+"-p95-ms")
	}
	b.ReportMetric(float64(b.N)/time.Since(begin).Seconds(), "pairs/s")
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
