package netpol_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/pkg/kube/netpol"
)

// TestHostEndpoint: what is read of a spec, and what is said of the rest.
func TestHostEndpoint(t *testing.T) {
	for _, c := range []struct{ spec, want, reported string }{
		{`{"node": "n1", "interfaceName": "*", "profiles": ["projectcalico-default-allow"]}`, "n1 * [] [projectcalico-default-allow] []", ""},
		{`{"node": "n1", "expectedIPs": ["192.0.2.1", "::ffff:192.0.2.2", "fd00::1"]}`, "n1  [192.0.2.1 192.0.2.2 fd00::1] [] []", ""},
		{`{"node": "n1", "interfaceName": "eth0", "ports": [{"name": "web", "protocol": "tcp", "port": 80}, {"name": "ospf", "protocol": 89, "port": 1}]}`,
			"n1 eth0 [] [] [{web 6 80} {ospf 89 1}]", "spec.ports"},
		{`{"node": "n1", "interfaceName": "eth0", "expectedIPs": ["192.0.2.300", "fe80::1%eth0"]}`, "n1 eth0 [] [] []", "spec.expectedIPs[0] spec.expectedIPs[1]"},
		{`{"node": "n1", "interfaceName": "eth0", "ports": [{"name": "a", "protocol": "carp", "port": 1}, {"name": "b", "protocol": "UDP", "port": 0}]}`,
			"n1 eth0 [] [] []", "spec.ports[0].protocol spec.ports[1] spec.ports"},
		{`{"node": "n1", "interfaceName": "eth0", "profiles": ["kns.a", "mine"]}`, "n1 eth0 [] [kns.a mine] []", "spec.profiles[1]"},
		{`{"interfaceName": "eth0"}`, "", "spec.node"},
		{`{"node": "n1", "expectedIPs": ["x"]}`, "", "spec.expectedIPs[0] spec.interfaceName"},
		{`{"node": 7}`, "", "spec"},
		{``, "", "spec.node spec.interfaceName"},
	} {
		e, problems, ok := netpol.HostEndpoint("h", nil, []byte(c.spec))
		got := ""
		if ok {
			got = fmt.Sprint(e.Node, " ", e.Interface, " ", e.Addresses, " ", e.Profiles, " ", e.Ports)
		}
		var reported []string
		for _, p := range problems {
			reported = append(reported, p.Field)
		}
		if got != c.want || strings.Join(reported, " ") != c.reported {
			t.Errorf("%s:\ngot  %q, told of %v\nwant %q, told of %s", c.spec, got, reported, c.want, c.reported)
		}
	}
}
