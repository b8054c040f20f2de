package app_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	typed "k8s.io/client-go/kubernetes/typed/networking/v1"

	"golang.org/x/sys/unix"
)

// otherPolicies are in the cluster beside those that are measured, and select no pod of the two nodes.
const otherPolicies = 1_000

// echoPort is UDP.
const echoPort = 7

// inNamespace runs do in a network namespace; sockets that it opens stay there.
func inNamespace(ns *os.File, do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- do()
	}()
	return <-done
}

// echo answers what comes to echoPort of a pod until the test ends.
func echo(t testing.TB, ns *os.File) {
	t.Helper()
	var conn net.PacketConn
	if err := inNamespace(ns, func() (err error) {
		conn, err = net.ListenPacket("udp4", fmt.Sprintf(":%d", echoPort))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buffer := make([]byte, 64)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(buffer[:n], from)
		}
	}()
}

// probes sends a packet each millisecond, from one of its ports after the other, so that each is the first of its connection
// as long as there are enough of them.
type probes struct {
	mu       sync.Mutex
	sent     []time.Time
	answered []bool
	conns    []net.PacketConn
	stop     chan struct{}
	ended    sync.WaitGroup
}

func probe(t testing.TB, from *os.File, to string, sockets int) *probes {
	t.Helper()
	target := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(to), echoPort))
	p := &probes{stop: make(chan struct{})}
	if err := inNamespace(from, func() error {
		for range sockets {
			c, err := net.ListenPacket("udp4", ":0")
			if err != nil {
				return err
			}
			p.conns = append(p.conns, c)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, c := range p.conns {
		p.ended.Go(func() {
			buffer := make([]byte, 64)
			for {
				n, _, err := c.ReadFrom(buffer)
				if err != nil {
					return
				}
				if n == 8 {
					p.mu.Lock()
					p.answered[binary.BigEndian.Uint64(buffer)] = true
					p.mu.Unlock()
				}
			}
		})
	}
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-p.stop:
				return
			case <-tick.C:
			}
			p.mu.Lock()
			p.sent, p.answered = append(p.sent, time.Now()), append(p.answered, false)
			p.mu.Unlock()
			_, _ = p.conns[i%len(p.conns)].WriteTo(binary.BigEndian.AppendUint64(nil, uint64(i)), target)
		}
	}()
	return p
}

func (p *probes) close() {
	close(p.stop)
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.ended.Wait()
}

// since gives the first packet after a moment from which on packets are answered, or are not, for a fifth of a second.
func (p *probes) since(t testing.TB, began time.Time, answered bool) time.Time {
	t.Helper()
	const steady = 200 * time.Millisecond
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		p.mu.Lock()
		last := len(p.sent) - 1 // the last one that is otherwise
		for last >= 0 && p.sent[last].After(began) && (p.answered[last] == answered || answered && time.Since(p.sent[last]) < steady) {
			last--
		}
		var first time.Time
		if last+1 < len(p.sent) {
			first = p.sent[last+1]
		}
		p.mu.Unlock()
		if !first.IsZero() && time.Since(first) > 2*steady {
			return first
		}
	}
	t.Fatalf("packets are not answered: %v, five minutes after it should be so", !answered)
	return time.Time{}
}

// shortMemory has a node forget connections of UDP after a second.
func (m *member) shortMemory() {
	m.f.t.Helper()
	m.inside("sysctl", "-qw", "net.netfilter.nf_conntrack_udp_timeout=1", "net.netfilter.nf_conntrack_udp_timeout_stream=1")
}

