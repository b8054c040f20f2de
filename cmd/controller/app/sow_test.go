package app_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

// seedMap is the ConfigMap with keys and their YAML, by turns.
func seedMap(pairs ...string) string {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: muslin-seed, namespace: muslin-system}\ndata:\n")
	for i := 0; i < len(pairs); i += 2 {
		fmt.Fprintf(&b, "  %s: |\n    %s\n", pairs[i], strings.ReplaceAll(strings.TrimSpace(pairs[i+1]), "\n", "\n    "))
	}
	return b.String()
}

var seedEvents = []string{"-n", "muslin-system", "get", "events", "--field-selector", "involvedObject.name=muslin-seed", "-o", `jsonpath={range .items[*]}{.reason} {.message}{"\n"}{end}`}

// A cluster begins with the objects of the seed instead of the default pool. What is
// wrong is named and stops nothing; what exists is left as it is; what a user
// deletes stays deleted, until the seed says something else.
func TestSeed(t *testing.T) {
	t.Parallel()
	server := kubetest.StartWithCRDs(t) // without pools of other tests
	server.Install(t)
	server.MustKubectl(t, "", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	server.MustKubectl(t, v3("BGPPeer", "tor", `{peerIP: 192.0.2.1, asNumber: 65000}`), "apply", "-f", "-")
	pool := v3("IPPool", "pods", `{cidr: 10.9.0.0/16, vxlanMode: Always}`)
	all := []string{
		"bgp", v3("BGPConfiguration", "default", `{asNumber: 64999}`) + v3("BGPPeer", "tor", `{peerIP: 192.0.2.9, asNumber: 65009}`),
		"pools", pool,
		"wrong", v3("BGPPeer", "misspelt", `{peerIP: 192.0.2.2, asNumber: 65000, password: {secretKeyReff: {name: bgp, key: k}}}`) + v3("BGPPeer", "invalid", `{peerIP: nowhere, asNumber: 1}`) +
			v3("BGPPeeer", "unknown", `{}`) + v3("FelixConfiguration", "default", `{vxlanPortt: 4790}`) + v3("BGPFilter", "last", `{exportV4: [{action: Accept}]}`),
	}
	server.MustKubectl(t, seedMap(all...), "apply", "-f", "-")
	stop := replicaOf(t, server, "one")

	showsOn(t, server, "Always", "get", "ippool", "pods", "-o", "jsonpath={.spec}")
	showsOn(t, server, "64999", "get", "bgpconfiguration", "default", "-o", "jsonpath={.spec}")
	showsOn(t, server, "Accept", "get", "bgpfilter", "last", "-o", "jsonpath={.spec}")
	for _, want := range []string{
		`SeedRefused BGPPeer misspelt (wrong): unknown field spec.password.secretKeyReff`,
		`SeedRefused BGPPeer invalid (wrong, document 2): BGPPeer.projectcalico.org "invalid" is invalid: spec.peerIP`,
		`SeedRefused BGPPeeer unknown (wrong, document 3): kind: "BGPPeeer" is not seeded; want one of`,
		`SeedRefused FelixConfiguration default (wrong, document 4): unknown field spec.vxlanPortt`,
	} {
		showsOn(t, server, want, seedEvents...)
	}
	showsOn(t, server, "192.0.2.1", "get", "bgppeer", "tor", "-o", "jsonpath={.spec.peerIP}")

	// deleted, it stays so: for this controller, for the next, and when the seed is applied again
	server.MustKubectl(t, "", "delete", "ippool/pods", "bgppeer/tor", "--timeout=30s")
	stop()
	server.MustKubectl(t, seedMap(append(all, "more", v3("BGPPeer", "second", `{peerIP: 192.0.2.3, asNumber: 65000}`))...), "apply", "-f", "-")
	replicaOf(t, server, "two")
	showsOn(t, server, "192.0.2.3", "get", "bgppeer", "second", "-o", "jsonpath={.spec.peerIP}")
	showsOn(t, server, "two", "-n", "muslin-system", "get", "lease", "muslin-controller", "-o", "jsonpath={.spec.holderIdentity}")
	if out := server.MustKubectl(t, "", "get", "ippools,bgppeers", "-o", "name"); out != "bgppeer.projectcalico.org/second\n" {
		t.Errorf("there are %s", out)
	}

	// mended and changed, it is made
	all[3] = strings.Replace(pool, "10.9.", "10.10.", 1)
	all[5] = v3("BGPPeer", "misspelt", `{peerIP: 192.0.2.2, asNumber: 65000}`)
	server.MustKubectl(t, seedMap(all...), "apply", "-f", "-")
	showsOn(t, server, "10.10.0.0/16", "get", "ippool", "pods", "-o", "jsonpath={.spec}")
	showsOn(t, server, "65000", "get", "bgppeer", "misspelt", "-o", "jsonpath={.spec}")
	if out := server.MustKubectl(t, "", append(seedEvents[:len(seedEvents)-2:len(seedEvents)-2], "-o", "name")...); strings.Count(out, "\n") > 8 {
		t.Errorf("events are repeated:\n%s", out) // 4, and once more by the second replica
	}
}

// What may be a pool and cannot be read keeps the default pool away, whose CIDR
// could not be taken back; without it there is one.
func TestSeedUnreadable(t *testing.T) {
	t.Parallel()
	server := kubetest.StartWithCRDs(t)
	server.Install(t)
	server.MustKubectl(t, "", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	server.MustKubectl(t, seedMap("pools", "kind: [IPPool"), "apply", "-f", "-")
	replicaOf(t, server, "one")
	showsOn(t, server, "SeedRefused pools: not YAML", seedEvents...)
	showsOn(t, server, "64512", "get", "bgpconfiguration", "default", "-o", "jsonpath={.spec}")
	if out := server.MustKubectl(t, "", "get", "ippools", "-o", "name"); out != "" {
		t.Errorf("there is %s", out)
	}
	server.MustKubectl(t, "", "-n", "muslin-system", "delete", "configmap", "muslin-seed")
	showsOn(t, server, "10.244.0.0/16", "get", "ippool", "default-ipv4-ippool", "-o", "jsonpath={.spec}")
}
