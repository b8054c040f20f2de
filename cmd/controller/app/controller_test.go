package app_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/cmd/controller/app"
	"github.com/muslin-net/muslin/ipam/kubestore"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/kube/kubetest"

	"github.com/prometheus/client_golang/prometheus"
)

var server *kubetest.Server

func TestMain(m *testing.M) {
	os.Exit(kubetest.Main(m, func(s *kubetest.Server) { server = s }))
}

func logger() *slog.Logger {
	if testing.Verbose() {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.NewTextHandler(io.Discard, nil))
}

// replica runs a controller with the rights of its service account until stop
// is called or the test ends.
func replica(t *testing.T, name string) (stop func()) {
	t.Helper()
	stop, _ = measured(t, server, name)
	return stop
}

func replicaOf(t *testing.T, server *kubetest.Server, name string) (stop func()) {
	t.Helper()
	stop, _ = measured(t, server, name)
	return stop
}

// measured is replicaOf, with the metrics.
func measured(t *testing.T, server *kubetest.Server, name string) (stop func(), registry *prometheus.Registry) {
	t.Helper()
	cfg := server.ConfigAs("system:serviceaccount:muslin-system:muslin-controller")
	cluster, err := kube.New(cfg, kube.Options{Component: "muslin-controller", Blocks: kube.AllBlocks, Policy: true, Balanced: true, Logger: logger()})
	if err != nil {
		t.Fatal(err)
	}
	store, err := kubestore.New(cfg, kubestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	objects, err := app.NewObjects(cfg, logger())
	if err != nil {
		t.Fatal(err)
	}
	c := &app.Controller{Cluster: cluster, Store: store, Objects: objects, Logger: logger(), Defaults: app.Defaults{IPv4Pool: netip.MustParsePrefix("10.244.0.0/16")}, Settle: 2 * time.Second}
	registry = prometheus.NewRegistry()
	if err := c.Register(registry); err != nil {
		t.Fatal(err)
	}
	election := app.Election{Config: cfg, Namespace: kube.SystemNamespace, Identity: name, Logger: logger()}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- cluster.Run(ctx) }()
	go func() { done <- election.Elect(ctx, c.Run) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	t.Cleanup(stop)
	return stop, registry
}

// leads is the value of muslin_leader.
func leads(t *testing.T, registry *prometheus.Registry) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "muslin_leader" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatal("no muslin_leader")
	return 0
}

func v3(kind, name, spec string) string {
	return fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: %s\nmetadata: {name: %s}\nspec: %s\n---\n", kind, name, spec)
}

// shows waits until kubectl prints something that has want.
func shows(t *testing.T, want string, args ...string) {
	t.Helper()
	showsOn(t, server, want, args...)
}

func showsOn(t *testing.T, server *kubetest.Server, want string, args ...string) {
	t.Helper()
	var out string
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if out, _ = server.Kubectl("", args...); strings.Contains(out, want) {
			return
		}
	}
	t.Fatalf("kubectl %s: no %q in\n%s", strings.Join(args, " "), want, out)
}

func conditionsOf(kind, name string) []string {
	return []string{"get", kind, name, "-o", `jsonpath={range .status.conditions[*]}{.type}={.status} {.reason} {.message}{"\n"}{end}`}
}

func eventsOf(kind string) []string {
	return []string{"get", "events", "--field-selector", "involvedObject.kind=" + kind, "-o", `jsonpath={range .items[*]}{.reason} {.message}{"\n"}{end}`}
}