// plain gives the node a pod without any agent, which is known to the API.
func (m *member) plain(address string) {
	m.f.t.Helper()
	m.pod, m.podIP = makeNamespaces(m.f.t, 1)[0], address
	m.inside("ip", "link", "add", "plain", "type", "veth", "peer", "name", "eth0", "netns", m.netnsOfPod())
	m.inside("ip", "link", "set", "plain", "up")
	m.inside("ip", "route", "add", address, "dev", "plain")
	m.inside("sysctl", "-qw", "net.ipv4.conf.plain.proxy_arp=1", "net.ipv4.ip_forward=1")
	for _, args := range [][]string{{"addr", "add", address + "/32", "dev", "eth0"}, {"link", "set", "eth0", "up"}, {"route", "add", "default", "dev", "eth0"}} {
		m.f.run(m.inPod("ip", args...))
	}
	m.object("p-" + m.name)
	m.f.server.MustKubectl(m.f.t, "", "patch", "pod", "p-"+m.name, "--subresource=status", "-p",
		fmt.Sprintf(`{"status":{"phase":"Running","hostIP":%q,"podIP":%q,"podIPs":[{"ip":%q}]}}`, m.address, address, address))
}

// kubeRouter starts the policy controller of kube-router on a node.
func (m *member) kubeRouter() {
	m.f.t.Helper()
	program := strings.TrimSpace(m.f.run(exec.Command("go", "tool", "-modfile=../../../hack/tools/kuberouter/go.mod", "-n", "kube-router")))
	log, err := os.Create(filepath.Join(m.dir, "kube-router.log"))
	if err != nil {
		m.f.t.Fatal(err)
	}
	m.agent = m.exec(program, "--run-firewall=true", "--run-router=false", "--run-service-proxy=false", "--hostname-override="+m.name,
		"--kubeconfig="+filepath.Join(m.dir, "kubeconfig"), "--health-port=0", "--metrics-port=0")
	m.agent.Stdout, m.agent.Stderr = log, log
	if err := m.agent.Start(); err != nil {
		m.f.t.Fatal(err)
	}
	m.f.t.Cleanup(m.kill)
}

// BenchmarkPolicyEffect is the time from the write of a policy that isolates a pod until the first packet from another
// node's pod is refused, and from its deletion until they pass again, beside the write by itself and beside kube-router,
// whose node has the same API server and no agent of Muslin. In the cluster are a thousand policies of other pods.
func BenchmarkPolicyEffect(b *testing.B) {
	f := newFabric(b, dualStackMesh)
	client, server := f.join("b", 1, 2), f.join("a", 1, 1)
	peer := f.connect("r", 1, 3)
	f.server.MustKubectl(b, "apiVersion: v1\nkind: Node\nmetadata: {name: r}\n", "create", "-f", "-")
	f.server.MustKubectl(b, "", "patch", "node", "r", "--subresource=status", "-p", `{"status":{"addresses":[{"type":"InternalIP","address":"`+peer.address+`"}]}}`)
	peer.plain("10.88.0.2")
	client.inside("ip", "route", "add", peer.podIP, "via", peer.address)
	policies, err := typed.NewForConfig(f.server.Config())
	if err != nil {
		b.Fatal(err)
	}
	for i := range otherPolicies {
		isolate(b, policies, fmt.Sprint("other", i), fmt.Sprint("other", i))
	}
	peer.kubeRouter()
	for range b.N {
		for _, c := range []struct {
			name   string
			of     *member
			rounds int
		}{{"ours", server, 100}, {"kube-router", peer, 10}} {
			c.of.shortMemory()
			client.shortMemory()
			f.server.MustKubectl(b, "", "label", "pod", "p-"+c.of.name, "isolate="+c.name, "--overwrite")
			echo(b, c.of.pod)
			p := probe(b, client.pod, c.of.podIP, 4_000) // a port is used again after four seconds: see shortMemory
			p.since(b, time.Now(), true)
			var write, come, gone []time.Duration
			for range c.rounds {
				began := time.Now()
				isolate(b, policies, c.name, c.name)
				write = append(write, time.Since(began))
				come = append(come, p.since(b, began, false).Sub(began))
				began = time.Now()
				if err := policies.NetworkPolicies("default").Delete(context.Background(), c.name, metav1.DeleteOptions{}); err != nil {
					b.Fatal(err)
				}
				gone = append(gone, p.since(b, began, true).Sub(began))
			}
			p.close()
			for name, list := range map[string][]time.Duration{"write": write, "refused": come, "passes": gone} {
				slices.Sort(list)
				b.ReportMetric(float64(list[len(list)/2].Microseconds())/1000, "ms/"+c.name+"-"+name+"-p50")
				b.ReportMetric(float64(list[len(list)*99/100].Microseconds())/1000, "ms/"+c.name+"-"+name+"-p99")
			}
		}
	}
	b.ReportMetric(0, "ns/op")
}

