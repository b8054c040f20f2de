package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/muslin-net/muslin/hack/lab/kube"
	"github.com/muslin-net/muslin/hack/lab/topology"
)

// echoPort is where probe serves, in pods and on machines.
const echoPort = 8080

// Pod is a running pod of the scenario.
type Pod struct {
	Name string
	Node string
	IP   netip.Addr
	IPs  []netip.Addr // of each family, IP first

	netns string // on the node; Matrix knows it
}

// Deploy makes a Deployment of n echo pods, spread over the nodes, and waits
// until all run.
func (c *Cluster) Deploy(ctx context.Context, n int) ([]Pod, error) {
	if _, err := c.Kubectl(ctx, echoDeployment(n), "apply", "-f", "-"); err != nil {
		return nil, err
	}
	if _, err := c.Kubectl(ctx, "", "rollout", "status", "deployment/echo", "--timeout=120s"); err != nil {
		events, _ := c.Kubectl(ctx, "", "get", "events", "--sort-by=.lastTimestamp")
		return nil, fmt.Errorf("%w\n%s", err, events)
	}
	return c.Pods(ctx)
}

func echoDeployment(n int) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: echo, namespace: default}
spec:
  replicas: %d
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      terminationGracePeriodSeconds: 1
      automountServiceAccountToken: false
      enableServiceLinks: false
      tolerations:
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute}
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute}
      topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: kubernetes.io/hostname
        whenUnsatisfiable: DoNotSchedule
        labelSelector: {matchLabels: {app: echo}}
      containers:
      - {name: echo, image: %q, imagePullPolicy: Never, args: [serve]}