func TestController(t *testing.T) {
	server.Install(t)
	stop, one := measured(t, server, "one")

	// the defaults
	shows(t, "10.244.0.0/16", "get", "ippool", "default-ipv4-ippool", "-o", "jsonpath={.spec}")
	shows(t, `"datastoreReady":true`, "get", "clusterinformation", "default", "-o", "jsonpath={.spec}")
	shows(t, `"asNumber":64512`, "get", "bgpconfiguration", "default", "-o", "jsonpath={.spec}")
	shows(t, "15m", "get", "kubecontrollersconfiguration", "default", "-o", "jsonpath={.spec}")
	shows(t, `"autoAllocateBlocks":true`, "get", "ipamconfiguration", "default", "-o", "jsonpath={.spec}")
	shows(t, "Allocatable=True OK", conditionsOf("ippool", "default-ipv4-ippool")...)

	// what is wrong is said at the object, and comes and goes
	server.MustKubectl(t, v3("IPPool", "second", `{cidr: 10.244.128.0/24}`)+
		v3("BGPPeer", "tor", `{peerIP: 192.0.2.1, asNumber: 65000, filters: [absent], password: {secretKeyRef: {name: bgp, key: k}}}`)+
		v3("BGPPeer", "typo", `{peerIP: 192.0.2.2, asNumber: 65000, nodeSelector: "rack = 'a'"}`)+
		v3("BGPPeer", "good", `{peerIP: 192.0.2.3, asNumber: 65000}`)+
		v3("BGPConfiguration", "node.n9", `{listenPort: 1179}`), "apply", "-f", "-")
	shows(t, "Allocatable=False CIDROverlap spec.cidr: 10.244.128.0/24 overlaps 10.244.0.0/16 of the older IPPool default-ipv4-ippool", conditionsOf("ippool", "second")...)
	shows(t, "Accepted=False UnknownName spec.filters[0]: there is no BGPFilter absent", conditionsOf("bgppeer", "tor")...)
	shows(t, `key "k" of Secret bgp cannot be read`, conditionsOf("bgppeer", "tor")...)
	shows(t, "Accepted=False InvalidValue spec.nodeSelector:", conditionsOf("bgppeer", "typo")...)
	shows(t, "Accepted=True Accepted in force", conditionsOf("bgppeer", "good")...)
	shows(t, "Accepted=False UnknownName metadata.name: there is no node n9", conditionsOf("bgpconfiguration", "node.n9")...)
	shows(t, "CIDROverlap", "get", "ippools") // the printer column

	server.MustKubectl(t, v3("BGPFilter", "absent", `{exportV4: [{action: Accept}]}`)+
		"apiVersion: v1\nkind: Secret\nmetadata: {name: bgp, namespace: muslin-system}\nstringData: {k: text}\n", "apply", "-f", "-")
	shows(t, "Accepted=True", conditionsOf("bgppeer", "tor")...)
	server.MustKubectl(t, "", "delete", "ippool", "default-ipv4-ippool")
	shows(t, "Allocatable=True OK", conditionsOf("ippool", "second")...)
	server.MustKubectl(t, "", "patch", "ippool", "second", "--type=merge", "-p", `{"spec":{"disabled":true}}`)
	shows(t, "Allocatable=False PoolDisabled", conditionsOf("ippool", "second")...)

	// what is for nodes that are not there is said, until one comes
	placed := map[string][]string{
		"spec.nodeSelector: no node has such labels: nobody has the session":       conditionsOf("bgppeer", "rack"),
		"spec.peerSelector: no node has such labels: there is nobody to peer with": conditionsOf("bgppeer", "reflectors"),
		"spec.node: there is no node r9":                                           conditionsOf("hostendpoint", "r9"),
		"metadata.name: there is no node r9":                                       conditionsOf("felixconfiguration", "node.r9"),
		"spec.nodeSelector: no node has such labels: nobody gets an address of it": conditionsOf("ippool", "rack"),
	}
	server.MustKubectl(t, v3("BGPPeer", "rack", `{peerIP: 192.0.2.4, asNumber: 65000, nodeSelector: "rack == 'r9'"}`)+
		v3("BGPPeer", "reflectors", `{peerSelector: "rack == 'r9'"}`)+v3("FelixConfiguration", "node.r9", `{vxlanMTU: 1400}`)+
		v3("HostEndpoint", "r9", `{node: r9, interfaceName: eth1}`)+v3("IPPool", "rack", `{cidr: 10.9.0.0/24, nodeSelector: "rack == 'r9'"}`), "apply", "-f", "-")
	for want, args := range placed {
		shows(t, want, args...)
	}
	server.MustKubectl(t, "apiVersion: v1\nkind: Node\nmetadata: {name: r9, labels: {rack: r9}}\n", "apply", "-f", "-")
	for want, args := range placed {
		shows(t, "=True", args...)
		if out := server.MustKubectl(t, "", args...); strings.Contains(out, want) {
			t.Errorf("with the node there: %s", out)
		}
	}
	server.MustKubectl(t, "", "delete", "node/r9", "bgppeer/rack", "bgppeer/reflectors", "felixconfiguration/node.r9", "hostendpoint/r9", "ippool/rack")

	// what has no effect is said, where the kind has no conditions by an event; so
	// is a field that the API does not have yet
	server.MustKubectl(t, v3("FelixConfiguration", "default", `{bpfEnabled: true, fieldOfTomorrow: {a: 1}}`), "apply", "-f", "-")
	shows(t, "Accepted=False Unsupported spec.bpfEnabled: true has no effect in Muslin: there is no eBPF data plane; spec.fieldOfTomorrow: is no field", conditionsOf("felixconfiguration", "default")...)
	server.MustKubectl(t, "", "patch", "kubecontrollersconfiguration", "default", "--type=merge", "-p", `{"spec":{"prometheusMetricsPort":9094,"fieldOfTomorrow":1}}`)
	server.MustKubectl(t, "", "patch", "ipamconfiguration", "default", "--type=merge", "-p", `{"spec":{"kubeVirtVMAddressPersistence":"Enabled"}}`)
	shows(t, "spec.fieldOfTomorrow: is no field that Muslin knows: it has no effect; spec.prometheusMetricsPort: 9094 has no effect", eventsOf("KubeControllersConfiguration")...)
	shows(t, "spec.kubeVirtVMAddressPersistence: Enabled has no effect", eventsOf("IPAMConfiguration")...)

	// a second replica waits and takes over; it makes no default pool where one is
	stop2, two := measured(t, server, "two")
	shows(t, "one", "-n", "muslin-system", "get", "lease", app.LeaseName, "-o", "jsonpath={.spec.holderIdentity}")
	if a, b := leads(t, one), leads(t, two); a != 1 || b != 0 {
		t.Errorf("muslin_leader: %v of the holder of the lease, %v of the other", a, b)
	}
	stop()
	shows(t, "two", "-n", "muslin-system", "get", "lease", app.LeaseName, "-o", "jsonpath={.spec.holderIdentity}")
	server.MustKubectl(t, "", "patch", "ippool", "second", "--type=merge", "-p", `{"spec":{"disabled":false}}`)
	shows(t, "Allocatable=True OK", conditionsOf("ippool", "second")...)
	if a, b := leads(t, one), leads(t, two); a != 0 || b != 1 {
		t.Errorf("muslin_leader after the change: %v, %v", a, b)
	}
	if out, err := server.Kubectl("", "get", "ippool", "default-ipv4-ippool"); err == nil {
		t.Errorf("the default pool was made although another exists: %s", out)
	}
	stop2()
	if holder := server.MustKubectl(t, "", "-n", "muslin-system", "get", "lease", app.LeaseName, "-o", "jsonpath={.spec.holderIdentity}"); holder != "" {
		t.Errorf("the lease was not given back: %q holds it", holder)
	}
}

// Conditions are written once: a controller at rest writes nothing.
func TestNoNeedlessWrites(t *testing.T) {
	server.Install(t)
	server.MustKubectl(t, v3("BGPFilter", "calm", `{exportV4: [{action: Accept}]}`), "apply", "-f", "-")
	stop := replica(t, "one")
	shows(t, "Accepted=True", conditionsOf("bgpfilter", "calm")...)
	version := server.MustKubectl(t, "", "get", "bgpfilter", "calm", "-o", "jsonpath={.metadata.resourceVersion}")
	// something else changes and is written to; the filter is looked at again
	server.MustKubectl(t, v3("BGPFilter", "other", `{exportV4: [{action: Accept}]}`), "apply", "-f", "-")
	shows(t, "Accepted=True", conditionsOf("bgpfilter", "other")...)
	stop()
	if got := server.MustKubectl(t, "", "get", "bgpfilter", "calm", "-o", "jsonpath={.metadata.resourceVersion}"); got != version {
		t.Errorf("written again: %s, was %s", got, version)
	}
}
