package policy_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/kube/netpol"
	"github.com/muslin-net/muslin/pkg/model"
	corev1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	networking "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the goldens anew")

// divider stands between the objects of a golden and what they become.
const divider = "\n=== program\n"

// TestGoldens reads objects as the API server has them and compares problems and
// Program. Pods of node "here" are attached to it, by interfaces called after them.
func TestGoldens(t *testing.T) {
	files, err := filepath.Glob("testdata/*.golden")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".golden"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			objects, want, _ := strings.Cut(string(text), divider)
			got := outcome(t, objects)
			if *update {
				if err := os.WriteFile(file, []byte(objects+divider+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func outcome(t *testing.T, objects string) string {
	t.Helper()
	in := policy.Input{Self: "here", EndpointsSynced: true, View: model.PolicyView{Synced: true, Namespaces: map[string]map[string]string{}, ServiceAccounts: map[string]map[string]string{}, Services: map[string][]model.ServiceEndpoint{}}}
	var problems []model.Problem
	for doc := range bytes.SplitSeq([]byte(objects), []byte("\n---\n")) {
		problems = append(problems, read(t, doc, &in)...)
	}
	in.FailsafeIn, in.FailsafeOut = policy.DefaultFailsafe()
	in.Interfaces = []policy.Interface{{Name: "eth1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}}
	program, more := policy.Compile(in)
	var b strings.Builder
	for _, p := range slices.Concat(problems, more) {
		b.WriteString("problem " + p.String() + "\n")
	}
	return b.String() + program.String()
}

// read adds one object to the input.
func read(t *testing.T, doc []byte, in *policy.Input) []model.Problem {
	t.Helper()
	var kind struct{ APIVersion, Kind string }
	decode(t, doc, &kind)
	v := &in.View
	switch kind.APIVersion + " " + kind.Kind {
	case "v1 Namespace":
		var o corev1.Namespace
		decode(t, doc, &o)
		v.Namespaces[o.Name] = o.Labels
	case "v1 Pod":
		var o corev1.Pod
		decode(t, doc, &o)
		netpol.StripPod(&o)
		p := netpol.Pod(&o)
		v.Pods = v.Pods.With([]*model.PolicyPod{p}, nil)
		if p.Node == in.Self && !p.HostNetwork {
			in.Endpoints = append(in.Endpoints, model.Endpoint{Namespace: p.Namespace, Pod: p.Name, HostInterface: "cali-" + p.Name, Addresses: p.Addresses})
		}
	case "v1 Node":
		var o corev1.Node
		decode(t, doc, &o)
		v.Nodes = append(v.Nodes, nodeOf(&o))
	case "networking.k8s.io/v1 NetworkPolicy":
		var o networking.NetworkPolicy
		decode(t, doc, &o)
		p, problems, ok := netpol.Kubernetes(&o)
		if ok {
			v.Policies = v.Policies.With([]*model.Policy{&p}, nil)
		}
		return problems
	case "policy.networking.k8s.io/v1beta1 ClusterNetworkPolicy":
		return readCluster(t, doc, v)
	case "discovery.k8s.io/v1 EndpointSlice":
		var o discovery.EndpointSlice
		decode(t, doc, &o)
		netpol.StripSlice(&o)
		service, by := netpol.ServedBy(&o)
		v.Services[service] = append(v.Services[service], by...)
	case "v1 ServiceAccount":
		var o corev1.ServiceAccount
		decode(t, doc, &o)
		v.ServiceAccounts[o.Namespace+"/"+o.Name] = o.Labels
	default:
		if strings.HasPrefix(kind.APIVersion, "projectcalico.org/") {
			return readCalico(t, doc, kind.Kind, v)
		}
		t.Fatalf("no kind of a golden: %+v\n%s", kind, doc)
	}
	return nil
}

func nodeOf(o *corev1.Node) model.PolicyNode {
	n := model.PolicyNode{Name: model.NodeName(o.Name), Labels: o.Labels}
	for _, a := range o.Status.Addresses {
		if addr, err := netip.ParseAddr(a.Address); err == nil {
			n.Addresses = append(n.Addresses, addr)
		}
	}
	return n
}

func readCluster(t *testing.T, doc []byte, v *model.PolicyView) []model.Problem {
	t.Helper()
	var o struct {
		Metadata struct{ Name string }
		Spec     json.RawMessage
	}
	decode(t, doc, &o)
	p, problems, ok := netpol.Cluster(o.Metadata.Name, o.Spec)
	if ok {
		v.Policies = v.Policies.With([]*model.Policy{&p}, nil)
	}
	return problems
}

func readCalico(t *testing.T, doc []byte, kind string, v *model.PolicyView) []model.Problem {
	t.Helper()
	var o struct {
		Metadata struct {
			Name, Namespace string
			Labels          map[string]string
		}
		Spec json.RawMessage
	}
	decode(t, doc, &o)
	ref := model.Ref{Kind: kind, Namespace: o.Metadata.Namespace, Name: o.Metadata.Name}
	switch kind {
	case "NetworkPolicy", "GlobalNetworkPolicy":
		p, problems, ok := netpol.Calico(ref, o.Spec)
		if ok {
			v.Policies = v.Policies.With([]*model.Policy{&p}, nil)
		}
		return problems
	case "NetworkSet", "GlobalNetworkSet":
		s, problems, ok := netpol.NetworkSet(ref, o.Metadata.Labels, o.Spec)
		if ok {
			v.NetworkSets = append(v.NetworkSets, s)
		}
		return problems
	case model.KindHostEndpoint:
		e, problems, ok := netpol.HostEndpoint(ref.Name, o.Metadata.Labels, o.Spec)
		if ok {
			v.HostEndpoints = append(v.HostEndpoints, e)
		}
		return problems
	case "Tier":
		tier, problems, ok := netpol.Tier(ref.Name, o.Spec)
		if ok {
			v.Tiers = append(v.Tiers, tier)
		}
		return problems
	}
	t.Fatalf("no kind of a golden: %s", kind)
	return nil
}

func decode(t *testing.T, doc []byte, into any) {
	t.Helper()
	if err := yaml.Unmarshal(doc, into); err != nil {
		t.Fatalf("%v in\n%s", err, doc)
	}
}
