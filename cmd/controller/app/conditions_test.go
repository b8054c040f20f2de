package app

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/validate"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var (
	then = metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	now  = then.Add(time.Hour)
)

func reported(kind, name string, conditions ...metav1.Condition) kube.Reported {
	return kube.Reported{Ref: model.Ref{Kind: kind, Name: name}, Meta: kube.Meta{UID: name, Generation: 3, Conditions: conditions}}
}

func condition(kind string, status metav1.ConditionStatus, reason, message string, at time.Time) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message, ObservedGeneration: 3, LastTransitionTime: metav1.NewTime(at)}
}

func TestChanges(t *testing.T) {
	peer := model.Ref{Kind: "BGPPeer", Name: "p"}
	bad := model.Problem{Object: peer, Field: "spec.nodeSelector", Reason: "InvalidValue", Message: "is no selector"}
	inForce := condition("Accepted", "True", "Accepted", "in force", then.Time)
	foreign := condition("Other", "False", "Foreign", "of somebody else", then.Time)
	pool := func(name, cidr string) validate.Pool {
		return validate.Pool{Pool: model.Pool{Name: name, CIDR: netip.MustParsePrefix(cidr)}}
	}
	balanced := pool("a", "10.9.0.0/24")
	balanced.AllowedUses = []model.Use{"LoadBalancer"}
	poolBad := model.Problem{Object: model.Ref{Kind: "IPPool", Name: "a"}, Field: "spec.nodeSelector", Reason: "InvalidValue", Message: "is no selector"}
	for name, c := range map[string]struct {
		s       state
		want    []metav1.Condition // of the only change; nil: no change
		notTrue int
	}{
		"new and good":       {state{objects: []kube.Reported{reported("BGPPeer", "p")}}, []metav1.Condition{condition("Accepted", "True", "Accepted", "in force", now)}, 0},
		"nothing new":        {state{objects: []kube.Reported{reported("BGPPeer", "p", inForce)}}, nil, 0},
		"foreign ones stay":  {state{objects: []kube.Reported{reported("BGPPeer", "p", foreign)}}, []metav1.Condition{foreign, condition("Accepted", "True", "Accepted", "in force", now)}, 0},
		"goes bad":           {state{objects: []kube.Reported{reported("BGPPeer", "p", inForce)}, problems: []model.Problem{bad}}, []metav1.Condition{condition("Accepted", "False", "InvalidValue", "spec.nodeSelector: is no selector", now)}, 1},
		"bad in another way": {state{objects: []kube.Reported{reported("BGPPeer", "p", condition("Accepted", "False", "Conflict", "x", then.Time))}, problems: []model.Problem{bad, bad}}, []metav1.Condition{condition("Accepted", "False", "InvalidValue", "spec.nodeSelector: is no selector; spec.nodeSelector: is no selector", then.Time)}, 1},
		"problem of a name":  {state{objects: []kube.Reported{reported("BGPPeer", "p")}, snapshot: model.Snapshot{Peers: []model.BGPPeer{{Name: "p", Node: "n9"}}}}, []metav1.Condition{condition("Accepted", "False", "UnknownName", "spec.node: there is no node n9", now)}, 1},
		"annotation that no node can read": {state{objects: []kube.Reported{reported("BGPPeer", "p")}, snapshot: model.Snapshot{Peers: []model.BGPPeer{{Name: "p", Annotations: map[string]string{"muslin.io/connect": "maybe"}}}}},
			[]metav1.Condition{condition("Accepted", "False", "InvalidAnnotation", `metadata.annotations[muslin.io/connect]: "maybe" is not understood and is ignored: want Both or Passive`, now)}, 1},
		"pool": {state{objects: []kube.Reported{reported("IPPool", "a")}, pools: []validate.Pool{pool("a", "10.0.0.0/16")}}, []metav1.Condition{condition("Allocatable", "True", "OK", "addresses are taken from this pool", now)}, 0},
		"pool for Services": {state{objects: []kube.Reported{reported("IPPool", "a")}, pools: []validate.Pool{balanced}}, []metav1.Condition{condition("Allocatable", "True", "OK",
			"addresses are given to Services of type LoadBalancer, to no pod; spec.cidr: no router hears of its addresses: spec.serviceLoadBalancerIPs of BGPConfiguration default does not have 10.9.0.0/24", now)}, 0},
		"pool for Services that is announced": {state{objects: []kube.Reported{reported("IPPool", "a")}, pools: []validate.Pool{balanced},
			snapshot: model.Snapshot{BGP: []model.BGPConfiguration{{Name: "default", ServiceLoadBalancers: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}}}}},
			[]metav1.Condition{condition("Allocatable", "True", "OK", "addresses are given to Services of type LoadBalancer, to no pod", now)}, 0},
		"pool, bad selector":  {state{objects: []kube.Reported{reported("IPPool", "a")}, pools: []validate.Pool{pool("a", "10.0.0.0/16")}, problems: []model.Problem{poolBad}}, []metav1.Condition{condition("Allocatable", "False", "InvalidValue", "spec.nodeSelector: is no selector", now)}, 1},
		"pool, in vain":       {state{objects: []kube.Reported{reported("IPPool", "a")}, pools: []validate.Pool{pool("a", "10.0.0.0/16")}, problems: []model.Problem{{Object: poolBad.Object, Field: "spec.ipip", Reason: "Unsupported", Message: "has no effect"}}}, []metav1.Condition{condition("Allocatable", "True", "OK", "addresses are taken from this pool; spec.ipip: has no effect", now)}, 0},
		"pool without a CIDR": {state{objects: []kube.Reported{reported("IPPool", "a")}, problems: []model.Problem{{Object: poolBad.Object, Reason: "InvalidValue", Message: "cannot be read"}}}, []metav1.Condition{condition("Allocatable", "False", "InvalidValue", "cannot be read", now)}, 1},
		"overlap before rest": {state{objects: []kube.Reported{reported("IPPool", "b")}, pools: []validate.Pool{pool("a", "10.0.0.0/16"), pool("b", "10.0.0.0/24")}}, []metav1.Condition{condition("Allocatable", "False", "CIDROverlap", "spec.cidr: 10.0.0.0/24 overlaps 10.0.0.0/16 of the older IPPool a; no address is taken from this pool: delete one of the two", now)}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			c.s.nodes = new(validate.Nodes)
			got, notTrue := changes(c.s, now)
			if notTrue != c.notTrue {
				t.Errorf("%d not true, want %d", notTrue, c.notTrue)
			}
			if c.want == nil {
				if len(got) != 0 {
					t.Fatalf("a change where none is needed: %+v", got)
				}
				return
			}
			if len(got) != 1 {
				t.Fatalf("%d changes", len(got))
			}
			if d := cmp.Diff(c.want, got[0].conditions); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestMessageIsBounded(t *testing.T) {
	m := message([]model.Problem{{Message: strings.Repeat("x", 2*maxMessage)}})
	if len(m) != maxMessage {
		t.Errorf("%d bytes", len(m))
	}
}

func TestDefaultObjects(t *testing.T) {
	d := Defaults{IPv4Pool: netip.MustParsePrefix("10.244.0.0/16"), IPv6Pool: netip.MustParsePrefix("fd00::/124")}
	names := func(objects []defaultObject) (out []string) {
		for _, o := range objects {
			out = append(out, o.kind+"/"+o.name)
		}
		return out
	}
	always := []string{"ClusterInformation/default", "KubeControllersConfiguration/default", "IPAMConfiguration/default", "BGPConfiguration/default",
		"Tier/kube-admin", "Tier/default", "Tier/kube-baseline"}
	for name, c := range map[string]struct {
		d    Defaults
		s    model.Snapshot
		want []string
	}{
		"both families": {d, model.Snapshot{}, append(slices.Clone(always), "IPPool/default-ipv4-ippool", "IPPool/default-ipv6-ippool")},
		"a pool exists": {d, model.Snapshot{Pools: []model.Pool{{Name: "own"}}}, always},
		"none asked":    {Defaults{}, model.Snapshot{}, always},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, names(c.d.objects(c.s, "g"))); diff != "" {
				t.Error(diff)
			}
		})
	}
	pools := d.objects(model.Snapshot{}, "g")[len(always):]
	if pools[0].spec["blockSize"] != 26 || pools[1].spec["blockSize"] != 124 {
		t.Errorf("block sizes: %v", pools)
	}
}
