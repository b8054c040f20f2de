package kube

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/nodeaddr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

func obj(name, spec string) *object {
	return &object{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: json.RawMessage(spec)}
}

// annotatedFilter is a BGPFilter with pairs of annotations.
func annotatedFilter(spec string, annotations ...string) *object {
	o := obj("f", spec)
	o.Annotations = map[string]string{}
	for i := 0; i < len(annotations); i += 2 {
		o.Annotations[annotations[i]] = annotations[i+1]
	}
	return o
}

// outcome is what a translation says of an object: good or not, and why.
func outcome[T any](r reading[T]) string {
	lines := []string{fmt.Sprint(r.ok)}
	for _, p := range r.problems {
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

// Objects that were stored before the CRDs refused them: clear problems, no
// panic, and what can stay in force does.
func TestBadStoredObjects(t *testing.T) {
	for _, c := range []struct {
		name, got, want string
	}{
		{"pool: not JSON of a pool", outcome(readPool(obj("a", `{"cidr": 5}`))), "false\nIPPool a: spec: cannot be read: "},
		{"pool: no CIDR", outcome(readPool(obj("a", `{"cidr": "10.0.0.0"}`))), "false\nIPPool a: spec.cidr: \"10.0.0.0\" is not a CIDR"},
		{"pool: block size", outcome(readPool(obj("a", `{"cidr": "10.0.0.0/16", "blockSize": 64}`))), "false\nIPPool a: spec.blockSize: 64 is not a block size of this family: want 20 to 32"},
		{"pool: ipip on IPv6", outcome(readPool(obj("a", `{"cidr": "fd00::/64", "ipipMode": "Always"}`))), "false\nIPPool a: spec.ipipMode: must be Never in an IPv6 pool"},
		{"pool: two tunnels", outcome(readPool(obj("a", `{"cidr": "10.0.0.0/16", "ipipMode": "Always", "vxlanMode": "Always"}`))), "false\nIPPool a: spec.ipipMode: ipipMode and vxlanMode cannot both be on"},
		{"pool: mode", outcome(readPool(obj("a", `{"cidr": "10.0.0.0/16", "ipipMode": "always"}`))), "false\nIPPool a: spec.ipipMode: \"always\" is not one of Never, Always, CrossSubnet"},
		{"pool: selector", outcome(readPool(obj("a", `{"cidr": "10.0.0.0/16", "nodeSelector": "a ="}`))), "true\nIPPool a: spec.nodeSelector: \"a =\" is not a selector"},
		{"peer: loopback", outcome(readPeer(obj("p", `{"peerIP": "127.0.0.1", "asNumber": 1}`))), "false\nBGPPeer p: spec.peerIP: 127.0.0.1 cannot be the address of a peer"},
		{"peer: link-local without interface", outcome(readPeer(obj("p", `{"peerIP": "fe80::1", "asNumber": 1}`))), "false\nBGPPeer p: spec.peerIP: fe80::1 is link-local: say on which interface, as in fe80::1%eth0"},
		{"peer: link-local with interface", outcome(readPeer(obj("p", `{"peerIP": "[fe80::1%eth0]:1179", "asNumber": 1}`))), "true"},
		{"peer: nothing set", outcome(readPeer(obj("p", `{}`))), "false\nBGPPeer p: spec.peerIP: set exactly one of"},
		{"peer: address", outcome(readPeer(obj("p", `{"peerIP": "router", "asNumber": 1}`))), "false\nBGPPeer p: spec.peerIP: \"router\" is not an address"},
		{"peer: port", outcome(readPeer(obj("p", `{"peerIP": "192.0.2.1:0", "asNumber": 1}`))), "false\nBGPPeer p: spec.peerIP: \"192.0.2.1:0\" is not an address"},
		{"peer: asNumber", outcome(readPeer(obj("p", `{"peerIP": "192.0.2.1", "asNumber": "x"}`))), "false\nBGPPeer p: spec: cannot be read: invalid AS Number"},
		{"peer: no asNumber", outcome(readPeer(obj("p", `{"peerIP": "192.0.2.1"}`))), "false\nBGPPeer p: spec.asNumber: is required unless peerSelector is set"},
		{"peer: asNumber and peerSelector", outcome(readPeer(obj("p", `{"peerSelector": "all()", "asNumber": 1}`))), "false\nBGPPeer p: spec.asNumber: must be empty when peerSelector is set"},
		{"peer: node and nodeSelector", outcome(readPeer(obj("p", `{"node": "n", "nodeSelector": "all()", "peerSelector": "all()"}`))), "false\nBGPPeer p: spec.nodeSelector: node and nodeSelector cannot both be set"},
		{"peer: reachableBy", outcome(readPeer(obj("p", `{"peerSelector": "all()", "reachableBy": "192.0.2.1"}`))), "false\nBGPPeer p: spec.reachableBy: needs peerIP"},
		{"peer: duration", outcome(readPeer(obj("p", `{"peerSelector": "all()", "maxRestartTime": "soon"}`))), "false\nBGPPeer p: spec: cannot be read: "},
		{"configuration: a service CIDR", outcome(readBGPConfiguration(obj("default", `{"serviceClusterIPs": [{"cidr": "x"}, {"cidr": "10.96.0.0/12"}]}`))), "true\nBGPConfiguration default: spec.serviceClusterIPs: \"x\" is not a CIDR, as in 10.96.0.0/12; it is left out"},
		{"configuration: bind mode", outcome(readBGPConfiguration(obj("default", `{"bindMode": "All"}`))), "false\nBGPConfiguration default: spec.bindMode: \"All\" is not one of None, NodeIP"},
		{"configuration: priority", outcome(readBGPConfiguration(obj("default", `{"ipv4NormalRoutePriority": 0}`))), "false\nBGPConfiguration default: spec.ipv4NormalRoutePriority: 0 is not within 1 and 2147483646"},
		{"filter: action", outcome(readFilter(obj("f", `{"exportV4": [{"action": "Drop"}]}`))), "false\nBGPFilter f: spec.exportV4[0].action: \"Drop\" is not one of Accept, Reject"},
		{"filter: family", outcome(readFilter(obj("f", `{"importV6": [{"action": "Accept"}, {"cidr": "10.0.0.0/8", "matchOperator": "In", "action": "Accept"}]}`))), "false\nBGPFilter f: spec.importV6[1].cidr: 10.0.0.0/8 is of the other address family"},
		{"filter: lengths", outcome(readFilter(obj("f", `{"exportV4": [{"action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": {"min": 30, "max": 20}}]}`))), "false\nBGPFilter f: spec.exportV4[0].prefixLength: min 30 is greater than max 20"},
		{"filter: lengths of nothing", outcome(readFilter(obj("f", `{"exportV4": [{"action": "Accept", "prefixLength": {"min": 30}}]}`))), "false\nBGPFilter f: spec.exportV4[0].prefixLength: needs cidr"},
		{"filter: community", outcome(readFilter(obj("f", `{"importV4": [{"action": "Reject", "communities": {"values": ["65536:1"]}}]}`))), "false\nBGPFilter f: spec.importV4[0].communities.values: \"65536:1\" is not a community"},
		{"filter: peer type", outcome(readFilter(obj("f", `{"importV4": [{"action": "Reject", "peerType": "EBGP"}]}`))), "false\nBGPFilter f: spec.importV4[0].peerType: \"EBGP\" is not one of eBGP, iBGP"},
		{"filter: interface", outcome(readFilter(obj("f", `{"exportV4": [{"action": "Reject", "interface": "eth 0"}]}`))), "false\nBGPFilter f: spec.exportV4[0].interface: \"eth 0\" is not the name of an interface"},
		{"filter: operations on Reject", outcome(readFilter(obj("f", `{"exportV4": [{"action": "Reject", "operations": [{"setPriority": {"value": 5}}]}]}`))), "false\nBGPFilter f: spec.exportV4[0].operations: are for action Accept only"},
		{"filter: two operations in one", outcome(readFilter(obj("f", `{"exportV4": [{"action": "Accept", "operations": [{"setPriority": {"value": 5}, "addCommunity": {"value": "1:2"}}]}]}`))), "false\nBGPFilter f: spec.exportV4[0].operations[0]: set exactly one of"},
		{"filter: by no Service", outcome(readFilter(annotatedFilter(`{}`, AnnotationServiceSelector, " "))), "false\nBGPFilter f: metadata.annotations[muslin.io/service-selector]: is empty"},
		{"filter: by a bad selector", outcome(readFilter(annotatedFilter(`{}`, AnnotationServiceSelector, "a =="))), "false\nBGPFilter f: metadata.annotations[muslin.io/service-selector]: \"a ==\" is not a selector"},
		{"filter: aggregation", outcome(readFilter(annotatedFilter(`{}`, AnnotationServiceSelector, "all()", AnnotationAggregation, "33"))), "false\nBGPFilter f: metadata.annotations[muslin.io/aggregation-length]: \"33\" is not a prefix length of 1 to 32"},
		{"filter: IPv6 aggregation", outcome(readFilter(annotatedFilter(`{}`, AnnotationServiceSelector, "all()", AnnotationAggregationV6, "/64"))), "false\nBGPFilter f: metadata.annotations[muslin.io/aggregation-length-v6]: \"/64\" is not a prefix length of 1 to 128"},
		{"filter: aggregation of everything", outcome(readFilter(annotatedFilter(`{}`, AnnotationAggregation, "24"))), "false\nBGPFilter f: metadata.annotations[muslin.io/service-selector]: is missing"},
		{"filter: import by Service", outcome(readFilter(annotatedFilter(`{"importV6": [{"action": "Reject"}]}`, AnnotationServiceSelector, "all()"))), "false\nBGPFilter f: spec.importV6: a filter with muslin.io/service-selector is about what nodes announce"},
		{"filter: interface of a Service", outcome(readFilter(annotatedFilter(`{"exportV4": [{"action": "Accept"}, {"action": "Reject", "interface": "eth0", "source": "RemotePeers"}]}`, AnnotationServiceSelector, "all()"))), "false\nBGPFilter f: spec.exportV4[1].source: cannot be asked of the address of a Service"},
		{"filter: by Service", outcome(readFilter(annotatedFilter(`{"exportV4": [{"action": "Accept", "peerType": "eBGP"}]}`, AnnotationServiceSelector, "a == 'b'", AnnotationAggregation, "24", AnnotationAggregationV6, "64"))), "true"},
		{"filter: another annotation", outcome(readFilter(annotatedFilter(`{}`, "muslin.io/services", "all()"))), "true\nBGPFilter f: metadata.annotations[muslin.io/services]: no such annotation of a BGPFilter"},
		{"filter: operator without CIDR", outcome(readFilter(obj("f", `{"exportV4": [{"matchOperator": "In", "action": "Accept"}]}`))), "false\nBGPFilter f: spec.exportV4[0].matchOperator: cidr and matchOperator go together"},
		{"felix: address", outcome(readFelix(obj("default", `{"natOutgoingAddress": "x"}`))), "false\nFelixConfiguration default: spec.natOutgoingAddress: \"x\" is not an IP address"},
		{"affinity: CIDR", outcome(readAffinity(obj("a", `{"state": "confirmed", "node": "n", "cidr": "x"}`))), "false\nBlockAffinity a: spec.cidr: \"x\" is not a CIDR"},
		{"reservation", outcome(readReservation(obj("r", `{"reservedCIDRs": ["10.0.0.1", "x"]}`))), "true\nIPReservation r: spec.reservedCIDRs[1]: \"x\" is neither an IP address nor a CIDR; it is left out"},
		{"no spec at all", outcome(readFilter(obj("f", ``))), "true"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.HasPrefix(c.got, c.want) {
				t.Errorf("got  %s\nwant %s", c.got, c.want)
			}
		})
	}
}

func TestReadPeer(t *testing.T) {
	got := readPeer(obj("p", `{"peerIP": "[2001:db8::1]:1179", "asNumber": "1.10", "localASNumber": 64999, "nextHopMode": "Self", "keepOriginalNextHop": true,
		"sourceAddress": "None", "maxRestartTime": "90s", "keepaliveTime": "10s", "numAllowedLocalASNumbers": 2, "ttlSecurity": 3, "reachableBy": "2001:db8::2",
		"filters": ["a", "b"], "reversePeering": "Manual", "password": {"secretKeyRef": {"name": "s", "key": "k"}}}`))
	want := model.BGPPeer{
		Name: "p", PeerIP: addr("2001:db8::1"), PeerPort: 1179, ASN: 65546, LocalASN: 64999, NextHopMode: "Self", KeepOriginalNextHop: true,
		AnySource: true, MaxRestartTime: 90 * time.Second, KeepaliveTime: 10 * time.Second, NumAllowedLocalASNs: 2, TTLSecurity: 3,
		ReachableBy: addr("2001:db8::2"), Filters: []string{"a", "b"}, NoReverse: true, Password: &model.PasswordRef{SecretName: "s", Key: "k"},
	}
	if d := cmp.Diff(want, got.value, compareValues); d != "" || !got.ok {
		t.Errorf("%v %v (-want +got):\n%s", got.ok, got.problems, d)
	}
}

// TestClampsAreTold: a number that BGP here cannot do is used as the nearest that
// it can.
func TestClampsAreTold(t *testing.T) {
	got := readPeer(obj("p", `{"peerIP": "192.0.2.1", "asNumber": 65000, "numAllowedLocalASNumbers": 11, "ttlSecurity": 255}`))
	if p := got.problems; !got.ok || len(p) != 2 || p[0].Field != "spec.numAllowedLocalASNumbers" || p[1].Field != "spec.ttlSecurity" {
		t.Errorf("%v %v", got.ok, p)
	}
}

func TestReadFilter(t *testing.T) {
	five, nine, hundred := 5, 9, 100
	got := readFilter(obj("f", `{"exportV4": [{"cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": {"min": 5, "max": 9}, "source": "RemotePeers", "interface": "eth*",
		"peerType": "eBGP", "communities": {"values": ["1:2"]}, "asPathPrefix": [4200000000], "priority": 100, "action": "Accept",
		"operations": [{"addCommunity": {"value": "1:2:3"}}, {"prependASPath": {"prefix": [65000]}}, {"setPriority": {"value": 9}}]}], "importV6": [{"action": "Reject"}]}`))
	want := model.BGPFilter{
		Name: "f",
		ExportV4: []model.FilterRule{{
			CIDR: prefix("10.0.0.0/8"), MatchOperator: "In", MinLength: &five, MaxLength: &nine, Source: "RemotePeers", Interface: "eth*", PeerType: "eBGP",
			Communities: []string{"1:2"}, ASPathPrefix: []model.ASN{4200000000}, Priority: &hundred, Accept: true,
			Operations: []model.FilterOperation{{AddCommunity: "1:2:3"}, {PrependASPath: []model.ASN{65000}}, {SetPriority: &nine}},
		}},
		ImportV6: []model.FilterRule{{}},
	}
	if d := cmp.Diff(want, got.value, compareValues); d != "" || !got.ok {
		t.Errorf("%v %v (-want +got):\n%s", got.ok, got.problems, d)
	}
}

func TestReadNodeAddresses(t *testing.T) {
	internal := []corev1.NodeAddress{
		{Type: corev1.NodeHostName, Address: "n1"}, {Type: corev1.NodeExternalIP, Address: "198.51.100.1"},
		{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}, {Type: corev1.NodeInternalIP, Address: "2001:db8::1"}, {Type: corev1.NodeInternalIP, Address: "192.0.2.2"},
	}
	for name, c := range map[string]struct {
		annotations    map[string]string
		addresses      []corev1.NodeAddress
		wantV4, wantV6 string
		problems       string
	}{
		"InternalIP":               {nil, internal, "192.0.2.1/32", "2001:db8::1/128", ""},
		"annotations":              {map[string]string{nodeaddr.IPv4.Address: "10.0.0.1/24", nodeaddr.IPv6.Address: "fd00::1/64"}, internal, "10.0.0.1/24", "fd00::1/64", ""},
		"without a length":         {map[string]string{nodeaddr.IPv4.Address: "10.0.0.1"}, nil, "10.0.0.1/32", "invalid Prefix", ""},
		"of the wrong family":      {map[string]string{nodeaddr.IPv4.Address: "fd00::1/64"}, internal, "192.0.2.1/32", "2001:db8::1/128", "Node n1: metadata.annotations[projectcalico.org/IPv4Address]: "},
		"nonsense":                 {map[string]string{nodeaddr.IPv4.Address: "x", AnnotationASNumber: "y", AnnotationIPIPTunnel: "z"}, internal, "192.0.2.1/32", "2001:db8::1/128", "Node n1: metadata.annotations[projectcalico.org/IPv4Address]: "},
		"another InternalIP since": {map[string]string{nodeaddr.IPv4.Address: "192.0.2.9/24", nodeaddr.IPv4.Mark: "kubernetes-internal-ip 192.0.2.9/24"}, internal, "192.0.2.1/24", "2001:db8::1/128", ""},
		"no such method":           {map[string]string{nodeaddr.IPv6.Method: "eth0"}, internal, "192.0.2.1/32", "2001:db8::1/128", "Node n1: metadata.annotations[muslin.io/ip6-autodetection-method]: "},
		"none":                     {nil, nil, "invalid Prefix", "invalid Prefix", ""},
	} {
		t.Run(name, func(t *testing.T) {
			n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Annotations: c.annotations}, Status: corev1.NodeStatus{Addresses: c.addresses}}
			got := readNode(n)
			if !got.ok || got.value.IPv4.String() != c.wantV4 || got.value.IPv6.String() != c.wantV6 {
				t.Errorf("got %v %s %s, want %s %s", got.ok, got.value.IPv4, got.value.IPv6, c.wantV4, c.wantV6)
			}
			if (c.problems == "") != (len(got.problems) == 0) || len(got.problems) > 0 && !strings.HasPrefix(got.problems[0].String(), c.problems) {
				t.Errorf("problems: %v, want %q", got.problems, c.problems)
			}
		})
	}
}

