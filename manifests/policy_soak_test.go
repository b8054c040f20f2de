//go:build soak

package manifests_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	cnitypes "github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

// yard is one node with a real agent and a real API server, and a host beyond it. The node's pods share a
// block of 64 addresses.
type yard struct {
	t       *testing.T
	s       *kubetest.Server
	n       *kubetest.Node
	client  kubernetes.Interface
	plugin  string
	beyond  string // the network namespace of the host beyond
	counted atomic.Int64
}

// Addresses of the link between the node and the host beyond, and the pods'.
const (
	gate     = "10.2.0.254"
	outside  = "10.2.0.5"
	other    = "10.2.0.6"
	podBlock = "10.77.0.0/26"
)

// Ports that are sent to.
const (
	service  = 80
	listener = 9999
	nodePort = 9997
)

func newYard(t *testing.T, objects string) *yard {
	t.Helper()
	s := kubetest.StartWithCRDs(t)
	s.Install(t)
	s.MustKubectl(t, `{apiVersion: v1, kind: List, items: [
  {apiVersion: v1, kind: Node, metadata: {name: elsewhere}},
  {apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: v4}, spec: {cidr: `+podBlock+`, blockSize: 26}},
  {apiVersion: projectcalico.org/v3, kind: BGPConfiguration, metadata: {name: default}, spec: {nodeToNodeMeshEnabled: false}}]}`, "apply", "-f", "-")
	s.MustKubectl(t, objects, "apply", "-f", "-")
	y := &yard{t: t, s: s, n: s.NewNode(t, "yard"), client: kubernetes.NewForConfigOrDie(s.Config())}
	y.beyond = y.netns("beyond")
	y.n.Exec("sysctl", "-qw", "net.ipv4.ip_forward=1").Run()
	for _, words := range []string{"link add beyond type veth peer name eth0 netns " + y.beyond, "addr add " + gate + "/24 dev beyond", "link set beyond up"} {
		y.must(y.n.Exec("ip", strings.Fields(words)...))
	}
	for _, words := range []string{"link set lo up", "addr add " + outside + "/24 dev eth0", "addr add " + other + "/24 dev eth0", "link set eth0 up", "route add default via " + gate} {
		y.must(exec.Command("ip", append([]string{"-n", y.beyond}, strings.Fields(words)...)...))
	}
	return y
}

func (y *yard) must(cmd *exec.Cmd) string {
	y.t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		y.t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return string(out)
}

// netns makes a network namespace.
func (y *yard) netns(name string) string {
	y.t.Helper()
	name = y.n.Netns + "-" + name
	y.must(exec.Command("ip", "netns", "add", name))
	y.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	return name
}

func (y *yard) start(command ...string) {
	y.t.Helper()
	y.n.StartAgent(command...)
	y.n.Await("ready", func() bool { code, _, err := y.n.Get("/readyz"); return err == nil && code == 200 })
}

// pod is one of the node, in a network namespace that others had before.
type pod struct {
	name, netns string
	addr        netip.Addr
}