`, n, kube.ProbeImage)
}

// Pods lists the running echo pods, sorted by node and name.
func (c *Cluster) Pods(ctx context.Context) ([]Pod, error) {
	out, err := c.Kubectl(ctx, "", "get", "pods", "-l", "app=echo", "-o", "json")
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			Metadata struct {
				Name              string
				DeletionTimestamp *time.Time
			}
			Spec   struct{ NodeName string }
			Status struct {
				PodIPs            []struct{ IP netip.Addr }
				ContainerStatuses []struct{ Ready bool }
			}
		}
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, err
	}
	var pods []Pod
	for _, i := range list.Items {
		if len(i.Status.PodIPs) == 0 || i.Metadata.DeletionTimestamp != nil || len(i.Status.ContainerStatuses) == 0 || !i.Status.ContainerStatuses[0].Ready {
			continue
		}
		p := Pod{Name: i.Metadata.Name, Node: i.Spec.NodeName, IP: i.Status.PodIPs[0].IP}
		for _, ip := range i.Status.PodIPs {
			p.IPs = append(p.IPs, ip.IP)
		}
		pods = append(pods, p)
	}
	slices.SortFunc(pods, func(a, b Pod) int { return strings.Compare(a.Node+a.Name, b.Node+b.Name) })
	return pods, nil
}

// Try is one connection of the matrix and what came of it.
type Try struct {
	Kind     string // "same node", "pod to outside"…
	From, To string
	Source   netip.Addr // as the server saw it
	Want     netip.Addr // the source it should have seen
	Err      error
}

// OK tells whether the connection worked and came from the right address.
func (t Try) OK() bool { return t.Err == nil && t.Source == t.Want }

// attempt is a Try that has not been made.
type attempt struct {
	Try
	dial func(ctx context.Context) (netip.Addr, error)
}

// Matrix connects everything that should reach everything else: pods to pods,
// nodes and the outside, and back.
func (c *Cluster) Matrix(ctx context.Context, pods []Pod) ([]Try, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	machines := append(c.FullNodes(), c.Topology().Outside.Name)
	err := c.serve(ctx, machines)
	if err != nil {
		return nil, err
	}
	if pods, err = c.withNamespaces(ctx, pods); err != nil {
		return nil, err
	}
	service, err := c.service(ctx, pods)
	if err != nil {
		return nil, err
	}
	var all []attempt
	for _, p := range pods {
		for _, ip := range p.IPs {
			all = append(all, c.fromPod(p, ip, pods)...)
			all = append(all, c.toPod(p, ip)...)
			all = append(all, c.toService(p, ip, service)...)
		}
	}
	tries := make([]Try, len(all))
	var wg sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i, a := range all {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			a.Source, a.Err = a.dial(ctx)
			tries[i] = a.Try
		})
	}
	wg.Wait()
	return tries, nil
}

// fromPod are the ways from one of the addresses of a pod.
func (c *Cluster) fromPod(p Pod, ip netip.Addr, pods []Pod) []attempt {
	var out []attempt
	add := func(kind, to string, addr, want netip.Addr) {
		out = append(out, attempt{Try{Kind: kind + inFamily(ip), From: p.Name, To: to, Want: want}, func(ctx context.Context) (netip.Addr, error) {
			return c.dialFromPod(ctx, p, addr)
		}})
	}
	for _, q := range pods {
		if to := q.of(ip); q.Name != p.Name && to.IsValid() {
			add(c.relation(p, q), q.Name, to, ip)
		}
	}
	for _, n := range c.Topology().Nodes {
		// A node is outside the pools, so another node sees the masquerade.
		want := ip
		if n.Name != p.Node {
			want = c.address(p.Node).Of(ip)
		}
		add("pod to node", n.Name, n.Address.Of(ip), want)
	}
	outside := c.Topology().Outside
	add("pod to outside (masqueraded)", outside.Name, outside.Address.Of(ip), c.address(p.Node).Of(ip))
	return out
}

func (c *Cluster) toPod(p Pod, ip netip.Addr) []attempt {
	var out []attempt
	add := func(kind, machine string, want netip.Addr) {
		out = append(out, attempt{Try{Kind: kind + inFamily(ip), From: machine, To: p.Name, Want: want}, func(ctx context.Context) (netip.Addr, error) {
			return c.dialFromMachine(ctx, machine, ip)
		}})
	}
	for _, n := range c.Topology().Nodes {
		add("node to pod", n.Name, n.Address.Of(ip))
	}
	outside := c.Topology().Outside
	add("outside to pod (no NAT)", outside.Name, outside.Address.Of(ip))
	return out
}

// toService is the way from an address of a pod to the Service of all pods. A pod that
// meets itself is masqueraded as its node by kube-proxy.
func (c *Cluster) toService(p Pod, ip netip.Addr, service []netip.Addr) []attempt {
	var out []attempt
	for _, to := range service {
		if to.Is4() != ip.Is4() {
			continue
		}
		out = append(out, attempt{Try{Kind: "pod to service" + inFamily(ip), From: p.Name, To: to.String(), Want: ip}, func(ctx context.Context) (netip.Addr, error) {
			from, err := c.dialFromPod(ctx, p, to)
			if from == c.address(p.Node).Of(ip) {
				from = ip
			}
			return from, err
		}})
	}
	return out
}

// service makes the Service of the pods, of each family there is, and gives its addresses.
func (c *Cluster) service(ctx context.Context, pods []Pod) ([]netip.Addr, error) {
	if _, err := c.Kubectl(ctx, fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: matrix, namespace: default}
spec: {ipFamilyPolicy: PreferDualStack, selector: {app: echo}, ports: [{port: %d}]}
`, echoPort), "apply", "-f", "-"); err != nil {
		return nil, err
	}
	out, err := c.Kubectl(ctx, "", "get", "service", "matrix", "-o", "jsonpath={.spec.clusterIPs[*]}")
	if err != nil {
		return nil, err
	}
	var all []netip.Addr
	for _, text := range strings.Fields(string(out)) {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, c.served(ctx, pods, all)
}

// served waits until kube-proxy has told each node of a Service, as a pod of it sees. From
// the node itself it is the node's address that has to be reached again, which is not so
// where nothing but a tunnel passes between nodes.
func (c *Cluster) served(ctx context.Context, pods []Pod, service []netip.Addr) error {
	seen := map[string]bool{}
	for _, p := range pods {
		if seen[p.Node] {
			continue
		}
		seen[p.Node] = true
		for _, to := range service {
			if !slices.ContainsFunc(p.IPs, func(ip netip.Addr) bool { return ip.Is4() == to.Is4() }) {
				continue
			}
			if err := c.eventually(ctx, time.Minute, func() error {
				_, err := c.dialFromPod(ctx, p, to)
				return err
			}); err != nil {
				return fmt.Errorf("service %s from pod %s on %s: %w", to, p.Name, p.Node, err)
			}
		}
	}
	return nil
}

