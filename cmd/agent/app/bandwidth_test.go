package app_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"

	"github.com/muslin-net/muslin/cmd/agent/cniinstall"
)

// inNode runs plugins where the node is, as its container runtime does.
type inNode struct {
	*invoke.DefaultExec
	n *crowdedNode
}

func (e inNode) ExecPlugin(_ context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	cmd := e.n.server.Exec(path)
	var out, complaints bytes.Buffer
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = environ, bytes.NewReader(stdin), &out, &complaints
	if err := cmd.Run(); err != nil {
		return nil, errors.Join(err, errors.New(out.String()+complaints.String()))
	}
	return out.Bytes(), nil
}

// TestBandwidthIsLimited has a runtime chain the plugins of the written
// configuration: what the pod's annotations ask for is on its link, in both
// directions, and gone with the pod.
func TestBandwidthIsLimited(t *testing.T) {
	t.Parallel()
	n := newRoutedNode(t, "", 1)
	n.startAgent()
	t.Cleanup(n.kill)
	bin := filepath.Dir(n.buildPlugin())
	if err := os.Symlink("/usr/lib/cni/bandwidth", filepath.Join(bin, "bandwidth")); err != nil {
		t.Fatal(err)
	}
	o := cniinstall.Options{BinDir: bin, ConfDir: filepath.Join(n.server.Dir, "net.d"), Socket: filepath.Join(n.server.Dir, "agent.sock"), Spool: filepath.Join(n.server.Dir, "spool")}
	if _, err := cniinstall.Config(o); err != nil {
		t.Fatal(err)
	}
	list, err := libcni.ConfListFromFile(filepath.Join(o.ConfDir, cniinstall.ConfigName))
	if err != nil {
		t.Fatal(err)
	}
	n.server.MustKubectl(t, "apiVersion: v1\nkind: Pod\nmetadata: {name: slow, namespace: default}\nspec: {nodeName: bench, containers: [{name: c, image: none}]}\n", "create", "-f", "-")
	n.await("is ready", func() bool { return len(n.waiting()) == 0 })
	pod := makeNamespaces(t, 1)[0]
	runtime := libcni.NewCNIConfigWithCacheDir([]string{bin}, t.TempDir(), inNode{&invoke.DefaultExec{}, n})
	conf := &libcni.RuntimeConf{
		ContainerID: "slow", IfName: "eth0", NetNS: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), pod.Fd()),
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", "slow"}},
		// As kubelet and containerd make it of kubernetes.io/ingress-bandwidth and egress-bandwidth.
		CapabilityArgs: map[string]any{"bandwidth": map[string]int{"ingressRate": 8e6, "ingressBurst": 8e6, "egressRate": 16e6, "egressBurst": 8e6}},
	}
	if _, err := runtime.AddNetworkList(t.Context(), list, conf); err != nil {
		t.Fatal(err)
	}
	limits := func() string { return n.inside("tc", "qdisc", "show") }
	if got := limits(); !strings.Contains(got, "rate 8Mbit") || !strings.Contains(got, "rate 16Mbit") {
		t.Errorf("queues of the node:\n%s", got)
	}
	if err := runtime.DelNetworkList(t.Context(), list, conf); err != nil {
		t.Fatal(err)
	}
	n.await("has let go of the pod", func() bool { return !strings.Contains(limits(), "tbf") })
}