func TestReadFelixAndAffinity(t *testing.T) {
	read := readFelix(obj("default", `{"ipipMTU": 1440, "natPortRange": "1000:2000", "routeRefreshInterval": "30s", "natOutgoingExclusions": "IPPoolsAndHostIPs", "bpfEnabled": true, "chainInsertMode": "Insert"}`))
	f := read.value
	if f.IPIPMTU != 1440 || f.NATPortMin != 1000 || f.NATPortMax != 2000 || f.RouteRefreshSeconds != 30 || !f.NATExcludeHosts {
		t.Errorf("%+v", f)
	}
	if p := read.problems; len(p) != 2 || p[0].Field != "spec.bpfEnabled" || p[1].Field != "spec.chainInsertMode" {
		t.Errorf("problems: %v", p)
	}
	for spec, want := range map[string]model.Block{
		`{"state": "pending", "node": "n", "cidr": "10.0.0.0/26", "type": "host"}`:                  {CIDR: prefix("10.0.0.0/26"), Node: "n", State: model.BlockPending},
		`{"state": "", "node": "n", "cidr": "10.0.0.0/26"}`:                                         {CIDR: prefix("10.0.0.0/26"), Node: "n", State: model.BlockConfirmed},
		`{"state": "confirmed", "node": "n", "cidr": "10.0.0.0/26", "deleted": true}`:               {CIDR: prefix("10.0.0.0/26"), Node: "n", State: model.BlockPendingDeletion},
		`{"state": "confirmed", "node": "load-balancer", "cidr": "10.0.0.0/26", "type": "virtual"}`: {CIDR: prefix("10.0.0.0/26"), State: model.BlockConfirmed},
	} {
		if got := readAffinity(obj("a", spec)).value; got != want {
			t.Errorf("%s: %+v, want %+v", spec, got, want)
		}
	}
}

