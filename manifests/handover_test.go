package manifests_test

import (
	"encoding/json"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

// The only free address goes from a pod that rules of another node allow to one that they do not. That
// node's agent hears nothing meanwhile, and ADD is not answered before its kernel has let go of the address.
func TestAddressIsHandedOver(t *testing.T) {
	t.Parallel()
	s, _ := withRelay(t)
	s.MustKubectl(t, `{apiVersion: v1, kind: List, items: [
  {apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: v4}, spec: {cidr: 10.77.0.0/29, blockSize: 30}},
  {apiVersion: projectcalico.org/v3, kind: BGPConfiguration, metadata: {name: default}, spec: {nodeToNodeMeshEnabled: false}},
  {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: client, namespace: default},
    spec: {podSelector: {matchLabels: {app: server}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}}]}`, "apply", "-f", "-")
	programs := kubetest.Programs(t, "./cmd/agent", "./cmd/cni", "./cmd/controller")
	plugin := filepath.Join(programs, "cni")
	watcher, giver := s.NewNode(t, "watcher"), s.NewNode(t, "giver")
	for _, n := range []*kubetest.Node{watcher, giver} {
		relayed(t, s, n)
	}
	for _, words := range []string{
		"link add wire netns " + giver.Netns + " type veth peer name wire netns " + watcher.Netns,
		"-n " + giver.Netns + " link set wire up", "-n " + watcher.Netns + " link set wire up",
		"-n " + giver.Netns + " route add " + watcher.Address + " dev wire", "-n " + watcher.Netns + " route add " + giver.Address + " dev wire",
	} {
		if out, err := exec.Command("ip", strings.Fields(words)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v %s", words, err, out)
		}
	}
	startController(t, giver, filepath.Join(programs, "controller"))
	for _, n := range []*kubetest.Node{watcher, giver} {
		n.StartAgent("env", "MUSLIN_POLICY_RELAY="+n.File("relay-token"), filepath.Join(programs, "agent"))
		n.Await("ready", func() bool { code, _, err := n.Get("/readyz"); return err == nil && code == 200 })
	}
	pod := func(n *kubetest.Node, app string) string {
		name := n.Pod()
		s.MustKubectl(t, "", "label", "pod", name, "app="+app)
		return name
	}
	add := func(n *kubetest.Node, name string) netip.Addr {
		out, err := n.CNI(plugin, "ADD", name)
		for err != nil && strings.Contains(out, `"code":11,`) { // a recorded DEL has the address until it is done
			time.Sleep(20 * time.Millisecond)
			out, err = n.CNI(plugin, "ADD", name)
		}
		var result struct {
			IPs []struct{ Address netip.Prefix }
		}
		if err != nil || json.Unmarshal([]byte(out), &result) != nil || len(result.IPs) != 1 {
			t.Errorf("ADD of %s: %v %s\n%s", name, err, out, n.Log())
			return netip.Addr{}
		}
		return result.IPs[0].Address.Addr()
	}
	allows := func(addr netip.Addr) bool {
		out, err := watcher.Exec("nft", "list", "table", "inet", "muslin-policy").CombinedOutput()
		if err != nil {
			t.Fatalf("%v %s", err, out)
		}
		return strings.Contains(string(out), addr.String())
	}
	add(watcher, pod(watcher, "server"))
	for range 3 { // both blocks are full
		add(watcher, pod(watcher, "other"))
		add(giver, pod(giver, "other"))
	}
	old := pod(giver, "client")
	addr := add(giver, old)
	watcher.Await("the client is allowed", func() bool { return allows(addr) })

	watcher.Signal(syscall.SIGSTOP)
	if out, err := giver.CNI(plugin, "DEL", old); err != nil {
		t.Fatalf("DEL: %v %s", err, out)
	}
	next, done := pod(giver, "other"), make(chan netip.Addr, 1)
	go func() { done <- add(giver, next) }()
	giver.Await("the next pod has the address", func() bool {
		return strings.Contains(s.MustKubectl(t, "", "get", "ipamblocks.projectcalico.org", "-o", "yaml"), next)
	})
	select {
	case <-done:
		t.Fatal("ADD is answered while another node takes the pod for its predecessor")
	default:
	}
	watcher.Signal(syscall.SIGCONT)
	got := <-done
	if allows(got) {
		t.Error("ADD is answered, and the kernel of another node takes the pod for its predecessor")
	}
	if got != addr {
		t.Errorf("the next pod has %s, want the only free address, %s", got, addr)
	}
}
