package manifests_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

var server *kubetest.Server

func TestMain(m *testing.M) {
	os.Exit(kubetest.Main(m, func(s *kubetest.Server) { server = s }))
}

func manifest(kind, name, spec string) string {
	return fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: %s\nmetadata: {name: %s}\nspec: %s\n", kind, name, spec)
}

// What a Calico user writes has to go in.
func TestGoodObjects(t *testing.T) {
	for _, c := range []struct{ kind, name, spec string }{
		{"IPPool", "v4", `{cidr: 10.244.0.0/16}`},
		{"IPPool", "v6", `{cidr: "fd00:10:244::/48"}`},
		{"IPPool", "v6-long-hand", `{cidr: "fd00:0010:0245:0000:0000:0000:0000:0000/64", blockSize: 116}`},
		{"IPPool", "all-fields", `{cidr: 10.1.0.0/16, blockSize: 28, ipipMode: CrossSubnet, vxlanMode: Never, natOutgoing: true, disabled: true, disableBGPExport: true, nodeSelector: "zone == 'a'", allowedUses: [Workload], namespaceSelector: "team == 'a'", assignmentMode: Manual}`},
		{"IPPool", "one-block", `{cidr: 10.2.0.0/26}`},
		{"IPPool", "one-address", `{cidr: 10.2.1.1/32, blockSize: 32}`},
		{"IPPool", "lb", `{cidr: 10.3.0.0/24, allowedUses: [LoadBalancer]}`},
		{"BGPPeer", "global", `{peerIP: 192.0.2.1, asNumber: 64513}`},
		{"BGPPeer", "port", `{peerIP: "192.0.2.1:1179", asNumber: 4200000000}`},
		{"BGPPeer", "port6", `{peerIP: "[2001:db8::1]:1179", asNumber: 64513}`},
		{"BGPPeer", "unnumbered", `{peerIP: "fe80::1%eth0", asNumber: 64513}`},
		{"BGPPeer", "unnumbered-port", `{peerIP: "[fe80::1%bond0.100]:1179", asNumber: 64513}`},
		{"BGPPeer", "link-local-port", `{peerIP: "[fe80::1]:179", asNumber: 64513}`},
		{"BGPPeer", "dotted", `{peerIP: "2001:db8::1", asNumber: "1.10", localASNumber: "64512"}`},
		{"BGPPeer", "by-node", `{node: n1, peerIP: 192.0.2.1, asNumber: 64513}`},
		{"BGPPeer", "by-selector", `{nodeSelector: "rack == 'a'", peerSelector: "has(reflector)"}`},
		{"BGPPeer", "all-fields", `{peerIP: 192.0.2.1, asNumber: 64513, nextHopMode: Self, sourceAddress: None, maxRestartTime: 90s, keepaliveTime: 10s, numAllowedLocalASNumbers: 2, ttlSecurity: 1, reachableBy: 192.0.2.254, filters: [a, b], reversePeering: Manual, password: {secretKeyRef: {name: s, key: k}}}`},
		{"BGPPeer", "workload", `{localWorkloadSelector: "app == 'router'", asNumber: 65000}`},
		{"BGPConfiguration", "default", `{logSeverityScreen: Info, nodeToNodeMeshEnabled: true, asNumber: 64512, listenPort: 1179, serviceClusterIPs: [{cidr: 10.96.0.0/12}], serviceLoadBalancerIPs: [{cidr: "fd00:1::/112"}], communities: [{name: a, value: "65000:1"}, {name: b, value: "4200000000:1:2"}], prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: [a, "65000:2"]}], nodeMeshPassword: {secretKeyRef: {name: s, key: k}}, nodeMeshMaxRestartTime: 60s, bindMode: NodeIP, ignoredInterfaces: ["eth*"], localWorkloadPeeringIPV4: 169.254.1.2, localWorkloadPeeringIPV6: "fe80::1"}`},
		{"BGPConfiguration", "node.n1", `{listenPort: 1180, logSeverityScreen: DEBUG}`},
		{"BGPFilter", "f", `{exportV4: [{cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {min: 16, max: 24}, source: RemotePeers, interface: "eth*", peerType: eBGP, communities: {values: ["65000:1"]}, asPathPrefix: [4200000000], priority: 100, action: Accept, operations: [{addCommunity: {value: "1:2:3"}}, {prependASPath: {prefix: [65000]}}, {setPriority: {value: 10}}]}, {action: Reject}], importV6: [{cidr: "2001:db8::/32", matchOperator: NotIn, prefixLength: {max: 128}, action: Reject}]}`},
		{"IPAMConfiguration", "default", `{strictAffinity: true, maxBlocksPerHost: 4, ipCooldownSeconds: 60}`},
		{"IPReservation", "r", `{reservedCIDRs: [10.244.0.1, 10.244.1.0/30, "fd00::1"]}`},
		{"BlockAffinity", "n1-10-244-1-0-26", `{state: confirmed, node: n1, cidr: 10.244.1.0/26, type: host, deleted: false}`},
		{"IPAMBlock", "10-244-1-0-30", `{cidr: 10.244.1.0/30, affinity: "host:n1", affinityClaimTime: "2026-08-22T10:00:00Z", allocations: [0, null, 1, null], unallocated: [1, 3], attributes: [{handle_id: h, secondary: {node: n1}}, {handle_id: k, later: {field: 1}}], sequenceNumber: 1787392800000000001, sequenceNumberForAllocation: {"0": 1787392800000000000}, deleted: false, strictAffinity: false}`},
		{"IPAMHandle", "k8s-pod-network.abc", `{handleID: k8s-pod-network.abc, block: {"10.244.1.0/30": 1}, deleted: false}`},
		{"CalicoNodeStatus", "n1", `{node: n1, classes: [Agent, BGP, Routes], updatePeriodSeconds: 10}`},
		{"FelixConfiguration", "default", `{ipipMTU: 1480, natPortRange: "32768:60999", routeRefreshInterval: 90s, natOutgoingExclusions: IPPoolsAndHostIPs, ipForwarding: Enabled, ipv4NormalRoutePriority: 1024}`},
		{"ClusterInformation", "default", `{clusterGUID: "0123456789abcdef0123456789abcdef", datastoreReady: true}`},
		{"KubeControllersConfiguration", "default", `{controllers: {node: {reconcilerPeriod: 5m, leakGracePeriod: 15m}}}`},
	} {
		t.Run(c.kind+"/"+c.name, func(t *testing.T) {
			out := server.MustKubectl(t, manifest(c.kind, c.name, c.spec), "create", "--validate=strict", "-f", "-")
			if strings.Contains(out, "Warning") {
				t.Errorf("a warning: %s", out)
			}
			server.MustKubectl(t, "", "delete", strings.ToLower(c.kind), c.name)
		})
	}
}

