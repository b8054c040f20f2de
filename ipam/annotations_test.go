package ipam_test

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

var thePod = model.Ref{Kind: "Pod", Namespace: "ns", Name: "web"}

func TestReadAnnotations(t *testing.T) {
	mac, err := net.ParseMAC("1c:0c:0a:c0:ff:ee")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		pod, ns map[string]string
		want    ipam.Wishes
	}{
		{name: "nothing"},
		{name: "empty values", pod: map[string]string{ipam.AnnotationIPv4Pools: " ", ipam.AnnotationFloatingIPs: "[]"}},
		{
			name: "all of the pod's",
			pod: map[string]string{
				ipam.AnnotationIPv4Pools: `["a", "10.1.0.0/16"]`, ipam.AnnotationIPv6Pools: `["fd00::/64"]`,
				ipam.AnnotationIPFamilies: `["IPv6","IPv4"]`, ipam.AnnotationIPAddrs: `["10.1.2.3","fd00::3"]`,
				ipam.AnnotationHWAddr: "1c:0c:0a:c0:ff:ee",
			},
			want: ipam.Wishes{PoolsV4: []string{"a", "10.1.0.0/16"}, PoolsV6: []string{"fd00::/64"}, Families: []ipam.Family{ipam.IPv6, ipam.IPv4},
				Addrs: []netip.Addr{addr("10.1.2.3"), addr("fd00::3")}, HardwareAddr: mac},
		},
		{
			name: "the pod's before the namespace's",
			pod:  map[string]string{ipam.AnnotationIPv4Pools: `["pod"]`},
			ns:   map[string]string{ipam.AnnotationIPv4Pools: `["namespace"]`, ipam.AnnotationIPFamilies: `["IPv4"]`},
			want: ipam.Wishes{PoolsV4: []string{"pod"}, Families: []ipam.Family{ipam.IPv4}},
		},
		{
			name: "the namespace has no addresses to give",
			ns:   map[string]string{ipam.AnnotationIPAddrs: `["10.1.2.3"]`, ipam.AnnotationFloatingIPs: `["1.2.3.4"]`, ipam.AnnotationHWAddr: "x"},
		},
		{
			name: "without IPAM",
			pod:  map[string]string{ipam.AnnotationIPAddrsNoIPAM: `["192.168.0.1"]`},
			want: ipam.Wishes{AddrsNoIPAM: []netip.Addr{addr("192.168.0.1")}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ipam.ReadAnnotations(thePod, tt.pod, tt.ns)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("wishes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadAnnotationsRefuses(t *testing.T) {
	on := func(key, value string) map[string]string { return map[string]string{key: value} }
	tests := []struct {
		pod, ns map[string]string
		object  string
		says    string
	}{
		{pod: on(ipam.AnnotationIPv4Pools, "pool-a"), object: "Pod ns/web", says: "JSON array"},
		{pod: on(ipam.AnnotationIPv4Pools, `["fd00::/64"]`), object: "Pod ns/web", says: "not an IPv4 prefix"},
		{pod: on(ipam.AnnotationIPv4Pools, `["10.1.0.0/99"]`), object: "Pod ns/web", says: "neither"},
		{pod: on(ipam.AnnotationIPv4Pools, `[""]`), object: "Pod ns/web", says: "neither"},
		{ns: on(ipam.AnnotationIPv6Pools, `{"a":1}`), object: "Namespace ns", says: "JSON array"},
		{ns: on(ipam.AnnotationIPFamilies, `["IPv5"]`), object: "Namespace ns", says: `"IPv5" is not an address family`},
		{pod: on(ipam.AnnotationIPAddrs, `["10.1.2"]`), object: "Pod ns/web", says: "not an IP address"},
		{pod: on(ipam.AnnotationIPAddrs, `["10.1.2.3","10.1.2.4"]`), object: "Pod ns/web", says: "more than one IPv4"},
		{pod: on(ipam.AnnotationHWAddr, "ff"), object: "Pod ns/web", says: "48-bit"},
		{pod: on(ipam.AnnotationHWAddr, "00:00:5e:00:53:01:02:03"), object: "Pod ns/web", says: "48-bit"},
		{pod: on(ipam.AnnotationHWAddr, "01:00:5e:00:53:01"), object: "Pod ns/web", says: "group address"},
		{pod: map[string]string{ipam.AnnotationIPAddrs: `["10.1.2.3"]`, ipam.AnnotationIPAddrsNoIPAM: `["10.1.2.3"]`}, object: "Pod ns/web", says: "set as well"},
		{pod: map[string]string{ipam.AnnotationIPAddrs: `["10.1.2.3"]`, ipam.AnnotationIPFamilies: `["IPv6"]`}, object: "Pod ns/web", says: "not the family IPv4"},
	}
	for _, tt := range tests {
		_, err := ipam.ReadAnnotations(thePod, tt.pod, tt.ns)
		var typed *ipam.Error
		if !errors.As(err, &typed) || typed.Code != ipam.CodeBadAnnotation || typed.Hint == "" {
			t.Errorf("%v %v: got %v", tt.pod, tt.ns, err)
			continue
		}
		if !strings.HasPrefix(err.Error(), tt.object+": metadata.annotations[cni.projectcalico.org/") || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%v %v: error %q does not name %s or say %q", tt.pod, tt.ns, err, tt.object, tt.says)
		}
	}
}

func TestWishesRequest(t *testing.T) {
	attrs, labels := map[string]string{"pod": "web"}, map[string]string{"team": "x"}
	r := ipam.Wishes{PoolsV4: []string{"a"}}.Request("h", attrs, labels, []ipam.Family{ipam.IPv4})
	if r.V4 != 1 || r.V6 != 0 || r.Handle != "h" || r.PoolsV4[0] != "a" || r.Attrs["pod"] != "web" || r.NamespaceLabels["team"] != "x" {
		t.Errorf("request: %+v", r)
	}
	r = ipam.Wishes{Families: []ipam.Family{ipam.IPv6}}.Request("h", nil, nil, []ipam.Family{ipam.IPv4})
	if r.V4 != 0 || r.V6 != 1 {
		t.Errorf("request: %+v", r)
	}
}