// No stored object may bring a reader down.
func FuzzReaders(f *testing.F) {
	for _, seed := range []string{`{}`, `null`, `[]`, `{"cidr":"10.0.0.0/8"}`, `{"exportV4":[{}]}`, `{"peerIP":"[::1]:1"}`, `{"asNumber":"1.1"}`, `{"reservedCIDRs":[""]}`, `{"nodeSelector":"!(has(a)"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(_ *testing.T, spec []byte) {
		o := &object{Spec: spec, Status: spec}
		readPool(o)
		readPeer(o)
		readFilter(o)
		readBGPConfiguration(o)
		readFelix(o)
		readAffinity(o)
		readReservation(o)
		readIPAM(o)
	})
}

// TestProblemsOfEveryTable fills each table that can have problems with one.
func TestProblemsOfEveryTable(t *testing.T) {
	c, err := New(&rest.Config{Host: "https://192.0.2.1"}, Options{
		Node: "n1", Blocks: AllBlocks, AllBlocksWhile: func(model.Snapshot) bool { return true }, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	problem := func(kind string) []model.Problem {
		return []model.Problem{{Object: model.Ref{Kind: kind, Name: "x"}}}
	}
	c.nodes.rows["x"] = row[model.Node]{problems: problem("Node")}
	c.pools.rows["x"] = row[model.Pool]{problems: problem("IPPool")}
	c.bgp.rows["x"] = row[model.BGPConfiguration]{problems: problem("BGPConfiguration")}
	c.peers.rows["x"] = row[model.BGPPeer]{problems: problem("BGPPeer")}
	c.filters.rows["x"] = row[model.BGPFilter]{problems: problem("BGPFilter")}
	c.felix.rows["x"] = row[model.FelixConfiguration]{problems: problem("FelixConfiguration")}
	c.ipam.rows["x"] = row[model.IPAM]{problems: problem("IPAMConfiguration")}
	c.reserved.rows["x"] = row[[]netip.Prefix]{problems: problem("IPReservation")}
	c.blocks.rows["x"] = row[model.Block]{problems: problem("BlockAffinity")}
	c.requests.rows["x"] = row[StatusRequest]{problems: problem("CalicoNodeStatus")}
	c.serviceCIDRs.rows["x"] = row[[]model.ServiceCIDR]{problems: problem("ServiceCIDR")}
	c.all.lent.rows["x"] = row[lentBlock]{problems: problem("IPAMBlock")}
	var got []string
	for _, p := range c.Problems() {
		got = append(got, p.Object.Kind)
	}
	want := []string{"BGPConfiguration", "BGPFilter", "BGPPeer", "BlockAffinity", "CalicoNodeStatus", "FelixConfiguration", "IPAMBlock", "IPAMConfiguration", "IPPool", "IPReservation", "Node", "ServiceCIDR"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
