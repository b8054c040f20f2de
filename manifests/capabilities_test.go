package manifests_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"

	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

// works are what an agent is there for, as far as capabilities have to do with it.
type works struct {
	Pods       bool // an ADD is answered, and the pod's route is in the kernel
	Speaks     bool // BGP listens on port 179
	Advertises bool // unnumbered routers hear of the node
	Echoes     bool // of muslinctl explain
}

// Each capability that the DaemonSet grants its agent is needed for what
// docs/security.md says, and the agent tells which one it misses: the real agent is
// run once without each, and once with all and no other.
func TestEachCapabilityIsUsed(t *testing.T) {
	s := kubetest.Start(t)
	s.MustKubectl(t, "", "apply", "-k", kubetest.Root()+"/manifests")
	s.MustKubectl(t, "", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	s.MustKubectl(t, `{apiVersion: v1, kind: List, items: [
  {apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: v4}, spec: {cidr: 10.77.0.0/16}},
  {apiVersion: projectcalico.org/v3, kind: BGPConfiguration, metadata: {name: default}, spec: {nodeToNodeMeshEnabled: false}},
  {apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: tor}, spec: {peerIP: "fe80::1%eth0", asNumber: 65001}}]}`, "apply", "-f", "-")
	programs := kubetest.Programs(t, "./cmd/agent", "./cmd/cni")
	want := map[string]works{
		"none":             {true, true, true, true},
		"NET_ADMIN":        {},
		"SYS_ADMIN":        {},
		"NET_RAW":          {Pods: true, Speaks: true},
		"NET_BIND_SERVICE": {Pods: true, Advertises: true, Echoes: true},
	}
	granted := capabilitiesOf(t, "base/agent.yaml")
	t.Run("in a container", func(t *testing.T) {
		n := s.NewNode(t, "container")
		container(t, n, programs, granted)
		if got := tryStarted(n, programs); got != want["none"] || strings.Contains(n.Log(), "not permitted") || !filtered(t, n) {
			t.Errorf("with the seccomp profile: %+v\n%s", got, n.Log())
		}
	})
	if len(granted) != len(want)-1 {
		t.Errorf("%v are granted, and %d are tried", granted, len(want)-1)
	}
	t.Run("without", func(t *testing.T) {
		for _, without := range append(granted, "none") {
			t.Run(without, func(t *testing.T) {
				t.Parallel()
				n := s.NewNode(t, strings.ToLower(strings.ReplaceAll(without, "_", "-")))
				if got := tryWithout(t, s, n, programs, granted, without); got != want[without] {
					t.Errorf("got  %+v\nwant %+v\n%s", got, want[without], n.Log())
				}
			})
		}
	})
}

// capabilitiesOf are those that a DaemonSet adds for its container agent.
func capabilitiesOf(t *testing.T, file string) (out []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var set apps.DaemonSet
	if err := yaml.Unmarshal(text, &set); err != nil {
		t.Fatal(err)
	}
	for _, c := range set.Spec.Template.Spec.Containers[0].SecurityContext.Capabilities.Add {
		out = append(out, string(c))
	}
	return out
}

// tryWithout runs the agent confined as its container is, less one capability, and
// has it say which it misses.
func tryWithout(t *testing.T, s *kubetest.Server, n *kubetest.Node, programs string, granted []string, without string) (got works) {
	bounds := "-all"
	for _, c := range granted {
		if c != without {
			bounds += ",+" + strings.ToLower(c)
		}
	}
	n.StartAgent("setpriv", "--bounding-set="+bounds, "--inh-caps=-all", "--no-new-privs", filepath.Join(programs, "agent"))
	if without != "none" {
		named := "capability " + without + " is missing"
		n.Await(named, func() bool {
			return strings.Contains(s.MustKubectl(t, "", "get", "node", n.Name, "-o", `jsonpath={.status.conditions[?(@.type=="MuslinProblem")].message}`), named)
		})
		if _, status, _ := n.Get("/status"); !strings.Contains(status, named) || !strings.Contains(n.Log(), named) {
			t.Errorf("not named in its status or log: %s", status)
		}
	}
	got = tryStarted(n, programs)
	if n.Ended() {
		t.Error("it has ended")
	}
	return got
}

// tryStarted waits until an agent has reached what it can reach without a peer, or
// has given up, and looks at what works.
func tryStarted(n *kubetest.Node, programs string) works {
	n.Await("it has begun or given up", func() bool {
		var status struct{ Waiting []string }
		_, body, err := n.Get("/status")
		return err == nil && json.Unmarshal([]byte(body), &status) == nil && !slices.ContainsFunc(status.Waiting, func(w string) bool {
			return strings.HasSuffix(w, ": starting") && !strings.HasPrefix(w, "cni-installed")
		})
	})
	return tryAgent(n, programs)
}

// tryAgent looks at what works.
func tryAgent(n *kubetest.Node, programs string) (got works) {
	_, err := n.CNI(filepath.Join(programs, "cni"), "ADD", n.Pod())
	routes, _ := n.Exec("ip", "route", "show", "proto", "109").CombinedOutput()
	got.Pods = err == nil && strings.Contains(string(routes), "dev cali")
	listening, _ := n.Exec("ss", "-Hltn", "sport = :179").CombinedOutput()
	got.Speaks = len(listening) > 0
	_, path, _ := n.Get("/show/path?to=" + n.Address)
	got.Echoes = strings.Contains(path, `"OK":true`)
	got.Advertises = got.Pods && !strings.Contains(n.Log(), "sink=radv")
	return got
}
