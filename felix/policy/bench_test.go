package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/selector"
)

// town is a cluster with so many pods: 20 to a namespace, each with three labels, 40 of
// them on this node, and two policies to a namespace.
func town(pods int) Input {
	in := Input{Self: "here", EndpointsSynced: true, View: model.PolicyView{Synced: true, Namespaces: map[string]map[string]string{}}}
	var list []*model.PolicyPod
	for i := range pods {
		ns := fmt.Sprint("ns", i/20)
		in.View.Namespaces[ns] = map[string]string{"kubernetes.io/metadata.name": ns, "team": fmt.Sprint("t", i/20%10)}
		p := model.PolicyPod{
			Namespace: ns, Name: fmt.Sprint("pod", i), Node: "there", ServiceAccount: "default",
			Labels:    map[string]string{"app": fmt.Sprint("app", i%5), "pod-template-hash": fmt.Sprint(i / 4), "tier": "x"},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})},
			Ports:     []model.NamedPort{{Name: "http", Protocol: 6, Port: 8080}},
		}
		if i%(pods/40) == 0 {
			p.Node = "here"
			in.Endpoints = append(in.Endpoints, model.Endpoint{Namespace: ns, Pod: p.Name, HostInterface: fmt.Sprint("cali", i), Addresses: p.Addresses})
		}
		list = append(list, &p)
		if i%20 == 0 {
			own := selector.Equal(model.LabelNamespace, ns)
			in.View.Policies = in.View.Policies.With([]*model.Policy{
				{Object: model.Ref{Kind: model.KindKubernetesPolicy, Namespace: ns, Name: "deny"}, Tier: "default", Order: 1000, Selector: own, Ingress: true, Egress: true},
				{
					Object: model.Ref{Kind: model.KindKubernetesPolicy, Namespace: ns, Name: "web"}, Tier: "default", Order: 1000, Ingress: true,
					Selector: selector.And(own, selector.Equal("app", "app0")),
					IngressRules: []model.PolicyRule{{
						Action: model.PolicyAllow, Protocol: 6, Destination: model.PolicyPeer{Ports: []model.PolicyPort{{Name: "http"}, {First: 80, Last: 80}}},
						Source: model.PolicyPeer{Selector: selector.And(own, selector.Equal("app", "app1"))},
					}, {
						Action: model.PolicyAllow, Source: model.PolicyPeer{Selector: selector.Equal("pcns.team", "t1")},
					}},
				},
			}, nil)
		}
	}
	in.View.Pods = model.SortedOf(list)
	return in
}

func BenchmarkCompile(b *testing.B) {
	for _, pods := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(pods), func(b *testing.B) {
			in := town(pods)
			for b.Loop() {
				Compile(in)
			}
		})
	}
}

// BenchmarkEngine is one pod that comes or goes elsewhere.
func BenchmarkEngine(b *testing.B) {
	for _, pods := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(pods), func(b *testing.B) {
			in, e := town(pods), new(Engine)
			in.View.Revision = 1
			e.Compile(in)
			with, without := in, in
			all := slices.Collect(in.View.Pods.All())
			i := slices.IndexFunc(all, func(p *model.PolicyPod) bool { return p.Node == "there" && p.Labels["app"] == "app1" })
			without.View.Pods = in.View.Pods.With(nil, all[i:i+1])
			for n := 0; b.Loop(); n++ {
				if n%2 == 0 {
					e.Compile(without)
				} else {
					e.Compile(with)
				}
			}
		})
	}
}

// BenchmarkNamespace is a namespace of 20 pods that gets another label.
func BenchmarkNamespace(b *testing.B) {
	for _, pods := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(pods), func(b *testing.B) {
			in, e := town(pods), new(Engine)
			in.View.Revision = 1
			e.Compile(in)
			for n := 0; b.Loop(); n++ {
				b.StopTimer()
				in.View.Namespaces = maps.Clone(in.View.Namespaces)
				in.View.Namespaces["ns7"] = map[string]string{"team": fmt.Sprint("t", n%2)}
				in.View.Revision++
				b.StartTimer()
				e.Compile(in)
			}
		})
	}
}
