package kube_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

var update = flag.Bool("update", false, "write the golden files of testdata/door")

// TestDoor reads the YAML files of testdata/door, as an operator writes them, and
// holds what each node would do, and what could not be honoured, to the text beside
// them. To add a case, write a file and run with -update.
func TestDoor(t *testing.T) {
	files, err := filepath.Glob("testdata/door/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		objects, err := kube.ReadObjects(data)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		got := decided(t, objects)
		golden := strings.TrimSuffix(file, ".yaml") + ".txt"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, _ := os.ReadFile(golden)
		if d := cmp.Diff(string(want), got); d != "" {
			t.Errorf("%s (-want +got):\n%s", file, d)
		}
	}
}

func decided(t *testing.T, objects kube.Objects) string {
	t.Helper()
	s, problems, err := kube.Snapshot(objects, kube.Options{Blocks: kube.AllBlocks})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	blocks := s.Blocks
	for _, n := range s.Nodes {
		s.Blocks = slices.DeleteFunc(slices.Clone(blocks), func(b model.Block) bool { return b.Node != n.Name })
		cfg, more := bgp.Desired(s, n.Name)
		fmt.Fprintf(&b, "# node %s\n%s\n", n.Name, cfg)
		for _, p := range more {
			if !slices.Contains(problems, p) {
				problems = append(problems, p)
			}
		}
	}
	b.WriteString("# not honoured\n")
	for _, p := range problems {
		fmt.Fprintln(&b, p)
	}
	return b.String()
}

// TestFromIsWhatAClusterReads: the same objects through the door and from a server
// are the same Snapshot, and the same policies.
func TestFromIsWhatAClusterReads(t *testing.T) {
	server.Install(t)
	apply(t, node("n1", `, projectcalico.org/IPv4Address: 192.0.2.1/24`)+node("n2", ""))
	apply(t, v3("IPPool", "pods", `{cidr: 10.244.0.0/16, natOutgoing: true}`)+v3("BlockAffinity", "n1-10-244-1-0-26", `{cidr: 10.244.1.0/26, node: n1, state: confirmed}`)+
		v3("BGPPeer", "router", `{peerIP: 192.0.2.254, asNumber: 64600, password: {secretKeyRef: {name: bgp, key: router}}}`)+
		v3("BGPConfiguration", "default", `{serviceClusterIPs: [{cidr: 10.96.0.0/12}]}`)+v3("FelixConfiguration", "default", `{}`)+
		v3("IPReservation", "r", `{reservedCIDRs: [10.244.9.9]}`))
	apply(t, "apiVersion: v1\nkind: Secret\nmetadata: {name: bgp, namespace: muslin-system}\ndata: {router: c2VjcmV0}\n")
	apply(t, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: default}\nspec: {podSelector: {}, policyTypes: [Ingress]}\n")
	o := kube.Options{Blocks: kube.AllBlocks, Policy: true, PolicyPeers: true}
	live := watchAs(t, server.Config(), o)
	eventually(t, live, func() string {
		if waiting := live.PolicyWaiting(); len(waiting) > 0 {
			return fmt.Sprint("waiting for ", waiting)
		}
		return cmp.Diff(through(t, o).Snapshot(), live.Snapshot(), sameValues)
	})
	if d := cmp.Diff(through(t, o).PolicyView(), live.PolicyView(), sameValues); d != "" {
		t.Errorf("policies through the door, and from the server:\n%s", d)
	}
}

var sameValues = cmp.Exporter(func(reflect.Type) bool { return true })

// through reads what is missing from the server until nothing is.
func through(t *testing.T, o kube.Options) *kube.Cluster {
	t.Helper()
	objects := kube.Objects{}
	for {
		c, err := kube.From(objects, o)
		if err != nil {
			t.Fatal(err)
		}
		missing := c.Missing()
		if len(missing) == 0 {
			return c
		}
		for _, l := range missing {
			objects[l.Path] = raw(t, l)
		}
	}
}

func raw(t *testing.T, l kube.List) []map[string]any {
	t.Helper()
	out, err := rawClient(t).Get().RequestURI(l.Path).DoRaw(t.Context())
	if apierrors.IsNotFound(err) {
		return nil // a kind that the server does not have
	} else if err != nil {
		t.Fatal(err)
	}
	var list struct{ Items []map[string]any }
	var one map[string]any
	if l.Secret {
		err = json.Unmarshal(out, &one)
		list.Items = append(list.Items, one)
	} else {
		err = json.Unmarshal(out, &list)
	}
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

func TestObjectsThatAreNone(t *testing.T) {
	for text, want := range map[string]string{
		"kind: Node":     "document 1",
		"a: b\n---\n- c": "document 1",
		"apiVersion: v1\nkind: Node\nmetadata: {name: n}\nspec: {podCIDRs: 7}": "n: ",
	} {
		objects, err := kube.ReadObjects([]byte(text))
		if err == nil {
			_, _, err = kube.Snapshot(objects, kube.Options{})
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// PolicyAll reads what a policy could speak of although there is none.
func TestPolicyAll(t *testing.T) {
	objects, err := kube.ReadObjects([]byte(`
{apiVersion: v1, kind: Namespace, metadata: {name: default}}
---
{apiVersion: v1, kind: Pod, metadata: {name: lone, namespace: default}, spec: {nodeName: n2}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: lone, namespace: default, labels: {trust: none}}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: lone, namespace: default, labels: {kubernetes.io/service-name: lone}}, addressType: IPv4, endpoints: [{addresses: [10.244.9.9]}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	view := func(o kube.Options) model.PolicyView {
		for {
			c, err := kube.From(objects, o)
			if err != nil {
				t.Fatal(err)
			}
			missing := c.Missing()
			if len(missing) == 0 {
				return c.PolicyView()
			}
			for _, l := range missing {
				objects[l.Path] = nil
			}
		}
	}
	if v := view(kube.Options{Policy: true, PolicyPeers: true}); !v.Synced || v.Pods.Len()+len(v.ServiceAccounts)+len(v.Services) > 0 {
		t.Errorf("without: %+v", v)
	}
	if v := view(kube.Options{Policy: true, PolicyPeers: true, PolicyAll: true}); !v.Synced || v.Pods.Len() != 1 || len(v.ServiceAccounts["default/lone"]) != 1 || len(v.Services["default/lone"]) != 1 {
		t.Errorf("with: %+v", v)
	}
	// A relay may be asked for peers of a policy that it has not seen.
	if v := view(kube.Options{Policy: true, PolicyRelay: true}); !v.Synced || v.Pods.Len() != 1 || len(v.ServiceAccounts["default/lone"]) != 1 || len(v.Services) > 0 {
		t.Errorf("of a relay: %+v", v)
	}
}