// Bad input is refused, and the message names the field and says what is wrong.
func TestBadObjects(t *testing.T) {
	for _, c := range []struct{ kind, name, spec, want string }{
		{"IPPool", "p", `{}`, "spec.cidr: Required value"},
		{"IPPool", "p", `{cidr: 10.244.0.0}`, "spec.cidr: Invalid value: must be a CIDR"},
		{"IPPool", "p", `{cidr: 10.244.0.1/16}`, "spec.cidr: Invalid value: has bits set beyond its prefix length"},
		{"IPPool", "p", `{cidr: 169.254.4.0/24}`, "spec.cidr: Invalid value: must not overlap the link-local range 169.254.0.0/16"},
		{"IPPool", "p", `{cidr: 169.0.0.0/8}`, "spec.cidr: Invalid value: must not overlap the link-local range 169.254.0.0/16"},
		{"IPPool", "p", `{cidr: "fe80::/64"}`, "spec.cidr: Invalid value: must not overlap the link-local range fe80::/10"},
		{"IPPool", "p", `{cidr: 10.244.0.0/16, blockSize: 19}`, "spec.blockSize"},
		{"IPPool", "p", `{cidr: 10.244.0.0/16, blockSize: 33}`, "spec.blockSize: Invalid value: must be 20 to 32 for an IPv4 pool"},
		{"IPPool", "p", `{cidr: "fd00::/64", blockSize: 26}`, "spec.blockSize: Invalid value: must be 20 to 32 for an IPv4 pool, 116 to 128 for an IPv6 pool"},
		{"IPPool", "p", `{cidr: 10.244.0.0/27}`, "spec.cidr: Invalid value: is smaller than one block"},
		{"IPPool", "p", `{cidr: 10.244.0.0/16, ipipMode: Always, vxlanMode: CrossSubnet}`, "spec.ipipMode: Invalid value: ipipMode and vxlanMode cannot both be on"},
		{"IPPool", "p", `{cidr: "fd00::/64", ipipMode: Always}`, "spec.ipipMode: Invalid value: must be Never in an IPv6 pool"},
		{"IPPool", "p", `{cidr: 10.244.0.0/16, ipipMode: Sometimes}`, `spec.ipipMode: Unsupported value: "Sometimes"`},
		{"IPPool", "p", `{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer, Workload]}`, "spec.allowedUses: Invalid value: LoadBalancer cannot be combined"},
		{"IPPool", "p", `{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer], disableBGPExport: true}`, "spec.disableBGPExport: Invalid value: cannot be set on a LoadBalancer pool"},
		{"IPPool", "p", `{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer], vxlanMode: Always}`, "spec.allowedUses: Invalid value: a LoadBalancer pool cannot use"},
		{"IPPool", "p", `{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer], nodeSelector: "has(a)"}`, "spec.nodeSelector: Invalid value: must be all() on a LoadBalancer pool"},
		{"IPPool", "p", `{cidr: 10.244.0.0/16, namespaceSelector: "has(a)"}`, "spec.namespaceSelector: Invalid value: cannot be set on a pool whose allowedUses has Tunnel"},
		{"IPPool", "p", `{cidr: 10.244.0.0/16, allowedUses: [Pods]}`, `spec.allowedUses[0]: Unsupported value: "Pods"`},
		{"IPPool", "p", `{cidr: 10.244.0.0/16, assignmentMode: Never}`, "spec.assignmentMode: Unsupported value"},
		{"IPPool", "p", `{cidr: 10.244.0.0/16, natOutgoin: true}`, `unknown field "spec.natOutgoin"`},
		{"IPPool", "p", `{cidr: 10.244.0.0/16, ipip: {enabled: true}}`, `unknown field "spec.ipip"`},
		{"BGPPeer", "p", `{}`, "spec: Invalid value: set exactly one of peerIP, peerSelector and localWorkloadSelector"},
		{"BGPPeer", "p", `{peerIP: 192.0.2.300, asNumber: 1}`, "spec.peerIP: Invalid value: must be an IP address"},
		{"BGPPeer", "p", `{peerIP: "192.0.2.1:0", asNumber: 1}`, "spec.peerIP: Invalid value: must be an IP address"},
		{"BGPPeer", "p", `{peerIP: "192.0.2.1:65536", asNumber: 1}`, "spec.peerIP: Invalid value: must be an IP address"},
		{"BGPPeer", "p", `{peerIP: "[2001:db8::1]", asNumber: 1}`, "spec.peerIP: Invalid value: must be an IP address"},
		{"BGPPeer", "p", `{peerIP: "[192.0.2]:179", asNumber: 1}`, "spec.peerIP: Invalid value: must be an IP address"},
		{"BGPPeer", "p", `{peerIP: "2001:db8::1%eth0", asNumber: 1}`, "spec.peerIP: Invalid value: must be an IP address"},
		{"BGPPeer", "p", `{peerIP: "fe80::1%", asNumber: 1}`, "spec.peerIP: Invalid value: must be an IP address"},
		{"BGPPeer", "p", `{peerIP: "fe80::1%eth0 x", asNumber: 1}`, "spec.peerIP: Invalid value: must be an IP address"},
		{"BGPPeer", "p", `{peerIP: "[fe80::1%eth0]:0", asNumber: 1}`, "spec.peerIP: Invalid value: must be an IP address"},
		{"BGPPeer", "p", `{peerIP: router.example, asNumber: 1}`, "spec.peerIP: Invalid value: must be an IP address"},
		{"BGPPeer", "p", `{peerIP: 224.0.0.5, asNumber: 1}`, "spec.peerIP: Invalid value: must be a unicast address"},
		{"BGPPeer", "p", `{peerIP: 0.0.0.0, asNumber: 1}`, "spec.peerIP: Invalid value: must be a unicast address"},
		{"BGPPeer", "p", `{peerIP: 192.0.2.1}`, "asNumber is required unless peerSelector is set"},
		{"BGPPeer", "p", `{peerIP: 192.0.2.1, asNumber: 0}`, "spec.asNumber: Invalid value: must be an AS number"},
		{"BGPPeer", "p", `{peerIP: 192.0.2.1, asNumber: 4294967296}`, "spec.asNumber: Invalid value: must be an AS number"},
		{"BGPPeer", "p", `{peerIP: 192.0.2.1, asNumber: "AS64512"}`, "spec.asNumber: Invalid value: must be an AS number"},
		{"BGPPeer", "p", `{peerIP: 192.0.2.1, asNumber: 1, peerSelector: all()}`, "set exactly one of peerIP, peerSelector"},
		{"BGPPeer", "p", `{peerSelector: all(), asNumber: 1}`, "spec.asNumber: Invalid value: must be empty when peerSelector is set"},
		{"BGPPeer", "p", `{node: a, nodeSelector: all(), peerIP: 192.0.2.1, asNumber: 1}`, "spec.nodeSelector: Invalid value: node and nodeSelector cannot both be set"},
		{"BGPPeer", "p", `{peerSelector: all(), reachableBy: 192.0.2.1}`, "spec.reachableBy: Invalid value: needs peerIP"},
		{"BGPPeer", "p", `{peerIP: 192.0.2.1, asNumber: 1, reachableBy: gateway}`, "spec.reachableBy: Invalid value: must be an IP address"},
		{"BGPPeer", "p", `{peerIP: 192.0.2.1, asNumber: 1, keepaliveTime: 500ms}`, "spec.keepaliveTime: Invalid value: must be a duration from 1s to 21845s"},
		{"BGPPeer", "p", `{peerIP: 192.0.2.1, asNumber: 1, maxRestartTime: soon}`, "spec.maxRestartTime: Invalid value"},
		{"BGPPeer", "p", `{peerIP: 192.0.2.1, asNumber: 1, nextHopMode: Other}`, "spec.nextHopMode: Unsupported value"},
		{"BGPPeer", "p", `{peerIP: 192.0.2.1, asNumber: 1, nextHopMode: Self, keepOriginalNextHop: true}`, "spec.keepOriginalNextHop: Invalid value: keepOriginalNextHop and nextHopMode cannot both be set"},
		{"BGPPeer", "p", `{peerIP: 192.0.2.1, asNumber: 1, ttlSecurity: 256}`, "spec.ttlSecurity"},
		{"BGPPeer", "p", `{peerIP: 192.0.2.1, asNumber: 1, password: {secretKeyRef: {key: k}}}`, "spec.password.secretKeyRef.name: Required value"},
		{"BGPPeer", "p", `{peerIP: 192.0.2.1, asNumber: 1, holdtime: 9s}`, `unknown field "spec.holdtime"`},
		{"BGPConfiguration", "other", `{}`, `metadata.name must be "default"`},
		{"BGPConfiguration", "default", `{asNumber: 0}`, "spec.asNumber: Invalid value: must be an AS number"},
		{"BGPConfiguration", "default", `{listenPort: 70000}`, "spec.listenPort"},
		{"BGPConfiguration", "default", `{communities: [{name: a, value: "65536:1"}]}`, "spec.communities[0].value: Invalid value: must be a community"},
		{"BGPConfiguration", "default", `{communities: [{name: a, value: "1"}]}`, "spec.communities[0].value: Invalid value: must be a community"},
		{"BGPConfiguration", "default", `{communities: [{name: a, value: "1:1"}, {name: a, value: "1:2"}]}`, "spec.communities[1]: Duplicate value"},
		{"BGPConfiguration", "default", `{prefixAdvertisements: [{cidr: 10.0.0.1/8, communities: ["1:1"]}]}`, "spec.prefixAdvertisements[0].cidr: Invalid value: must be a CIDR"},
		{"BGPConfiguration", "default", `{serviceClusterIPs: [{cidr: ten}]}`, "spec.serviceClusterIPs[0].cidr: Invalid value: must be a CIDR"},
		{"BGPConfiguration", "default", `{nodeToNodeMeshEnabled: false, nodeMeshPassword: {secretKeyRef: {name: s, key: k}}}`, "spec.nodeMeshPassword: Invalid value: needs nodeToNodeMeshEnabled"},
		{"BGPConfiguration", "node.n1", `{nodeMeshPassword: {secretKeyRef: {name: s, key: k}}}`, "can only be set on the object named default"},
		{"BGPConfiguration", "default", `{bindMode: All}`, "spec.bindMode: Unsupported value"},
		{"BGPConfiguration", "default", `{localWorkloadPeeringIPV4: "fe80::1"}`, "spec.localWorkloadPeeringIPV4: Invalid value: must be an IPv4 address"},
		{"BGPConfiguration", "default", `{logSeverityScreen: Loud}`, "spec.logSeverityScreen"},
		{"BGPFilter", "f", `{exportV4: [{cidr: 10.0.0.0/8, action: Accept}]}`, "spec.exportV4[0]: Invalid value: cidr and matchOperator go together"},
		{"BGPFilter", "f", `{exportV4: [{cidr: "fd00::/8", matchOperator: In, action: Accept}]}`, "spec.exportV4[0].cidr: Invalid value: must be an IPv4 CIDR"},
		{"BGPFilter", "f", `{importV6: [{cidr: 10.0.0.0/8, matchOperator: In, action: Accept}]}`, "spec.importV6[0].cidr: Invalid value: must be an IPv6 CIDR"},
		{"BGPFilter", "f", `{exportV4: [{cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {max: 33}, action: Accept}]}`, "spec.exportV4[0].prefixLength.max"},
		{"BGPFilter", "f", `{exportV4: [{cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {min: 20, max: 16}, action: Accept}]}`, "min must not be greater than max"},
		{"BGPFilter", "f", `{exportV4: [{prefixLength: {min: 20}, action: Accept}]}`, "spec.exportV4[0]: Invalid value: prefixLength needs cidr"},
		{"BGPFilter", "f", `{exportV4: [{action: Drop}]}`, "spec.exportV4[0].action: Unsupported value"},
		{"BGPFilter", "f", `{exportV4: [{cidr: 10.0.0.0/8, matchOperator: In}]}`, "spec.exportV4[0].action: Required value"},
		{"BGPFilter", "f", `{exportV4: [{action: Reject, operations: [{setPriority: {value: 1}}]}]}`, "operations are for action Accept only"},
		{"BGPFilter", "f", `{exportV4: [{action: Accept, operations: [{setPriority: {value: 1}, addCommunity: {value: "1:1"}}]}]}`, "set exactly one of addCommunity, prependASPath, setPriority"},
		{"BGPFilter", "f", `{exportV4: [{action: Accept, communities: {values: ["70000:1"]}}]}`, "spec.exportV4[0].communities.values[0]: Invalid value: must be a community"},
		{"BGPFilter", "f", `{exportV4: [{action: Accept, asPathPrefix: [0]}]}`, "spec.exportV4[0].asPathPrefix[0]"},
		{"BGPFilter", "f", `{exportV4: [{action: Accept, nextHop: self}]}`, `unknown field "spec.exportV4[0].nextHop"`},
		{"BGPPeer", "p", `{peerIP: 192.0.2.1, asNumber: 1, localASNumber: 0}`, "spec.localASNumber: Invalid value: must be an AS number"},
		{"BGPPeer", "p", `{peerIP: 192.0.2.1, asNumber: 1, sourceAddress: Node}`, `spec.sourceAddress: Unsupported value: "Node"`},
		{"BGPPeer", "p", `{peerSelector: all(), reversePeering: "Off"}`, `spec.reversePeering: Unsupported value: "Off"`},
		{"BGPPeer", "p", `{peerIP: 192.0.2.1, asNumber: 1, numAllowedLocalASNumbers: -1}`, "spec.numAllowedLocalASNumbers"},
		{"BGPPeer", "p", `{peerIP: 192.0.2.1, asNumber: 1, localWorkloadSelector: all()}`, "set exactly one of peerIP, peerSelector and localWorkloadSelector"},
		{"BGPPeer", "p", `{localWorkloadSelector: all()}`, "asNumber is required unless peerSelector is set"},
		{"BGPPeer", "p", `{peerIP: 192.0.2.1, asNumber: 1, maxRestartTime: 5000s}`, "spec.maxRestartTime: Invalid value"},
		{"BGPPeer", "p", `{peerIP: 192.0.2.1, asNumber: 1, keepaliveTime: 30000s}`, "spec.keepaliveTime: Invalid value: must be a duration from 1s to 21845s"},
		{"BGPPeer", "p", `{peerIP: 192.0.2.1, asNumber: 1, ttlSecurity: -1}`, "spec.ttlSecurity"},
		{"BGPConfiguration", "default", `{ipv4NormalRoutePriority: 0}`, "spec.ipv4NormalRoutePriority"},
		{"BGPConfiguration", "default", `{ipv6NormalRoutePriority: 2147483647}`, "spec.ipv6NormalRoutePriority"},
		{"BGPConfiguration", "default", `{serviceLoadBalancerAggregation: Sometimes}`, `spec.serviceLoadBalancerAggregation: Unsupported value: "Sometimes"`},
		{"BGPConfiguration", "default", `{nodeMeshMaxRestartTime: 5000s}`, "spec.nodeMeshMaxRestartTime"},
		{"BGPConfiguration", "default", `{localWorkloadPeeringIPV6: 169.254.1.1}`, "spec.localWorkloadPeeringIPV6: Invalid value: must be an IPv6 address"},
		{"BGPFilter", "f", `{exportV4: [{matchOperator: In, action: Accept}]}`, "spec.exportV4[0]: Invalid value: cidr and matchOperator go together"},
		{"BGPFilter", "f", `{exportV4: [{cidr: 10.0.0.0/8, matchOperator: Around, action: Accept}]}`, `spec.exportV4[0].matchOperator: Unsupported value: "Around"`},
		{"BGPFilter", "f", `{importV6: [{cidr: "fd00::/8", matchOperator: In, prefixLength: {max: 129}, action: Accept}]}`, "spec.importV6[0].prefixLength.max"},
		{"BGPFilter", "f", `{exportV4: [{source: Local, action: Accept}]}`, `spec.exportV4[0].source: Unsupported value: "Local"`},
		{"BGPFilter", "f", `{exportV4: [{peerType: EBGP, action: Accept}]}`, `spec.exportV4[0].peerType: Unsupported value: "EBGP"`},
		{"BGPFilter", "f", `{importV4: [{interface: "eth 0", action: Reject}]}`, "spec.importV4[0].interface: Invalid value"},
		{"BGPFilter", "f", `{importV4: [{interface: "much-too-long-a-name", action: Reject}]}`, "spec.importV4[0].interface: Too long"},
		{"BGPFilter", "f", `{importV4: [{communities: {values: ["1:1", "1:2"]}, action: Reject}]}`, "spec.importV4[0].communities.values: Too many"},
		{"BGPFilter", "f", `{importV4: [{priority: -1, action: Reject}]}`, "spec.importV4[0].priority"},
		{"BGPFilter", "f", `{exportV4: [{action: Accept, operations: [{}]}]}`, "set exactly one of addCommunity, prependASPath, setPriority"},
		{"BGPFilter", "f", `{exportV4: [{action: Accept, operations: [{setPriority: {value: -1}}]}]}`, "spec.exportV4[0].operations[0].setPriority.value"},
		{"BGPFilter", "f", `{exportV4: [{action: Accept, operations: [{prependASPath: {prefix: []}}]}]}`, "spec.exportV4[0].operations[0].prependASPath.prefix"},
		{"BGPFilter", "f", `{exportV4: [{action: Accept, operations: [` + strings.Repeat(`{setPriority: {value: 1}}, `, 11) + `]}]}`, "spec.exportV4[0].operations: Too many"},
		{"IPAMConfiguration", "other", `{strictAffinity: true}`, `metadata.name must be "default"`},
		{"IPAMConfiguration", "default", `{strictAffinity: false, autoAllocateBlocks: false}`, "spec.autoAllocateBlocks: Invalid value: strictAffinity and autoAllocateBlocks cannot both be false"},
		{"IPAMConfiguration", "default", `{ipCooldownSeconds: 1201}`, "spec.ipCooldownSeconds"},
		{"IPAMConfiguration", "default", `{maxBlocksPerHost: -1}`, "spec.maxBlocksPerHost"},
		{"IPReservation", "r", `{reservedCIDRs: [10.244.0.0/33]}`, "spec.reservedCIDRs[0]: Invalid value: must be an IP address or a CIDR"},
		{"BlockAffinity", "a", `{state: maybe, node: n, cidr: 10.0.0.0/26}`, "spec.state: Unsupported value"},
		{"BlockAffinity", "a", `{state: confirmed, node: n, cidr: 10.0.0.0/26, deleted: "false"}`, "spec.deleted"},
		{"IPAMBlock", "b", `{cidr: 10.0.0.0/30, allocations: [], unallocated: [], attributes: []}`, "spec.strictAffinity: Required value"},
		{"IPAMBlock", "b", `{cidr: 10.0.0.0/30, affinity: n1, allocations: [], unallocated: [], attributes: [], strictAffinity: false}`, "spec.affinity"},
		{"CalicoNodeStatus", "s", `{node: n1, classes: [CPU], updatePeriodSeconds: 10}`, "spec.classes[0]: Unsupported value"},
		{"CalicoNodeStatus", "s", `{node: n1, classes: [BGP], updatePeriodSeconds: 86401}`, "spec.updatePeriodSeconds"},
		{"FelixConfiguration", "default", `{natPortRange: "a:b"}`, "spec.natPortRange: Invalid value: must be a port or a range of ports"},
		{"FelixConfiguration", "n1", `{}`, `metadata.name must be "default"`},
		{"ClusterInformation", "other", `{}`, `metadata.name must be "default"`},
		{"KubeControllersConfiguration", "other", `{controllers: {}}`, `metadata.name must be "default"`},
	} {
		t.Run(c.kind+"/"+c.want, func(t *testing.T) {
			out := refusal(t, c.kind, manifest(c.kind, c.name, c.spec))
			if out == "" {
				t.Fatalf("%s %s was accepted", c.kind, c.spec)
			}
			// the server puts the offending value, as JSON, before the message
			if !matches(out, c.want) {
				t.Errorf("%s %s\n got: %s\nwant: %s", c.kind, c.spec, out, c.want)
			}
		})
	}
}

