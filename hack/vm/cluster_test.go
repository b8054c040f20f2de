package vm_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/hack/image"
	"github.com/muslin-net/muslin/hack/vm"
	"github.com/muslin-net/muslin/hack/vm/gotest"
	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

const clusterObjects = `apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.77.0.0/16, natOutgoing: true}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods6}
spec: {cidr: "fd77::/64"}
---
apiVersion: projectcalico.org/v3
kind: ClusterInformation
metadata: {name: default}
spec: {datastoreReady: true}
`

const nodeObjects = `---
apiVersion: v1
kind: Node
metadata: {name: NAME}
---
apiVersion: v1
kind: Pod
metadata: {name: p-NAME, namespace: default}
spec: {nodeName: NAME, containers: [{name: c, image: none}]}
`

// inCluster is the suite of a cluster whose nodes, of a, b and c, are in guests, and
// those guests' options; each has Loopback for its first link, and adds its own nodes.
// The API server runs on this machine, where no instruction is translated.
func inCluster(t *testing.T, nodes string) (gotest.Suite, vm.Options) {
	t.Helper()
	server := kubetest.StartWithCRDs(t)
	objects := clusterObjects
	for name := range strings.SplitSeq(nodes, "") {
		objects += strings.ReplaceAll(nodeObjects, "NAME", name)
	}
	server.MustKubectl(t, objects, "apply", "-f", "-")
	for name := range strings.SplitSeq(nodes, "") {
		address := map[string][2]string{"a": {"10.1.0.1", "fd01::1"}, "b": {"10.1.0.2", "fd01::2"}, "c": {"10.2.0.3", "fd02::3"}}[name]
		server.MustKubectl(t, "", "patch", "node", name, "--subresource=status", "-p",
			`{"status":{"addresses":[{"type":"InternalIP","address":"`+address[0]+`"},{"type":"InternalIP","address":"`+address[1]+`"}]}}`)
	}
	built, err := image.Build(t.Context(), image.BuildOptions{Root: "../..", Out: t.TempDir()}, []image.Program{image.Plugin})
	if err != nil {
		t.Fatal(err)
	}
	plugin, err := filepath.Abs(built[0].Source)
	if err != nil {
		t.Fatal(err)
	}
	return gotest.Suite{Package: "github.com/muslin-net/muslin/cmd/agent/app", Tests: "TestIPIPInACluster", Tags: "vmtest"},
		vm.Options{Netns: server.Netns, Links: []vm.Link{vm.Loopback()}, Env: []string{
			"MUSLIN_TEST_API=" + server.Dir, "MUSLIN_TEST_API_AT=" + vm.HostAddress + ":6443", "MUSLIN_TEST_PLUGIN=" + plugin,
			"MUSLIN_TEST_NODES=" + nodes,
		}}
}

// between runs a suite of a cluster in two guests at once, joined by a cable: in each those
// of the cluster's nodes that it is given, on the kernel that it is given.
func between(t *testing.T, suite gotest.Suite, o vm.Options, nodes, kernels [2]string) {
	suite = gotest.Build(t, suite)
	dir := t.TempDir()
	ends := [2]string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
	for i := range nodes {
		o := o
		o.Kernel = kernels[i]
		o.Links = append(slices.Clip(o.Links), vm.Cable(ends[i], ends[1-i]))
		o.Env = append(slices.Clip(o.Env), "MUSLIN_TEST_NODES_HERE="+nodes[i])
		t.Run(nodes[i], func(t *testing.T) {
			t.Parallel()
			gotest.Run(t, 30*time.Minute, o, suite)
		})
	}
}