// isolate writes a policy that lets nothing come to the pods with a label but port 1 of TCP.
func isolate(b *testing.B, policies typed.NetworkPoliciesGetter, name, label string) {
	b.Helper()
	port := intstr.FromInt32(1)
	_, err := policies.NetworkPolicies("default").Create(context.Background(), &networking.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: networking.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"isolate": label}}, PolicyTypes: []networking.PolicyType{networking.PolicyTypeIngress},
			Ingress: []networking.NetworkPolicyIngressRule{{Ports: []networking.NetworkPolicyPort{{Port: &port}}}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
}

// addPods are how many pods are added in each way, as many as a node's first block has addresses; addTurn how many of
// one way before it is the turn of another. addPause is after each.
const (
	addPods, addTurn = 64, 16
	addPause         = 50 * time.Millisecond
)

// BenchmarkAddUnderPolicies is ADD of pods that a default deny and fifty other policies select, in ADD without any policy,
// by turns: with addresses that no pod of the node had since there are policies, then with others, where each is the first
// of its like and where the node has such a pod. And how soon after ADD's answer a policy of a pod of another node lets
// the pod through, which allows it by its label. No kubelet writes the pods' status.
func BenchmarkAddUnderPolicies(b *testing.B) {
	f := newFabric(b, dualStackMesh)
	a := &adds{b: b, server: f.join("a", 1, 1), node: f.join("b", 1, 2), took: map[string][]time.Duration{}}
	policies, err := typed.NewForConfig(f.server.Config())
	if err != nil {
		b.Fatal(err)
	}
	f.server.MustKubectl(b, "", "label", "pod", "p-a", "role=server")
	echo(b, a.server.pod)
	const kept = "kept"
	var objects strings.Builder
	for _, pod := range append(numbers(4*addPods), kept) {
		fmt.Fprintf(&objects, "apiVersion: v1\nkind: Pod\nmetadata: {name: c%s, namespace: default, labels: {role: client}}\nspec: {nodeName: b, containers: [{name: c, image: none}]}\n---\n", pod)
	}
	f.server.MustKubectl(b, objects.String(), "create", "-f", "-")
	of := policies.NetworkPolicies("default")
	for range b.N {
		for n := 0; n < 4*addPods; n += 4 * addTurn {
			a.turn("free", n, addTurn)
			for _, p := range fiftyPolicies() {
				if _, err := of.Create(b.Context(), p, metav1.CreateOptions{}); err != nil {
					b.Fatal(err)
				}
			}
			a.turn("new", n+addTurn, addTurn)
			a.turn("first", n+2*addTurn, addTurn)
			a.add("kept", "ckept")
			a.turn("further", n+3*addTurn, addTurn)
			a.del("ckept")
			if err := of.DeleteCollection(b.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
				b.Fatal(err)
			}
		}
		a.report()
	}
}

func numbers(count int) (list []string) {
	for i := range count {
		list = append(list, fmt.Sprint(i))
	}
	return list
}

// adds are ADDs of pods of a node, and how long they took, by name.
type adds struct {
	b            *testing.B
	server, node *member
	took         map[string][]time.Duration
}