// refusal is what the server has against an object, a line for each field as kubectl
// prints it; empty if it takes it.
func refusal(t *testing.T, kind, text string) string {
	t.Helper()
	body, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	resource, _ := meta.UnsafeGuessKindToResource(schema.GroupVersionKind{Group: "projectcalico.org", Version: "v3", Kind: kind})
	code, answer := send(t, server.Config(), http.MethodPost, v3Path+resource.Resource+"?dryRun=All&fieldValidation=Strict", string(body))
	if code == http.StatusCreated {
		return ""
	}
	var status metav1.Status
	if err := json.Unmarshal([]byte(answer), &status); err != nil || status.Reason != metav1.StatusReasonInvalid && status.Reason != metav1.StatusReasonBadRequest {
		t.Fatalf("%d %s: %v", code, answer, err)
	}
	if status.Details == nil || len(status.Details.Causes) == 0 {
		return status.Message
	}
	var lines strings.Builder
	for _, c := range status.Details.Causes {
		fmt.Fprintf(&lines, "%s: %s\n", c.Field, c.Message)
	}
	return lines.String()
}

// matches reports whether out has want, in which "Invalid value: " may be
// followed by the value itself in out.
func matches(out, want string) bool {
	head, tail, ok := strings.Cut(want, "Invalid value: ")
	if !ok {
		return strings.Contains(out, want)
	}
	for _, line := range strings.Split(out, "\n") {
		_, rest, found := strings.Cut(line, head+"Invalid value: ")
		if found && strings.Contains(rest, tail) {
			return true
		}
	}
	return false
}