// of is the pod's address of the other's family; invalid when it has none.
func (p Pod) of(other netip.Addr) netip.Addr {
	for _, ip := range p.IPs {
		if ip.Is4() == other.Is4() {
			return ip
		}
	}
	return netip.Addr{}
}

// inFamily marks the kinds of connections over IPv6.
func inFamily(ip netip.Addr) string {
	if ip.Is6() {
		return ", IPv6"
	}
	return ""
}

func (c *Cluster) relation(p, q Pod) string {
	switch {
	case p.Node == q.Node:
		return "pod to pod, same node"
	case c.rack(p.Node) == c.rack(q.Node):
		return "pod to pod, same rack"
	default:
		return "pod to pod, other rack"
	}
}

func (c *Cluster) rack(node string) string {
	n, _ := c.Topology().Node(node)
	return n.Rack
}

func (c *Cluster) nodeAddr(node string) netip.Addr { return c.address(node).Main() }

func (c *Cluster) address(node string) topology.Address {
	n, _ := c.Topology().Node(node)
	return n.Address
}

// serve runs an echo server on machines until ctx ends.
func (c *Cluster) serve(ctx context.Context, machines []string) error {
	for _, m := range machines {
		cmd := c.Machine(m).Command(ctx, "probe", "serve")
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("serve on %s: %w", m, err)
		}
		go func() { _ = cmd.Wait() }() // ends with ctx
		if err := c.eventually(ctx, 10*time.Second, func() error {
			_, err := c.Machine(m).Exec(ctx, "probe", "dial", fmt.Sprintf("127.0.0.1:%d", echoPort))
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// withNamespaces finds the pods' network namespaces on their nodes: to dial from there
// costs a tenth of what kubectl exec does.
func (c *Cluster) withNamespaces(ctx context.Context, pods []Pod) ([]Pod, error) {
	found := map[string]string{} // node and address → namespace
	for _, node := range c.FullNodes() {
		out, err := c.Machine(node).Exec(ctx, "sh", "-c", `for n in $(ls /run/netns); do ip -n $n -o addr | sed "s/^/$n /"; done; true`)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(out)) {
			// NAMESPACE 2: eth0 inet 10.244.0.1/32 …
			if f := strings.Fields(line); len(f) > 4 {
				address, _, _ := strings.Cut(f[4], "/")
				found[node+" "+address] = f[0]
			}
		}
	}
	pods = slices.Clone(pods)
	for i, p := range pods {
		pods[i].netns = found[p.Node+" "+p.IP.String()]
	}
	return pods, nil
}

func (c *Cluster) dialFromPod(ctx context.Context, p Pod, to netip.Addr) (netip.Addr, error) {
	target := netip.AddrPortFrom(to, echoPort).String()
	if p.netns == "" {
		return seenSource(c.Kubectl(ctx, "", "exec", p.Name, "--", "probe", "dial", target))
	}
	return seenSource(c.Machine(p.Node).Exec(ctx, "ip", "netns", "exec", p.netns, "probe", "dial", target))
}

func (c *Cluster) dialFromMachine(ctx context.Context, machine string, to netip.Addr) (netip.Addr, error) {
	return seenSource(c.Machine(machine).Exec(ctx, "probe", "dial", netip.AddrPortFrom(to, echoPort).String()))
}

// seenSource reads the server's answer, "PEER HOSTNAME".
func seenSource(out []byte, err error) (netip.Addr, error) {
	if err != nil {
		return netip.Addr{}, err
	}
	fields := strings.Fields(string(out))
	if len(fields) == 0 {
		return netip.Addr{}, fmt.Errorf("empty answer")
	}
	peer, err := netip.ParseAddrPort(fields[0])
	return peer.Addr().Unmap(), err
}