// add makes the object of a pod and has the plugin wire it at once, as early as a runtime may.
func (y *yard) add(netns, role string) (*pod, error) {
	p := &pod{name: fmt.Sprintf("%s-%d", role, y.counted.Add(1)), netns: netns}
	_, err := y.client.CoreV1().Pods("default").Create(context.Background(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: p.name, Labels: map[string]string{"role": role}},
		Spec:       corev1.PodSpec{NodeName: y.n.Name, Containers: []corev1.Container{{Name: "c", Image: "none"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	out, err := y.cni("ADD", p)
	// A recorded DEL has its address until it is done.
	for tries := 0; err != nil && bytes.Contains(out, []byte(fmt.Sprintf(`{"code":%d,`, cnitypes.ErrTryAgainLater))) && tries < 100; tries++ {
		time.Sleep(10 * time.Millisecond)
		out, err = y.cni("ADD", p)
	}
	var result struct {
		IPs []struct{ Address netip.Prefix }
	}
	if err == nil {
		err = json.Unmarshal(out, &result)
	}
	if err != nil || len(result.IPs) == 0 {
		return nil, fmt.Errorf("ADD of %s: %w: %s", p.name, err, out)
	}
	p.addr = result.IPs[0].Address.Addr()
	return p, nil
}

// remove has the plugin take a pod away; its object goes a while after.
func (y *yard) remove(p *pod) error {
	if out, err := y.cni("DEL", p); err != nil {
		return fmt.Errorf("DEL of %s: %w: %s", p.name, err, out)
	}
	go func() {
		_ = y.client.CoreV1().Pods("default").Delete(context.Background(), p.name, *metav1.NewDeleteOptions(0))
	}()
	return nil
}

func (y *yard) cni(verb string, p *pod) ([]byte, error) {
	cmd := exec.Command(y.plugin)
	cmd.Env = []string{
		"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + p.name, "CNI_NETNS=/run/netns/" + p.netns, "CNI_IFNAME=eth0", "CNI_PATH=/",
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + p.name + ";K8S_POD_INFRA_CONTAINER_ID=" + p.name,
	}
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"cniVersion":"1.1.0","name":"k8s-pod-network","type":"muslin","socket":%q,"spool":%q}`, y.n.File("agent.sock"), y.n.File("state/cni-spool")))
	return cmd.CombinedOutput()
}

// udp is a socket of a network namespace that never blocks.
type udp int

func (y *yard) udp(name string, at netip.AddrPort) udp {
	y.t.Helper()
	var fd int
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		done <- func() error {
			there, err := netns.GetFromName(name)
			if err != nil {
				return err
			}
			defer there.Close()
			if err := netns.Set(there); err != nil {
				return err
			}
			if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
				return err
			}
			return unix.Bind(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()})
		}()
	}()
	if err := <-done; err != nil {
		y.t.Fatal(err)
	}
	y.t.Cleanup(func() { _ = unix.Close(fd) })
	return udp(fd)
}

// send reports whether a packet left.
func (u udp) send(to netip.AddrPort, text string) bool {
	return unix.Sendto(int(u), []byte(text), 0, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}) == nil
}

// receive gives a packet, if one has come.
func (u udp) receive() (text string, from netip.AddrPort, ok bool) {
	var b [64]byte
	n, peer, err := unix.Recvfrom(int(u), b[:], 0)
	if err != nil {
		return "", from, false
	}
	if p, is := peer.(*unix.SockaddrInet4); is {
		from = netip.AddrPortFrom(netip.AddrFrom4(p.Addr), uint16(p.Port))
	}
	return string(b[:n]), from, true
}

// drain counts what has come.
func (u udp) drain() (count int64) {
	for _, _, ok := u.receive(); ok; _, _, ok = u.receive() {
		count++
	}
	return count
}

// again calls f again and again, a pause in between, until stop is closed.
func again(stop <-chan struct{}, pause time.Duration, f func()) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(pause):
			f()
		}
	}
}

func anyAt(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.IPv4Unspecified(), port) }

func at(addr string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(addr), port)
}

// everyAddress is what may be a pod's.
func everyAddress() (out []netip.Addr) {
	for a, p := netip.MustParsePrefix(podBlock).Addr(), netip.MustParsePrefix(podBlock); p.Contains(a); a = a.Next() {
		out = append(out, a)
	}
	return out
}

var replacements = flag.Int("replacements", 10_000, "how many pods TestSoakReplacedPods replaces")

// workers start pods at the same time.
const workers = 4

// each shares a number of starts among workers, each with a network namespace of its own. An error ends the test.
func (y *yard) each(total int, work func(worker int, netns string, count int) error) {
	y.t.Helper()
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		ns := y.netns(fmt.Sprint("w", w))
		y.must(exec.Command("ip", "-n", ns, "link", "set", "lo", "up"))
		wg.Go(func() { errs[w] = work(w, ns, total/workers) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		y.t.Fatalf("%v\n%s", err, y.n.Log())
	}
}

// TestSoakFirstPacket starts a thousand pods under default deny. Each has a sender in its network namespace from
// before its link is there, and all addresses are sent to from beyond the node: nothing comes through, in
// either direction, nor to the node. Without the policy both do.
func TestSoakFirstPacket(t *testing.T) {
	y := newYard(t, `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny, namespace: default}, spec: {podSelector: {}, policyTypes: [Ingress, Egress]}}`)
	programs := kubetest.Programs(t, "./cmd/agent", "./cmd/cni")
	y.plugin = filepath.Join(programs, "cni")
	y.start(filepath.Join(programs, "agent"))
	in, node, out := y.udp(y.beyond, anyAt(listener)), y.udp(y.n.Netns, anyAt(nodePort)), y.udp(y.beyond, at(outside, 5000))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		again(stop, 3*time.Millisecond, func() {
			for _, a := range everyAddress() {
				out.send(netip.AddrPortFrom(a, service), "from beyond")
			}
		})
	}()
	const starts = 1000
	var through, sent atomic.Int64
	start := func(ns string, own udp, until func() bool) error {
		ended := make(chan struct{})
		over := sync.WaitGroup{}
		over.Go(func() {
			again(ended, 200*time.Microsecond, func() {
				if own.send(at(outside, listener), "from a pod") {
					sent.Add(1)
				}
				own.send(at(y.n.Address, nodePort), "from a pod")
				if _, _, ok := own.receive(); ok {
					through.Add(1)
				}
			})
		})
		defer over.Wait()
		defer close(ended)
		p, err := y.add(ns, "fresh")
		if err != nil {
			return err
		}
		for before, end := sent.Load(), time.Now().Add(2*time.Minute); !until() || sent.Load() < before+10; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				return errors.New("a pod sends nothing")
			}
		}
		return y.remove(p)
	}
	began := time.Now()
	y.each(starts, func(_ int, ns string, count int) error {
		own := y.udp(ns, anyAt(service))
		for range count {
			if err := start(ns, own, func() bool { return true }); err != nil {
				return err
			}
		}
		return nil
	})
	came := func() (count int64) { return in.drain() + node.drain() }
	arrived := came()
	t.Logf("%d starts in %s: %d packets sent by pods, %d of them through, %d through to pods", starts, time.Since(began), sent.Load(), arrived, through.Load())
	if arrived+through.Load() != 0 {
		t.Errorf("of %d packets %d came out of pods before or against their policy, and %d came in", sent.Load(), arrived, through.Load())
	}
	y.s.MustKubectl(t, "", "delete", "networkpolicy", "deny")
	y.n.Await("the policy is gone", func() bool { return y.n.Exec("nft", "list", "table", "inet", "muslin-policy").Run() != nil })
	ns := y.netns("open")
	if err := start(ns, y.udp(ns, anyAt(service)), func() bool { return through.Load() > 0 && came() > 0 }); err != nil {
		t.Errorf("without a policy: %v", err)
	}
	close(stop)
	<-done
}

// TestSoakReplacedPods replaces pods on a full block ten thousand times, by others with another policy. Those that
// may get nothing get nothing of what is sent to their address, and no one else has from them what the
// owner before might send; whoever may, gets it.
func TestSoakReplacedPods(t *testing.T) {
	y := newYard(t, `{apiVersion: v1, kind: List, items: [
  {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: shut, namespace: default}, spec: {podSelector: {matchLabels: {role: shut}}, policyTypes: [Ingress, Egress]}},
  {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: db, namespace: default}, spec: {podSelector: {matchLabels: {role: db}}, ingress: [{from: [{podSelector: {matchLabels: {role: open}}}]}]}}]}`)
	programs := kubetest.Programs(t, "./cmd/agent", "./cmd/cni")
	y.plugin = filepath.Join(programs, "cni")
	y.start(filepath.Join(programs, "agent"))
	var wrong, wrongFrom, wrongToDB atomic.Int64
	db, err := y.add(y.netns("db"), "db")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 64 - 1 - workers {
		if _, err := y.add(y.netns(fmt.Sprint("fill", i)), "fill"); err != nil {
			t.Fatal(err)
		}
	}
	stop := make(chan struct{})
	var around sync.WaitGroup
	dbSocket, in, out := y.udp(db.netns, anyAt(service)), y.udp(y.beyond, anyAt(listener)), y.udp(y.beyond, at(outside, 5000))
	answers := func(u udp, wrong *atomic.Int64, allowed string) {
		again(stop, time.Millisecond, func() {
			for text, from, ok := u.receive(); ok; text, from, ok = u.receive() {
				if !strings.Contains(allowed, text) {
					wrong.Add(1)
				}
				u.send(from, "answer")
			}
		})
	}
	around.Go(func() { answers(dbSocket, &wrongToDB, "open") })
	around.Go(func() { answers(in, &wrongFrom, "open stray") })
	around.Go(func() {
		again(stop, 2*time.Millisecond, func() {
			for _, a := range everyAddress() {
				out.send(netip.AddrPortFrom(a, service), "from beyond")
			}
			out.drain()
		})
	})
	began, least := time.Now(), new(atomic.Int64)
	y.each(*replacements, func(_ int, ns string, count int) error {
		own := y.udp(ns, anyAt(service))
		for range count {
			role := []string{"open", "shut", "stray"}[rand.IntN(3)]
			got, err := y.replaced(ns, own, role, db.addr)
			if err != nil {
				return err
			}
			if wrong.Add(int64(got)); role != "shut" {
				least.Add(1)
			}
		}
		return nil
	})
	close(stop)
	around.Wait()
	t.Logf("%d replacements in %s, %d of them by pods that may get packets, and got some", *replacements, time.Since(began), least.Load())
	if wrong.Load()+wrongFrom.Load()+wrongToDB.Load() != 0 {
		t.Errorf("%d packets to pods that may get none, %d from such, %d to one that is for others", wrong.Load(), wrongFrom.Load(), wrongToDB.Load())
	}
}

// exposed is how long a pod that may get nothing is sent to.
const exposed = 20 * time.Millisecond

// replaced is the life of one pod. It gives how many packets it got that it may not.
func (y *yard) replaced(ns string, own udp, role string, db netip.Addr) (wrong int, err error) {
	gone := rand.IntN(2) == 0 // else the link of the owner before may still be there, and it gets what is its own
	for gone && exec.Command("ip", "-n", ns, "link", "show", "eth0").Run() == nil {
		time.Sleep(time.Millisecond)
	}
	own.drain()
	p, err := y.add(ns, role)
	if err != nil {
		return 0, err
	}
	if early := own.drain(); gone && role == "shut" {
		wrong += int(early)
	}
	fromBeyond, fromDB := 0, 0
	done := func(since time.Duration) bool {
		switch role {
		case "open":
			return fromBeyond > 0 && fromDB > 0
		case "stray":
			return fromBeyond > 0 && since > exposed
		}
		return since > exposed
	}
	for began := time.Now(); !done(time.Since(began)); time.Sleep(time.Millisecond) {
		if time.Since(began) > 2*time.Minute {
			return 0, fmt.Errorf("%s at %s got %d packets from beyond, and %d answers of another pod", p.name, p.addr, fromBeyond, fromDB)
		}
		own.send(netip.AddrPortFrom(db, service), role)
		own.send(at(outside, listener), role)
		for _, from, ok := own.receive(); ok; _, from, ok = own.receive() {
			if from.Addr() == db {
				fromDB++
			} else if fromBeyond++; role == "open" {
				own.send(from, role) // the connection is established
			}
		}
	}
	if role == "shut" {
		wrong += fromBeyond
	}
	if role != "open" {
		wrong += fromDB
	}
	return wrong, y.remove(p)
}

// seen counts packets of each sender to pods, as they come to the node and as they leave it.
const seen = `table inet seen {
	chain before { type filter hook prerouting priority -400; ip saddr ` + outside + ` udp dport 80 counter; ip saddr ` + other + ` udp dport 80 counter; }
	chain behind { type filter hook postrouting priority 400; ip saddr ` + outside + ` udp dport 80 counter; ip saddr ` + other + ` udp dport 80 counter; }
}`

// TestSoakKilledUnderChurn kills the agent ten times and the policy relay ten times while policies and peers change. Who is
// allowed loses no packet, from whom is not none comes through, and an agent that comes back to what is as it was changes nothing.
func TestSoakKilledUnderChurn(t *testing.T) {
	y, killController := newRelayed(t)
	n := y.n
	server, err := y.add(y.netns("server"), "server")
	if err != nil {
		t.Fatal(err)
	}
	remotePod(t, y.s, "client", "client", outside)
	remotePod(t, y.s, "other", "other", other)
	n.Await("the client is known", func() bool {
		_, text, err := n.Get("/show")
		return err == nil && strings.Contains(text, outside)
	})
	y.must(n.Exec("nft", seen))
	stop := make(chan struct{})
	var around sync.WaitGroup
	for _, from := range []string{outside, other} {
		var sockets []udp
		for range 64 {
			sockets = append(sockets, y.udp(y.beyond, at(from, 0)))
		}
		i := 0
		around.Go(func() {
			again(stop, 2*time.Millisecond, func() { sockets[i%64].send(netip.AddrPortFrom(server.addr, service), "x"); i++ })
		})
	}
	churn := newChurn(y)
	const kills = 10
	for i := range kills {
		churn.runFor(2 * time.Second)
		if i%2 == 0 {
			churn.settle()
			monitor, end := monitored(t, n)
			n.StopAgent()
			y.restart()
			end()
			if changes := monitor.String(); strings.Contains(changes, "muslin-policy") {
				t.Errorf("an agent that came back changed what was as it should be:\n%s", changes)
			}
		} else {
			going := churn.start()
			n.StopAgent()
			time.Sleep(500 * time.Millisecond) // what changes while it is away
			y.restart()
			going()
		}
		churn.settle()
		going := churn.start()
		killController()
		killController = startController(t, n, filepath.Join(y.plugin, "../controller"))
		time.Sleep(time.Second)
		going()
	}
	churn.settle()
	close(stop)
	around.Wait()
	before, behind := y.counters("before"), y.counters("behind")
	t.Logf("%d kills of each, %d changes: of the client %s came, %s passed; of another %s came, %s passed", kills, churn.changes, before[0], behind[0], before[1], behind[1])
	if before[0] != behind[0] || behind[1] != "0" || before[1] == "0" {
		t.Errorf("of the client came %s and passed %s; of another came %s and passed %s", before[0], behind[0], before[1], behind[1])
	}
}

// newRelayed is a yard whose agent has pods of other nodes from the controller's policy relay.
func newRelayed(t *testing.T) (*yard, func()) {
	t.Helper()
	y := newYard(t, `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: server, namespace: default},
  spec: {podSelector: {matchLabels: {role: server}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{protocol: UDP, port: 80}]}]}}`)
	s, n := y.s, y.n
	s.MustKubectl(t, "", "apply", "-k", kubetest.Root()+"/manifests/overlays/policy-relay")
	programs := kubetest.Programs(t, "./cmd/agent", "./cmd/cni", "./cmd/controller")
	y.plugin = filepath.Join(programs, "cni")
	relayed(t, s, n)
	end := startController(t, n, filepath.Join(programs, "controller"))
	y.restart()
	return y, end
}

func (y *yard) restart() {
	y.t.Helper()
	y.start("env", "MUSLIN_POLICY_RELAY="+y.n.File("relay-token"), filepath.Join(y.plugin, "../agent"))
}

// counters gives those of a chain of seen.
func (y *yard) counters(chain string) (out []string) {
	y.t.Helper()
	for _, behind := range strings.Split(y.must(y.n.Exec("nft", "list", "chain", "inet", "seen", chain)), " packets ")[1:] {
		count, _, _ := strings.Cut(behind, " ")
		out = append(out, count)
	}
	return out
}

// churn changes policies and peers of a server.
type churn struct {
	*yard
	changes int
}

func newChurn(y *yard) *churn { return &churn{yard: y} }

// step changes one thing: the rules of the server's policy, which policies it has, or who its peers are.
func (c *churn) step() {
	switch c.changes++; c.changes % 4 {
	case 0:
		c.rule()
	case 1:
		c.policy(c.changes%8 == 1)
	default:
		c.peer()
	}
}

// rule has the server get another port, beside the one that is tried.
func (c *churn) rule() {
	_, err := c.client.NetworkingV1().NetworkPolicies("default").Patch(context.Background(), "server", "application/merge-patch+json", fmt.Appendf(nil,
		`{"spec":{"ingress":[{"from":[{"podSelector":{"matchLabels":{"app":"client"}}}],"ports":[{"protocol":"UDP","port":80},{"protocol":"UDP","port":%d}]}]}}`, c.port()), metav1.PatchOptions{})
	if err != nil {
		c.t.Error(err)
	}
}

// policy has the server have one policy more, or one fewer.
func (c *churn) policy(more bool) {
	policies := c.client.NetworkingV1().NetworkPolicies("default")
	if !more {
		_ = policies.Delete(context.Background(), "more", metav1.DeleteOptions{})
		return
	}
	_, _ = policies.Create(context.Background(), &networking.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "more"},
		Spec:       networking.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"role": "server"}}, Ingress: []networking.NetworkPolicyIngressRule{{Ports: []networking.NetworkPolicyPort{{}}}}},
	}, metav1.CreateOptions{})
}

// peer has a client of another address elsewhere.
func (c *churn) peer() {
	pods := c.client.CoreV1().Pods("default")
	_ = pods.Delete(context.Background(), "passing", *metav1.NewDeleteOptions(0))
	_, err := pods.Create(context.Background(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "passing", Labels: map[string]string{"app": "client"}},
		Spec:       corev1.PodSpec{NodeName: "elsewhere", Containers: []corev1.Container{{Name: "c", Image: "none"}}},
	}, metav1.CreateOptions{})
	if err == nil {
		_, err = pods.Patch(context.Background(), "passing", "application/merge-patch+json", fmt.Appendf(nil, `{"status":{"podIP":%q,"podIPs":[{"ip":%[1]q}]}}`, c.address()), metav1.PatchOptions{}, "status")
	}
	if err != nil {
		c.t.Error(err)
	}
}

func (c *churn) port() int       { return 1000 + c.changes }
func (c *churn) address() string { return fmt.Sprintf("10.98.%d.%d", c.changes/250, 1+c.changes%250) }

// start changes things until the function that it gives is called.
func (c *churn) start() (end func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { defer close(done); again(stop, 20*time.Millisecond, c.step) }()
	return func() { close(stop); <-done }
}

func (c *churn) runFor(d time.Duration) {
	end := c.start()
	time.Sleep(d)
	end()
}

// settle changes a rule and a peer, and waits until both are in the kernel.
func (c *churn) settle() {
	c.t.Helper()
	c.changes++
	c.policy(false)
	c.rule()
	c.peer()
	c.n.Await("the last change is in the kernel", func() bool {
		text, err := c.n.Exec("nft", "list", "table", "inet", "muslin-policy").CombinedOutput()
		return err == nil && bytes.Contains(text, []byte(fmt.Sprint(c.port()))) && bytes.Contains(text, []byte(c.address()))
	})
}