func TestDefaults(t *testing.T) {
	server.MustKubectl(t, manifest("IPPool", "defaults", `{cidr: 10.9.0.0/16}`), "create", "-f", "-")
	defer server.Kubectl("", "delete", "ippool", "defaults")
	got := server.MustKubectl(t, "", "get", "ippool", "defaults", "-o", "jsonpath={.spec}")
	want := `{"allowedUses":["Workload","Tunnel"],"assignmentMode":"Automatic","cidr":"10.9.0.0/16","ipipMode":"Never","nodeSelector":"all()","vxlanMode":"Never"}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestImmutableFields(t *testing.T) {
	server.MustKubectl(t, manifest("IPPool", "fixed", `{cidr: 10.10.0.0/16}`), "create", "-f", "-")
	defer server.Kubectl("", "delete", "ippool", "fixed")
	for _, c := range []struct{ patch, want string }{
		{`{"spec":{"cidr":"10.11.0.0/16"}}`, "spec.cidr: Invalid value: is immutable"},
		{`{"spec":{"blockSize":27}}`, "spec.blockSize: Invalid value: is immutable"},
	} {
		out, err := server.Kubectl("", "patch", "ippool", "fixed", "--type=merge", "-p", c.patch)
		if err == nil || !matches(out, c.want) {
			t.Errorf("%s: got %v %s, want %s", c.patch, err, out, c.want)
		}
	}
	for _, good := range []string{`{"spec":{"blockSize":26}}`, `{"spec":{"disabled":true}}`} {
		server.MustKubectl(t, "", "patch", "ippool", "fixed", "--type=merge", "-p", good)
	}
}

// The block keeps null entries, big sequence numbers and attributes of newer
// writers; the agent's watches select by these fields.
func TestBlockRoundTripAndFieldSelectors(t *testing.T) {
	server.MustKubectl(t, manifest("IPAMBlock", "10-12-0-0-30", `{cidr: 10.12.0.0/30, affinity: "host:n7", allocations: [0, null, null, null], unallocated: [1, 2, 3], attributes: [{handle_id: h, releasedAt: "2026-01-01T00:00:00Z"}], sequenceNumber: 1787392800000000001, strictAffinity: false}`), "create", "-f", "-")
	server.MustKubectl(t, manifest("BlockAffinity", "n7-10-12-0-0-30", `{state: confirmed, node: n7, cidr: 10.12.0.0/30}`), "create", "-f", "-")
	defer server.Kubectl("", "delete", "ipamblock/10-12-0-0-30", "blockaffinity/n7-10-12-0-0-30")
	got := server.MustKubectl(t, "", "get", "ipamblocks", "--field-selector", "spec.affinity=host:n7", "-o", "jsonpath={.items[*].spec}")
	for _, want := range []string{`"allocations":[0,null,null,null]`, `"releasedAt":"2026-01-01T00:00:00Z"`, `"sequenceNumber":1787392800000000001`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
	if got := server.MustKubectl(t, "", "get", "blockaffinities", "--field-selector", "spec.node=n7", "-o", "name"); !strings.Contains(got, "n7-10-12-0-0-30") {
		t.Errorf("field selector spec.node: got %q", got)
	}
	if got := server.MustKubectl(t, "", "get", "blockaffinities", "--field-selector", "spec.node=n8", "-o", "name"); strings.TrimSpace(got) != "" {
		t.Errorf("field selector spec.node=n8: got %q", got)
	}
}
