package preview

import (
	"net/netip"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/muslin-net/muslin/felix/nodeview"
	"github.com/muslin-net/muslin/pkg/kube/netpol"
	"github.com/muslin-net/muslin/pkg/model"
)

// shop is a cluster with pods web and db, and one in the host's network.
func shop() model.PolicyView {
	pod := func(name, addr string) *model.PolicyPod {
		return &model.PolicyPod{Namespace: "shop", Name: name, Node: "n1", Labels: map[string]string{"app": name}, Addresses: []netip.Addr{netip.MustParseAddr(addr)}}
	}
	host := pod("agent", "192.0.2.1")
	host.HostNetwork = true
	return model.PolicyView{
		Synced: true, Namespaces: map[string]map[string]string{"shop": {}},
		Pods: model.SortedOf([]*model.PolicyPod{host, pod("db", "10.0.0.2"), pod("web", "10.0.0.1")}),
	}
}

func apply(t *testing.T, v model.PolicyView, objects string) model.PolicyView {
	t.Helper()
	for _, text := range strings.Split(objects, "---\n") {
		var o netpol.Object
		if strings.TrimSpace(text) == "" {
			continue
		}
		if err := yaml.Unmarshal([]byte(text), &o); err != nil {
			t.Fatal(err)
		}
		if !netpol.Speaks(o.APIVersion, o.Kind) {
			t.Fatalf("%s %s is no object of policy", o.APIVersion, o.Kind)
		}
		var problems []model.Problem
		if v, problems = netpol.Change(v, o); len(problems) > 0 {
			t.Fatal(problems)
		}
	}
	return v
}

// The policies of the tests.
const (
	denyAll = `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny, namespace: shop}, spec: {podSelector: {}, policyTypes: [Ingress]}}
`
	dbFromWeb = `{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: db, namespace: shop}, spec: {order: 10, selector: app == 'db', ingress: [{action: Allow, protocol: TCP, source: {selector: app == 'web'}, destination: {ports: [5432]}}]}}
`
	officeOnly = `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: office}, spec: {types: [Egress], egress: [{action: Allow, destination: {selector: office == 'yes'}}]}}
`
	office = `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: office, labels: {office: "yes"}}, spec: {nets: [198.51.100.0/24]}}
`
	wider = `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: office, labels: {office: "yes"}}, spec: {nets: [198.51.100.0/24, 203.0.113.0/24]}}
`
	admin = `{apiVersion: policy.networking.k8s.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {name: shut}, spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}}
`
	staged = `{apiVersion: projectcalico.org/v3, kind: StagedKubernetesNetworkPolicy, metadata: {name: deny, namespace: shop}, spec: {podSelector: {}, policyTypes: [Ingress]}}
`
	stagedDelete = `{apiVersion: projectcalico.org/v3, kind: StagedNetworkPolicy, metadata: {name: db, namespace: shop}, spec: {stagedAction: Delete}}
`
	stagedIgnore = `{apiVersion: projectcalico.org/v3, kind: StagedGlobalNetworkPolicy, metadata: {name: all}, spec: {stagedAction: Ignore, types: [Ingress]}}
`
)

func TestPolicies(t *testing.T) {
	addr := netip.MustParseAddr
	web, db, node, outside := addr("10.0.0.1"), addr("10.0.0.2"), addr("192.0.2.1"), addr("203.0.113.9")
	flows := []Flow{
		{nodeview.Flow{Source: web, Destination: db, Protocol: 6, SourcePort: 40000, Port: 5432}, true},
		{nodeview.Flow{Source: web, Destination: db, Protocol: 6, SourcePort: 40001, Port: 22}, true},
		{nodeview.Flow{Source: node, Destination: db, Protocol: 6, SourcePort: 40000, Port: 5432}, true}, // a probe
		{nodeview.Flow{Source: db, Destination: outside, Protocol: 17, SourcePort: 40000, Port: 53}, true},
	}
	nodes := []model.Node{{Name: "n1", InternalIPs: []netip.Addr{node}}}
	for _, c := range []struct{ name, have, change, want string }{
		{"nothing", "", stagedIgnore, ""},
		{"default deny of Kubernetes", "", denyAll, `
isolated ingress of Pod shop/db: by KubernetesNetworkPolicy shop/deny
isolated ingress of Pod shop/web: by KubernetesNetworkPolicy shop/deny
refused  shop/web to shop/db, 22/tcp: ingress default end
refused  shop/web to shop/db, 5432/tcp: ingress default end`},
		{"the same, staged", "", staged, `
isolated ingress of Pod shop/db: by KubernetesNetworkPolicy shop/deny
isolated ingress of Pod shop/web: by KubernetesNetworkPolicy shop/deny
refused  shop/web to shop/db, 22/tcp: ingress default end
refused  shop/web to shop/db, 5432/tcp: ingress default end`},
		{"an allowance of Calico", denyAll, dbFromWeb, `
changed  ingress of Pod shop/db: by NetworkPolicy shop/db, KubernetesNetworkPolicy shop/deny
allowed  shop/web to shop/db, 5432/tcp: ingress default end`},
		{"an allowance that goes", denyAll + "---\n" + dbFromWeb, stagedDelete, `
changed  ingress of Pod shop/db: by KubernetesNetworkPolicy shop/deny
refused  shop/web to shop/db, 5432/tcp: ingress default end`},
		{"the only policy goes", dbFromWeb, stagedDelete, `
opened   ingress of Pod shop/db: no policy selects it any more
allowed  shop/web to shop/db, 22/tcp: ingress default end`},
		{"a network set", officeOnly + "---\n" + office, wider, `
changed  egress of Pod shop/db: by GlobalNetworkPolicy office
changed  egress of Pod shop/web: by GlobalNetworkPolicy office
allowed  shop/db to 203.0.113.9, 53/udp: egress default end`},
		{"a ClusterNetworkPolicy", "", admin, `
isolated ingress of Pod shop/db: by ClusterNetworkPolicy shut
isolated ingress of Pod shop/web: by ClusterNetworkPolicy shut
refused  shop/web to shop/db, 22/tcp: ingress kube-admin ClusterNetworkPolicy shut rule 0
refused  shop/web to shop/db, 5432/tcp: ingress kube-admin ClusterNetworkPolicy shut rule 0`},
	} {
		before := apply(t, shop(), c.have)
		text := Policies(before, apply(t, before, c.change), nodes, flows).Text()
		lines := strings.Split(strings.TrimSpace(text), "\n")
		got := strings.Join(lines[:len(lines)-1], "\n")
		if want := strings.TrimSpace(c.want); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, want)
		}
	}
}

// TestCut: where established connections are evaluated again, those that are there are cut. One that was
// denied of late is not there.
func TestCut(t *testing.T) {
	addr := netip.MustParseAddr
	flow := nodeview.Flow{Source: addr("10.0.0.1"), Destination: addr("10.0.0.2"), Protocol: 6, SourcePort: 40000, Port: 5432}
	for _, c := range []struct {
		node string // whose connections are evaluated again
		live bool
		want string
	}{
		{"n1", true, "cut"},
		{"n1", false, "refused"},
		{"n2", true, "refused"},
	} {
		before := shop()
		before.Felix = []model.FelixConfiguration{{Name: "node." + c.node, Established: model.ActionReevaluate}}
		out := Policies(before, apply(t, before, denyAll), nil, []Flow{{flow, c.live}})
		if len(out.Flows) != 1 || out.Flows[0].What != c.want {
			t.Errorf("%+v: %+v", c, out.Flows)
		}
	}
}
