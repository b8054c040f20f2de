package cniserver_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/cmd/agent/cniserver"
	"github.com/muslin-net/muslin/felix/pod"
	"github.com/muslin-net/muslin/pkg/model"
)

// benchInterfaces is felix/pod alone; addresses and endpoints are in memory, so the
// figures are the plugin's, the socket's and the kernel's.
type benchInterfaces struct{ p *pod.Plugger }

func (b benchInterfaces) Attach(ctx context.Context, w cniserver.InterfaceSpec) (cniserver.InterfaceResult, error) {
	ep, err := b.p.Attach(ctx, spec(w))
	return cniserver.InterfaceResult{HostMAC: pod.HostMAC.String(), MAC: ep.MAC}, err
}

func (b benchInterfaces) Detach(ctx context.Context, w cniserver.InterfaceSpec) error {
	return b.p.Detach(ctx, w.ContainerID, w.Interface, w.HostInterface)
}

func (b benchInterfaces) Check(ctx context.Context, w cniserver.InterfaceSpec) error {
	return b.p.Check(ctx, spec(w))
}
func (b benchInterfaces) List(ctx context.Context) ([]model.Endpoint, error) { return b.p.List(ctx) }

// BenchmarkExecToExit runs ADD and DEL as a runtime does, one exec each and a
// namespace for each sandbox, by turns with Debian's ptp and host-local. Compare
// the two of one run: the machine is rarely idle.
func BenchmarkExecToExit(b *testing.B) {
	for _, parallel := range []int{1, 4, 16} {
		b.Run(fmt.Sprintf("x%d", parallel), func(b *testing.B) { benchExec(b, parallel) })
	}
}

// contender is a plugin with its configuration.
type contender struct{ name, path, conf string }

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
	n := start(b, newRooms(), func(o *cniserver.Options) { o.PodInterfaces = benchInterfaces{plugger} })
	for _, c := range []contender{
		{"muslin", filepath.Join(bin, "muslin"), strings.Replace(netconf, "{", fmt.Sprintf(`{"socket":%q,"spool":%q,`, n.socket, n.spool), 1)},
		{"ptp", "/usr/lib/cni/ptp", fmt.Sprintf(`{"cniVersion":"1.0.0","name":"ptp","type":"ptp","ipam":{"type":"host-local",
		 "dataDir":%q,"ranges":[[{"subnet":"10.9.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}]}}`, b.TempDir())},
	} {
		benchOne(b, c, nodeNS, parallel)
	}
	b.ReportMetric(0, "ns/op")
}

func benchOne(b *testing.B, c contender, nodeNS string, parallel int) {
	count := max(b.N, 100) // one tells nothing
	sandboxes := make([]string, count)
	for i := range sandboxes {
		sandboxes[i], _ = newNetns(b)
	}
	for _, verb := range []string{"ADD", "DEL"} {
		took := make([]time.Duration, count)
		work := make(chan int)
		var all sync.WaitGroup
		for range parallel {
			all.Go(func() {
				runtime.LockOSThread() // never unlocked: the thread stays in the node's namespace
				if err := enterNetns(nodeNS); err != nil {
					b.Error(err)
				}
				for i := range work {
					cmd := exec.Command(c.path)
					cmd.Env = []string{
						"CNI_COMMAND=" + verb, fmt.Sprintf("CNI_CONTAINERID=c%d-%d", parallel, i), "CNI_NETNS=" + sandboxes[i],
						"CNI_IFNAME=eth0", "CNI_PATH=/usr/lib/cni",
					}
					cmd.Stdin = strings.NewReader(c.conf)
					start := time.Now()
					if out, err := cmd.Output(); err != nil {
						b.Errorf("%s %s: %v %s", c.name, verb, err, out)
					}
					took[i] = time.Since(start)
				}
			})
		}
		begin := time.Now()
		for i := range count {
			work <- i
		}
		close(work)
		all.Wait()
		rate := float64(count) / time.Since(begin).Seconds()
		slices.Sort(took)
		name := c.name + "-" + strings.ToLower(verb)
		b.ReportMetric(ms(took[len(took)/2]), name+"-p50-ms")
		b.ReportMetric(ms(took[len(took)*95/100]), name+"-p95-ms")
		b.ReportMetric(rate, name+"/s")
	}
}

func enterNetns(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
