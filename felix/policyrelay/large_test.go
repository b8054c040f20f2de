package policyrelay

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/kube/kubetest"
	"github.com/muslin-net/muslin/pkg/kube/netpol"
	"github.com/muslin-net/muslin/pkg/model"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	podsOfNode      = 20
	podsOfNamespace = 200 // of one that has pods
	policiesOfEach  = 3   // namespace
	writers         = 32
)

// large is a cluster in a real API server that has no other nodes than their objects: 20 running
// pods to a node, in as many namespaces, a block of 64 addresses to a node, a namespace with three
// policies for every four pods. Of the namespaces, one in fifty has pods, 40 of each of five kinds.
// What is written of it follows from numbers.
type large struct {
	s      *kubetest.Server
	client kubernetes.Interface // protobuf, without limit
	crds   rest.Interface
	pods   int
	found  time.Time       // since when the last relay was found
	more   []atomic.Uint32 // of each node, see block

	epoch            time.Time
	written, watched []atomic.Int64 // by pod, ns since epoch: its change; 0: it has not
}

func newLarge(b *testing.B, pods int) *large {
	b.Helper()
	b.Setenv("GOMEMLIMIT", "12GiB")
	b.Setenv("GOGC", "100")
	s := kubetest.StartWithCRDs(b, "--max-requests-inflight=4000", "--max-mutating-requests-inflight=2000")
	b.Setenv("GOMEMLIMIT", "")
	b.Setenv("GOGC", "") // the controller decides
	s.MustKubectl(b, "", "apply", "-k", kubetest.Root()+"/manifests/overlays/policy-relay")
	cfg := s.Config()
	cfg.ContentType = runtime.ContentTypeProtobuf
	cfg.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	l := &large{s: s, client: kubernetes.NewForConfigOrDie(cfg), pods: pods}
	l.more = make([]atomic.Uint32, l.nodes())
	l.epoch, l.watched, l.written = time.Now(), make([]atomic.Int64, pods), make([]atomic.Int64, pods)
	l.crds = kubernetes.NewForConfigOrDie(s.Config()).CoreV1().RESTClient()
	return l
}

func (l *large) nodes() int      { return l.pods / podsOfNode }
func (l *large) namespaces() int { return l.pods / 4 }

// node gives the node of a pod, and the pod's number there.
func (l *large) node(pod int) (node, number int) { return pod % l.nodes(), pod / l.nodes() }

func nodeName(node int) string      { return fmt.Sprint("node-", node) }
func namespaceOf(pod int) string    { return fmt.Sprint("namespace-", pod/podsOfNamespace) }
func podName(pod int) string        { return fmt.Sprint("pod-", pod) }
func blockOf(node int) netip.Prefix { return netip.PrefixFrom(addressOf(node, 0), 26) }
func addressOf(node, n int) netip.Addr {
	x := 10<<24 + 64<<16 + node*64 + n
	return netip.AddrFrom4([4]byte{byte(x >> 24), byte(x >> 16), byte(x >> 8), byte(x)})
}

// app is the kind of a pod. Of two pods of a namespace on one node the kinds differ.
func (l *large) app(pod int) string {
	_, number := l.node(pod)
	return [...]string{"app-0", "web", "app-1", "batch", "app-2"}[(pod+number)%5]
}

// needs are those of a node: what the policies say that select one of its pods.
func (l *large) needs(node int) []policy.Need {
	all := map[policy.Need]bool{}
	for number := range podsOfNode {
		pod := node + number*l.nodes()
		kind, is := strings.CutPrefix(l.app(pod), "app-")
		if !is {
			continue
		}
		p, _, _ := netpol.Kubernetes(kubetest.LargePolicy(pod/podsOfNamespace*policiesOfEach + int(kind[0]-'0')))
		for _, r := range p.IngressRules {
			all[policy.Need{Selector: r.Source.Selector.String()}] = true
		}
	}
	return slices.SortedFunc(maps.Keys(all), policy.Need.Compare)
}

// endpoints are the pods of a node as its agent has them.
func (l *large) endpoints(node int) (out []model.Endpoint) {
	for number := range podsOfNode {
		pod := node + number*l.nodes()
		out = append(out, model.Endpoint{
			Namespace: namespaceOf(pod), Pod: podName(pod), HostInterface: fmt.Sprint("cali", number), Addresses: []netip.Addr{addressOf(node, number)},
		})
	}
	return out
}

// object is a pod of 1.5 kB, running.
func (l *large) object(pod int) *corev1.Pod {
	node, number := l.node(pod)
	var env []corev1.EnvVar
	for i := range 5 {
		env = append(env, corev1.EnvVar{Name: fmt.Sprint("SETTING_", i), Value: "https://backend.example.net:8443/api/v1/resource"})
	}
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespaceOf(pod), Name: podName(pod), Labels: map[string]string{"app": l.app(pod), "pod-template-hash": "7d9c6b8f5"}},
		Spec: corev1.PodSpec{
			NodeName: nodeName(node), ServiceAccountName: "default",
			Containers: []corev1.Container{{Name: "main", Image: "registry.example.net/app:1", Env: env, Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	for _, kind := range []corev1.PodConditionType{corev1.PodReady, corev1.ContainersReady, corev1.PodInitialized, corev1.PodScheduled} {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue})
	}
	return at(p, addressOf(node, number))
}