// turn adds and deletes so many pods, the first of them of that number.
func (a *adds) turn(name string, first, count int) {
	a.b.Helper()
	time.Sleep(time.Second) // what is measured is ADD, not the policies' way to the nodes
	for i := range count {
		pod := fmt.Sprint("c", first+i)
		ns := a.add(name, pod)
		if took := reaches(a.b, ns, a.server.podIP); name != "free" {
			a.took["reached"] = append(a.took["reached"], took)
		}
		a.del(pod)
	}
}

func (a *adds) add(name, pod string) *os.File {
	a.b.Helper()
	ns := makeNamespaces(a.b, 1)[0]
	began := time.Now()
	out, err := a.node.cni("ADD", pod, pod, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd()))
	if err != nil {
		a.b.Fatalf("ADD: %v: %s", err, out)
	}
	a.took[name] = append(a.took[name], time.Since(began))
	return ns
}

func (a *adds) del(pod string) {
	a.b.Helper()
	if out, err := a.node.cni("DEL", pod, pod, ""); err != nil {
		a.b.Fatalf("DEL: %v: %s", err, out)
	}
	awaitDone(a.b, a.node.dir) // the kernel's locks are free, and the cores
	time.Sleep(addPause)
}

func (a *adds) report() {

	median := func(name string) float64 {
		list := a.took[name]
		slices.Sort(list)
		return float64(list[len(list)/2].Microseconds()) / 1000
	}
	free := median("free")
	a.b.ReportMetric(free, "ms/add")
	for _, name := range []string{"new", "first", "further"} {
		a.b.ReportMetric(median(name)/free, "x-add-"+name)
	}
	a.b.ReportMetric(median("reached"), "ms/reached-p50")
	reached := a.took["reached"]
	soon, _ := slices.BinarySearch(reached, 50*time.Millisecond)
	a.b.ReportMetric(float64(reached[len(reached)-1].Microseconds())/1000, "ms/reached-max")
	a.b.ReportMetric(100*float64(soon)/float64(len(reached)), "%within50ms")
	a.b.ReportMetric(0, "ns/op")
}

// fiftyPolicies are a default deny, a policy that lets the clients reach the server, and others.
func fiftyPolicies() (list []*networking.NetworkPolicy) {
	client, server := metav1.LabelSelector{MatchLabels: map[string]string{"role": "client"}}, metav1.LabelSelector{MatchLabels: map[string]string{"role": "server"}}
	add := func(selector metav1.LabelSelector, types networking.PolicyType, peers ...networking.NetworkPolicyPeer) {
		p := &networking.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("p", len(list))},
			Spec:       networking.NetworkPolicySpec{PodSelector: selector, PolicyTypes: []networking.PolicyType{types}},
		}
		switch {
		case len(peers) == 0:
		case types == networking.PolicyTypeIngress:
			p.Spec.Ingress = []networking.NetworkPolicyIngressRule{{From: peers}}
		default:
			p.Spec.Egress = []networking.NetworkPolicyEgressRule{{To: peers}}
		}
		list = append(list, p)
	}
	add(metav1.LabelSelector{}, networking.PolicyTypeIngress)
	add(server, networking.PolicyTypeIngress, networking.NetworkPolicyPeer{PodSelector: &client})
	add(client, networking.PolicyTypeEgress, networking.NetworkPolicyPeer{PodSelector: &server})
	for i := len(list); i < 51; i++ {
		add(client, networking.PolicyTypeIngress, networking.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"role": fmt.Sprint("other", i)}}})
	}
	return list
}

// reaches is how long a new pod tries until it has an answer.
func reaches(b *testing.B, from *os.File, to string) time.Duration {
	b.Helper()
	began := time.Now()
	p := probe(b, from, to, 100)
	defer p.close()
	for time.Since(began) < time.Minute {
		p.mu.Lock()
		if i := slices.Index(p.answered, true); i >= 0 {
			first := p.sent[i]
			p.mu.Unlock()
			return first.Sub(began)
		}
		p.mu.Unlock()
		time.Sleep(100 * time.Microsecond)
	}
	b.Fatalf("a new pod does not reach %s", to)
	return 0
}