func at(p *corev1.Pod, a netip.Addr) *corev1.Pod {
	p.Status.PodIP, p.Status.PodIPs = a.String(), []corev1.PodIP{{IP: a.String()}}
	return p
}

// each calls f with the numbers below n that are meant, many at once.
func each(b *testing.B, n int, meant func(int) bool, f func(ctx context.Context, i int) error) {
	b.Helper()
	g, ctx := errgroup.WithContext(b.Context())
	g.SetLimit(writers)
	for i := range n {
		if meant(i) {
			g.Go(func() error { return f(ctx, i) })
		}
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
}

func always(int) bool { return true }

// write writes all but pods and blocks.
func (l *large) write(b *testing.B) {
	core := l.client.CoreV1()
	each(b, l.namespaces(), always, func(ctx context.Context, i int) error {
		name := fmt.Sprint("namespace-", i)
		_, err := core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": name}}}, metav1.CreateOptions{})
		return err
	})
	each(b, l.namespaces()*policiesOfEach, always, func(ctx context.Context, i int) error {
		p := kubetest.LargePolicy(i)
		_, err := l.client.NetworkingV1().NetworkPolicies(p.Namespace).Create(ctx, p, metav1.CreateOptions{})
		return err
	})
	each(b, l.nodes(), always, func(ctx context.Context, i int) error {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName(i)}, Status: corev1.NodeStatus{
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}).String()}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		}}
		_, err := core.Nodes().Create(ctx, n, metav1.CreateOptions{})
		return err
	})
	pool := map[string]any{"metadata": map[string]any{"name": "v4"}, "spec": map[string]any{"cidr": "10.64.0.0/10", "blockSize": 26}}
	if err := l.post(b.Context(), "IPPool", pool); err != nil {
		b.Fatal(err)
	}
}

// run writes the pods that are meant: first the object, then as a kubelet does its status.
func (l *large) run(b *testing.B, meant func(pod int) bool) {
	each(b, l.pods, meant, func(ctx context.Context, i int) error {
		p := l.object(i)
		made, err := l.client.CoreV1().Pods(p.Namespace).Create(ctx, p, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		made.Status = p.Status
		_, err = l.client.CoreV1().Pods(p.Namespace).UpdateStatus(ctx, made, metav1.UpdateOptions{})
		return err
	})
}

// lend writes each node's block, of which all pods have their address.
func (l *large) lend(b *testing.B) {
	each(b, l.nodes(), always, func(ctx context.Context, node int) error {
		cidr := blockOf(node).String()
		if err := l.post(ctx, "BlockAffinity", map[string]any{
			"metadata": map[string]any{"name": nodeName(node) + "-" + dashed(node)},
			"spec":     map[string]any{"cidr": cidr, "node": nodeName(node), "state": "confirmed", "type": "host", "deleted": false},
		}); err != nil {
			return err
		}
		spec := l.block(node, 0)
		spec["cidr"], spec["affinity"], spec["strictAffinity"], spec["deleted"] = cidr, "host:"+nodeName(node), false, false
		return l.post(ctx, "IPAMBlock", map[string]any{"metadata": map[string]any{"name": dashed(node)}, "spec": spec})
	})
}

func dashed(node int) string {
	return strings.NewReplacer(".", "-", "/", "-").Replace(blockOf(node).String())
}

// block is what a node's block says of its addresses: each pod has one, and a second one those
// whose bit is set in more.
func (l *large) block(node int, more uint32) map[string]any {
	slots, owners, free := make([]any, 64), []any{}, []int{}
	for slot := range slots {
		number, one := slot%podsOfNode, slot/podsOfNode == 0
		if two := slot/podsOfNode == 1 && more&(1<<number) != 0; !one && !two {
			free = append(free, slot)
			continue
		}
		slots[slot] = len(owners)
		pod := node + number*l.nodes()
		owners = append(owners, map[string]any{
			"handle_id": fmt.Sprintf("k8s-pod-network.%064d", pod),
			"secondary": map[string]string{"namespace": namespaceOf(pod), "node": nodeName(node), "pod": podName(pod), "timestamp": "2100-01-01 00:00:00 +0000 UTC"},
		})
	}
	return map[string]any{"allocations": slots, "attributes": owners, "unallocated": free, "sequenceNumber": time.Now().UnixNano()}
}

const pathOfCRDs = "/apis/projectcalico.org/v3/"

var pathsOf = map[string]string{"IPPool": "ippools", "BlockAffinity": "blockaffinities", "IPAMBlock": "ipamblocks"}

func (l *large) post(ctx context.Context, kind string, object map[string]any) error {
	object["apiVersion"], object["kind"] = "projectcalico.org/v3", kind
	body, err := json.Marshal(object)
	if err != nil {
		return err
	}
	return l.crds.Post().AbsPath(pathOfCRDs+pathsOf[kind]).SetHeader("Content-Type", runtime.ContentTypeJSON).Body(body).Do(ctx).Error()
}
