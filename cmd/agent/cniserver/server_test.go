package cniserver_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/muslin-net/muslin/cmd/agent/cniserver"
	"github.com/muslin-net/muslin/pkg/cnirpc"
	"github.com/muslin-net/muslin/pkg/cnirpc/client"
	"github.com/muslin-net/muslin/pkg/cnirpc/spool"
	"github.com/muslin-net/muslin/pkg/cnirpc/spoolentry"
	"github.com/muslin-net/muslin/pkg/model"
)

// node is a running server over fake rooms, on a real socket.
type node struct {
	*rooms
	socket, spool string
	stop          func()
}

func start(t testing.TB, r *rooms, change ...func(*cniserver.Options)) *node {
	t.Helper()
	dir := t.TempDir()
	return startIn(t, dir, r, change...)
}

func startIn(t testing.TB, dir string, r *rooms, change ...func(*cniserver.Options)) *node {
	t.Helper()
	n := &node{rooms: r, socket: filepath.Join(dir, "agent.sock"), spool: filepath.Join(dir, "spool")}
	o := cniserver.Options{
		Addresses: r, PodInterfaces: interfaceRoom{r}, Endpoints: r, Pods: r, FormerOwners: r, Node: "node1",
		Socket: n.socket, Spool: n.spool, DrainInterval: 20 * time.Millisecond,
		Now: func() time.Time { return time.Date(2026, 8, 22, 10, 0, 1, 100_000_000, time.UTC) },
	}
	for _, c := range change {
		c(&o)
	}
	s := cniserver.New(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-done:
		t.Fatalf("run: %v", err)
	}
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

const netconf = `{"cniVersion":"1.0.0","name":"k8s-pod-network","type":"muslin","ipam":{"type":"muslin-ipam"}}`

func request(container, pod string) client.Request {
	r := client.Request{ContainerID: container, Netns: "/run/netns/" + container, IfName: "eth0", Config: []byte(netconf)}
	if pod != "" {
		r.Args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=" + pod + ";K8S_POD_INFRA_CONTAINER_ID=" + container
	}
	return r
}

func (n *node) call(t *testing.T, v client.Verb, r client.Request) (string, error) {
	t.Helper()
	out, err := client.Call(n.socket, 0, v, r)
	return string(out), err
}

func (n *node) must(t *testing.T, v client.Verb, r client.Request) string {
	t.Helper()
	out, err := n.call(t, v, r)
	if err != nil {
		t.Fatalf("%s %s: %v", v, r.ContainerID, err)
	}
	return out
}

// del does a DEL and waits until it is done.
func (n *node) del(t *testing.T, r client.Request) {
	t.Helper()
	n.must(t, client.Del, r)
	n.awaitDeletes(t)
}

// awaitDeletes waits until no DEL is recorded.
func (n *node) awaitDeletes(t *testing.T) {
	t.Helper()
	waitFor(t, "the recorded deletes", func() bool {
		records, err := spool.List(n.spool, nil)
		return err == nil && len(records) == 0
	})
}

func wantCode(t *testing.T, err error, code uint, texts ...string) {
	t.Helper()
	var e *client.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v, want a CNI error with code %d", err, code)
	}
	if e.Code != code {
		t.Errorf("code %d, want %d: %v", e.Code, code, err)
	}
	for _, text := range texts {
		if !strings.Contains(e.Error(), text) {
			t.Errorf("error %q does not say %q", e, text)
		}
	}
}

func TestAddAnswersWithTheAttachment(t *testing.T) {
	n := start(t, newRooms())
	out := n.must(t, client.Add, request("c1", "a"))
	want := `{"cniVersion":"1.0.0",
	 "interfaces":[{"name":"cali5332acb867c","mac":"ee:ee:ee:ee:ee:ee"},
	  {"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"/run/netns/c1"}],
	 "ips":[{"interface":1,"address":"10.244.0.1/32","gateway":"169.254.1.1"}],
	 "routes":[{"dst":"0.0.0.0/0","gw":"169.254.1.1"}]}`
	sameJSON(t, want, out)
	n.wantLeft(t, standing("c1")...)
	wantAttrs := map[string]string{"namespace": "ns", "node": "node1", "pod": "a", "timestamp": "2026-08-22 10:00:01.1 +0000 UTC"}
	if d := cmp.Diff(wantAttrs, n.attrs["k8s-pod-network.c1"]); d != "" {
		t.Errorf("attributes (-want +got):\n%s", d)
	}
}

func sameJSON(t *testing.T, want, got string) {
	t.Helper()
	var w, g any
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Fatalf("%v in %q", err, got)
	}
	if d := cmp.Diff(w, g); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestAddTwiceIsTheSameAnswer(t *testing.T) {
	n := start(t, newRooms())
	first := n.must(t, client.Add, request("c1", "a"))
	if second := n.must(t, client.Add, request("c1", "a")); second != first {
		t.Errorf("second answer %s, first %s", second, first)
	}
	n.wantLeft(t, standing("c1")...)
}

func TestDelTakesEverythingAndMayBeRepeated(t *testing.T) {
	n := start(t, newRooms())
	n.must(t, client.Add, request("c1", "a"))
	n.must(t, client.Add, request("c2", "b"))
	for range 2 {
		gone := request("c1", "a")
		gone.Netns = "" // the runtime may have removed it
		n.del(t, gone)
		n.wantLeft(t, standing("c2")...)
	}
}

func TestNotAKubernetesPod(t *testing.T) {
	n := start(t, newRooms())
	n.must(t, client.Add, request("c1", ""))
	n.must(t, client.Add, request("c2", ""))
	if calls := n.takeCalls(); slices.Contains(calls, "Pod") {
		t.Errorf("asked for a pod: %v", calls)
	}
	n.del(t, request("c1", ""))
	n.wantLeft(t, standing("c2")...)
}

// addSteps are the seams of ADD that can fail.
var addSteps = []string{"Pod", "Assign", "Attach", "Disconnect", "Settled", "HandOver"}

func TestAddFailingAtEachSeamLeavesNothing(t *testing.T) {
	for _, step := range addSteps {
		for _, when := range []string{"before ", "after "} {
			t.Run(when+step, func(t *testing.T) {
				n := start(t, newRooms())
				n.setHook(func(_ context.Context, point string) error {
					if point == when+step {
						return fmt.Errorf("injected %s", point)
					}
					return nil
				})
				_, err := n.call(t, client.Add, request("c1", "a"))
				if err == nil || !strings.Contains(err.Error(), "injected") || !strings.Contains(err.Error(), "ns/a") {
					t.Errorf("error %v", err)
				}
				n.wantLeft(t)
				n.setHook(nil)
				n.must(t, client.Add, request("c1", "a"))
				n.wantLeft(t, standing("c1")...)
			})
		}
	}
}

// With the undo failing as well, something may be left, but no address that a
// iface still has (the rooms see to that), and DEL finishes.
func TestUndoFailingIsFinishedByDel(t *testing.T) {
	for _, step := range addSteps[1:] {
		for _, back := range []string{"before Release", "after Release", "before Detach", "after Detach"} {
			t.Run(step+", "+back, func(t *testing.T) {
				n := start(t, newRooms())
				n.setHook(func(_ context.Context, point string) error {
					if point == "after "+step || point == back {
						return fmt.Errorf("injected %s", point)
					}
					return nil
				})
				_, err := n.call(t, client.Add, request("c1", "a"))
				if err == nil || !strings.Contains(err.Error(), "injected after "+step) || !strings.Contains(err.Error(), "injected "+back) {
					t.Errorf("error %v, want both failures in it", err)
				}
				n.must(t, client.Del, request("c1", "a"))
				n.setHook(nil)
				n.awaitDeletes(t)
				n.wantLeft(t)
			})
		}
	}
}

func TestRepeatedAddThatFailsTakesNothingDown(t *testing.T) {
	n := start(t, newRooms())
	n.must(t, client.Add, request("c1", "a"))
	n.setHook(func(_ context.Context, point string) error {
		if point == "before Settled" {
			return errors.New("injected")
		}
		return nil
	})
	_, err := n.call(t, client.Add, request("c1", "a"))
	wantCode(t, err, types.ErrTryAgainLater)
	n.wantLeft(t, standing("c1")...)
}

func TestCallerGoneMidwayIsUndone(t *testing.T) {
	for _, step := range addSteps {
		t.Run(step, func(t *testing.T) {
			n := start(t, newRooms())
			reached := make(chan struct{})
			n.setHook(func(ctx context.Context, point string) error {
				if point != "after "+step {
					return nil
				}
				close(reached)
				<-ctx.Done() // as kill -9 of the plugin does it
				return ctx.Err()
			})
			conn, err := grpc.NewClient("unix://"+n.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			go func() { <-reached; _ = conn.Close() }()
			r := request("c1", "a")
			_, err = cnirpc.NewCNIClient(conn).Add(t.Context(), &cnirpc.Request{ContainerId: r.ContainerID, Netns: r.Netns, Ifname: r.IfName, Args: r.Args, Config: r.Config})
			if err == nil {
				t.Error("no error")
			}
			n.setHook(nil)
			// A second ADD waits for the undo of the first.
			n.must(t, client.Add, request("c1", "a"))
			n.del(t, request("c1", "a"))
			n.wantLeft(t)
		})
	}
}

func TestDeadlineIsTryAgainLater(t *testing.T) {
	n := start(t, newRooms())
	n.setHook(func(ctx context.Context, point string) error {
		if point == "before Assign" {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	})
	r := request("c1", "a")
	conn, err := grpc.NewClient("unix://"+n.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = cnirpc.NewCNIClient(conn).Add(ctx, &cnirpc.Request{
		ContainerId: r.ContainerID, Netns: r.Netns, Ifname: r.IfName, Args: r.Args, Config: r.Config,
	})
	if e := cnirpc.FromStatus(err); e == nil || e.Code != types.ErrTryAgainLater {
		t.Errorf("error %v, want code %d", e, types.ErrTryAgainLater)
	}
	n.setHook(nil)
	n.del(t, r)
	n.wantLeft(t)
}

func TestOneSandboxIsSerialisedAndOthersAreNot(t *testing.T) {
	n := start(t, newRooms())
	inside, goOn := make(chan struct{}), make(chan struct{})
	n.setHook(func(_ context.Context, point string) error {
		if point == "before Attach" {
			inside <- struct{}{}
			<-goOn
		}
		return nil
	})
	results := make(chan error, 3)
	do := func(v client.Verb, r client.Request) {
		go func() { _, err := client.Call(n.socket, 0, v, r); results <- err }()
	}
	do(client.Add, request("c1", "a"))
	<-inside
	do(client.Add, request("c2", "b")) // another sandbox gets as far
	<-inside
	n.must(t, client.Del, request("c1", "a")) // answered at once, done after the ADD
	do(client.Check, request("c1", "a"))      // waits
	select {
	case err := <-results:
		t.Errorf("a call ended while ADD was held: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if calls := n.takeCalls(); slices.Contains(calls, "Detach") {
		t.Errorf("the delete did not wait: %v", calls)
	}
	close(goOn)
	failed := 0
	for range 3 {
		if err := <-results; err != nil {
			failed++ // CHECK has no prevResult
		}
	}
	if failed != 1 {
		t.Errorf("%d calls failed, want CHECK alone", failed)
	}
	n.awaitDeletes(t)
	n.wantLeft(t, standing("c2")...)
}

func TestAddAfterAnUnfinishedDelComesAfterIt(t *testing.T) {
	n := start(t, newRooms(), func(o *cniserver.Options) { o.DrainInterval = 50 * time.Millisecond })
	n.must(t, client.Add, request("c1", "a"))
	var failing atomic.Bool
	failing.Store(true)
	n.setHook(func(_ context.Context, point string) error {
		if point == "before Detach" && failing.Load() {
			return errors.New("injected")
		}
		return nil
	})
	n.must(t, client.Del, request("c1", "a"))
	_, err := n.call(t, client.Add, request("c1", "a"))
	wantCode(t, err, cnirpc.CodeInternal, "finish the delete", "injected")
	failing.Store(false)
	n.must(t, client.Add, request("c1", "a"))
	if records, err := spool.List(n.spool, nil); err != nil || len(records) != 0 {
		t.Errorf("records %v, error %v", records, err)
	}
	n.takeCalls()
	time.Sleep(200 * time.Millisecond) // several looks at the spool
	if calls := n.takeCalls(); len(calls) > 0 {
		t.Errorf("the delete from before came again: %v", calls)
	}
	n.wantLeft(t, standing("c1")...)
}

func TestAddInANetnsComesAfterItsDeletes(t *testing.T) {
	n := start(t, newRooms())
	first, second := request("c1", ""), request("c2", "")
	second.Netns = first.Netns
	held := make(chan struct{})
	n.setHook(func(_ context.Context, point string) error {
		if point == "before Detach" {
			<-held
		}
		return nil
	})
	n.must(t, client.Add, first)
	n.must(t, client.Del, first)
	n.takeCalls()
	added := make(chan error, 1)
	go func() { _, err := client.Call(n.socket, 0, client.Add, second); added <- err }()
	select {
	case err := <-added:
		t.Fatalf("ADD did not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	close(held)
	if err := <-added; err != nil {
		t.Error(err)
	}
	n.awaitDeletes(t)
	n.wantLeft(t, standing("c2")...)
}

// A plugin's record counts from the moment that it is there.
func TestAddComesAfterRecordsOfNoTime(t *testing.T) {
	n := start(t, newRooms())
	for i := range 50 {
		first, second := request(fmt.Sprintf("a%d", i), ""), request(fmt.Sprintf("b%d", i), "")
		second.Netns = first.Netns
		n.must(t, client.Add, first)
		n.takeCalls()
		if err := spoolentry.Write(n.spool, first, nil); err != nil {
			t.Fatal(err)
		}
		n.must(t, client.Add, second)
		calls := n.takeCalls()
		gone, made := slices.Index(calls, "Detach"), slices.Index(calls, "Attach")
		if gone < 0 || made < gone {
			t.Fatalf("round %d: %v", i, calls)
		}
		n.del(t, second)
	}
	n.wantLeft(t)
}

func TestDelWithoutASpoolIsDoneAtOnce(t *testing.T) {
	n := start(t, newRooms(), func(o *cniserver.Options) { o.Spool = "/dev/null/not/a/directory" })
	n.must(t, client.Add, request("c1", "a"))
	n.must(t, client.Del, request("c1", "a"))
	n.wantLeft(t)
}

func TestNewSandboxOfAPodReplacesTheOld(t *testing.T) {
	n := start(t, newRooms())
	n.must(t, client.Add, request("old", "a"))
	n.must(t, client.Add, request("new", "a"))
	n.wantLeft(t, standing("new")...)
	n.del(t, request("old", "a")) // comes late
	n.wantLeft(t, standing("new")...)
}

func TestBothFamiliesAndCalicosConflist(t *testing.T) {
	cases := map[string]struct{ ipam, want string }{
		"calico default": {`{"type":"calico-ipam"}`, "10.244.0.1"},
		"calico both":    {`{"type":"calico-ipam","assign_ipv4":"true","assign_ipv6":"true","ipv4_pools":["p"]}`, "10.244.0.1 fd00::1"},
		"six alone":      {`{"type":"muslin-ipam","assign_ipv4":false,"assign_ipv6":true}`, "fd00::1"},
		"no ipam":        {`{}`, "10.244.0.1"},
		"node's prefix":  {`{"type":"host-local","subnet":"usePodCidr"}`, "10.244.0.1"},
		"both prefixes":  {`{"type":"host-local","ranges":[[{"subnet":"usePodCidr"}],[{"subnet":"usepodcidripv6"}]]}`, "10.244.0.1 fd00::1"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			n := start(t, newRooms())
			r := request("c1", "a")
			r.Config = []byte(`{"cniVersion":"0.3.1","name":"k8s-pod-network","type":"calico","log_level":"info",
			 "datastore_type":"kubernetes","nodename":"node1","mtu":1440,"policy":{"type":"k8s"},
			 "kubernetes":{"kubeconfig":"/etc/cni/net.d/calico-kubeconfig"},"ipam":` + c.ipam + `}`)
			var got struct {
				Version string `json:"cniVersion"`
				IPs     []struct{ Version, Address string }
			}
			if err := json.Unmarshal([]byte(n.must(t, client.Add, r)), &got); err != nil {
				t.Fatal(err)
			}
			var addrs []string
			for _, ip := range got.IPs {
				addr, _, _ := strings.Cut(ip.Address, "/")
				addrs = append(addrs, addr)
			}
			if got.Version != "0.3.1" || strings.Join(addrs, " ") != c.want {
				t.Errorf("answer %+v, want %s", got, c.want)
			}
			if fromPrefixes := strings.Contains(c.ipam, "host-local"); n.requested.PodCIDRs != fromPrefixes {
				t.Errorf("asked for addresses of the node's prefixes: %v", !fromPrefixes)
			}
			if w := n.interfaces[[2]string{"c1", "eth0"}]; w.MTU != 1440 {
				t.Errorf("wire with mtu %d", w.MTU)
			}
		})
	}
}

func TestBadInputNamesWhatIsWrong(t *testing.T) {
	withConf := func(c string) func(*rooms, *client.Request) {
		return func(_ *rooms, r *client.Request) { r.Config = []byte(c) }
	}
	annotated := func(k, v string) func(*rooms, *client.Request) {
		return func(n *rooms, _ *client.Request) {
			n.pods["ns/a"] = cniserver.PodInfo{Annotations: map[string]string{"cni.projectcalico.org/" + k: v}}
		}
	}
	onNamespace := func(k, v string) func(*rooms, *client.Request) {
		return func(n *rooms, _ *client.Request) {
			n.pods["ns/a"] = cniserver.PodInfo{NamespaceAnnotations: map[string]string{"cni.projectcalico.org/" + k: v}}
		}
	}
	cases := map[string]struct {
		change func(*rooms, *client.Request)
		code   uint
		want   string
	}{
		"garbage":          {withConf("\x00{"), types.ErrDecodingFailure, "network configuration"},
		"wrong type":       {withConf(`{"name":3}`), types.ErrDecodingFailure, "name"},
		"no name":          {withConf(`{"cniVersion":"1.0.0"}`), types.ErrInvalidNetworkConfig, "name"},
		"foreign ipam":     {withConf(`{"name":"n","ipam":{"type":"dhcp"}}`), types.ErrInvalidNetworkConfig, `"dhcp"`},
		"own subnet":       {withConf(`{"name":"n","ipam":{"type":"host-local","ranges":[[{"subnet":"usePodCidr"},{"subnet":"10.0.0.0/24"}]]}}`), types.ErrInvalidNetworkConfig, "ipam.ranges[0][1].subnet"},
		"no subnet":        {withConf(`{"name":"n","ipam":{"type":"host-local"}}`), types.ErrInvalidNetworkConfig, "ipam.subnet"},
		"no family":        {withConf(`{"name":"n","ipam":{"type":"calico-ipam","assign_ipv4":"false"}}`), types.ErrInvalidNetworkConfig, "assign_ipv4"},
		"not a bool":       {withConf(`{"name":"n","ipam":{"assign_ipv4":"maybe"}}`), types.ErrDecodingFailure, "maybe"},
		"mtu":              {withConf(`{"name":"n","mtu":10}`), types.ErrInvalidNetworkConfig, "mtu"},
		"previous result":  {withConf(`{"cniVersion":"1.0.0","name":"n","prevResult":{"ips":3}}`), types.ErrInvalidNetworkConfig, "prevResult"},
		"unknown version":  {withConf(`{"cniVersion":"9.0.0","name":"n"}`), types.ErrIncompatibleCNIVersion, "9.0.0"},
		"no netns":         {func(_ *rooms, r *client.Request) { r.Netns = "" }, types.ErrInvalidEnvironmentVariables, "CNI_NETNS"},
		"no container":     {func(_ *rooms, r *client.Request) { r.ContainerID = "" }, types.ErrInvalidEnvironmentVariables, "CNI_CONTAINERID"},
		"args":             {func(_ *rooms, r *client.Request) { r.Args = "K8S_POD_NAME" }, types.ErrInvalidEnvironmentVariables, "K8S_POD_NAME"},
		"half a pod":       {func(_ *rooms, r *client.Request) { r.Args = "K8S_POD_NAME=a" }, types.ErrInvalidEnvironmentVariables, "K8S_POD_NAMESPACE"},
		"IP in args":       {func(_ *rooms, r *client.Request) { r.Args = "IP=1.2.3" }, types.ErrInvalidEnvironmentVariables, "1.2.3"},
		"unknown pod":      {func(n *rooms, _ *client.Request) { delete(n.pods, "ns/a") }, cnirpc.CodePodUnknown, "no such pod"},
		"pools":            {annotated("ipv4pools", "pool"), types.ErrInvalidNetworkConfig, `Pod ns/a: metadata.annotations[cni.projectcalico.org/ipv4pools]: "pool" is not a JSON list of strings; write it as in ["pool-a", "10.1.0.0/16"]`},
		"of the namespace": {onNamespace("ipFamilies", "IPv4"), types.ErrInvalidNetworkConfig, `Namespace ns: metadata.annotations[cni.projectcalico.org/ipFamilies]: "IPv4" is not a JSON list of strings; write it as in ["IPv4", "IPv6"]`},
		"families":         {annotated("ipFamilies", `["IPv5"]`), types.ErrInvalidNetworkConfig, "IPv5"},
		"addresses":        {annotated("ipAddrs", `["10.0.0.1","10.0.0.2"]`), types.ErrInvalidNetworkConfig, "more than one"},
		"source prefixes":  {annotated("allowedSourcePrefixes", `["10.0.0.1"]`), types.ErrInvalidNetworkConfig, "10.0.0.1"},
		"group address":    {annotated("hwAddr", "03:00:00:00:00:01"), types.ErrInvalidNetworkConfig, "group"},
		"hardware address": {annotated("hwAddr", "02:00"), types.ErrInvalidNetworkConfig, "hwAddr"},
		"floating":         {annotated("floatingIPs", `["224.0.0.1"]`), types.ErrInvalidNetworkConfig, "floatingIPs"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			n := start(t, newRooms())
			r := request("c1", "a")
			c.change(n.rooms, &r)
			_, err := n.call(t, client.Add, r)
			wantCode(t, err, c.code, c.want)
			n.wantLeft(t)
		})
	}
}

func TestAnnotationsAreHonoured(t *testing.T) {
	n := start(t, newRooms())
	const p = "cni.projectcalico.org/"
	n.pods["ns/a"] = cniserver.PodInfo{
		Annotations: map[string]string{
			p + "ipAddrs": `["10.1.2.3","fd00::9"]`, p + "hwAddr": "02:00:00:00:00:09", p + "allowedSourcePrefixes": `["10.9.0.1/16"]`,
		},
	}
	n.pods["ns/b"] = cniserver.PodInfo{
		Annotations:          map[string]string{p + "ipFamilies": `["IPv6"]`},
		NamespaceAnnotations: map[string]string{p + "ipFamilies": `["IPv4"]`},
	}
	n.must(t, client.Add, request("c1", "a"))
	n.must(t, client.Add, request("c2", "b"))
	got := fmt.Sprint(n.handles["k8s-pod-network.c1"], n.handles["k8s-pod-network.c2"])
	if want := "[10.1.2.3 fd00::9] [fd00::2]"; got != want {
		t.Errorf("addresses %s, want %s", got, want)
	}
	w := n.interfaces[[2]string{"c1", "eth0"}]
	if w.MAC != "02:00:00:00:00:09" || fmt.Sprint(w.SourcePrefixes) != "[10.9.0.0/16]" {
		t.Errorf("wire %+v", w)
	}
}

func TestSecondInterfaceOfASandboxIsRefused(t *testing.T) {
	n := start(t, newRooms())
	n.must(t, client.Add, request("c1", "a"))
	r := request("c1", "a")
	r.IfName = "net1"
	_, err := n.call(t, client.Add, r)
	wantCode(t, err, types.ErrInvalidNetworkConfig, "eth0")
	n.del(t, r)
	n.wantLeft(t, standing("c1")...)
}

// TestInterfacePrefix changes the prefix: pods to come have it, and one that stands
// keeps its name.
func TestInterfacePrefix(t *testing.T) {
	var prefix atomic.Value
	prefix.Store("cali")
	n := start(t, newRooms(), func(o *cniserver.Options) { o.InterfacePrefix = func() string { return prefix.Load().(string) } })
	out := n.must(t, client.Add, request("c1", "a"))
	prefix.Store("pod")
	sameJSON(t, out, n.must(t, client.Add, request("c1", "a")))
	n.must(t, client.Add, request("c2", "b"))
	for i, want := range []string{cniserver.HostInterface("cali", "ns", "a", ""), cniserver.HostInterface("pod", "ns", "b", "")} {
		c := []string{"c1", "c2"}[i]
		if key := [2]string{c, "eth0"}; n.endpoints[key].HostInterface != want || n.interfaces[key].HostInterface != want {
			t.Errorf("%s has %s and %s, want %s", c, n.endpoints[key].HostInterface, n.interfaces[key].HostInterface, want)
		}
	}
}

// TestHostInterfaceOfAnotherPod has a pod whose name was chosen so that its host
// interface has the name of another's.
func TestHostInterfaceOfAnotherPod(t *testing.T) {
	n := start(t, newRooms())
	victim := model.Endpoint{
		ContainerID: "victim", Interface: "eth0", Namespace: "ns", Pod: "b",
		HostInterface: cniserver.HostInterface("", "ns", "a", ""), Addresses: []netip.Addr{netip.MustParseAddr("10.244.0.9")},
	}
	n.Put(victim)
	n.takeCalls()
	_, err := n.call(t, client.Add, request("c1", "a"))
	wantCode(t, err, types.ErrTryAgainLater, "collides with that of pod ns/b")
	if got := n.List(); len(got) != 1 || got[0].ContainerID != "victim" {
		t.Errorf("endpoints: %v", got)
	}
	if calls := n.takeCalls(); slices.Contains(calls, "Detach") || slices.Contains(calls, "Attach") {
		t.Errorf("calls: %v", calls)
	}
}

func TestPreviousResultIsKept(t *testing.T) {
	n := start(t, newRooms())
	r := request("c1", "a")
	r.Config = []byte(`{"cniVersion":"1.0.0","name":"k8s-pod-network","prevResult":{"cniVersion":"1.0.0",
	 "interfaces":[{"name":"lo","sandbox":"/run/netns/c1"}],"ips":[{"interface":0,"address":"127.0.0.1/8"}],
	 "dns":{"nameservers":["10.0.0.10"]}}}`)
	sameJSON(t, `{"cniVersion":"1.0.0","interfaces":[{"name":"lo","sandbox":"/run/netns/c1"},
	 {"name":"cali5332acb867c","mac":"ee:ee:ee:ee:ee:ee"},{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"/run/netns/c1"}],
	 "ips":[{"interface":0,"address":"127.0.0.1/8"},{"interface":2,"address":"10.244.0.1/32","gateway":"169.254.1.1"}],
	 "routes":[{"dst":"0.0.0.0/0","gw":"169.254.1.1"}],"dns":{"nameservers":["10.0.0.10"]}}`, n.must(t, client.Add, r))
}

func TestCheckComparesAllPlaces(t *testing.T) {
	cases := map[string]struct {
		change func(*rooms, *client.Request)
		code   uint
		want   string
	}{
		"all right":     {func(*rooms, *client.Request) {}, 0, ""},
		"no previous":   {func(_ *rooms, r *client.Request) { r.Config = []byte(netconf) }, types.ErrInvalidNetworkConfig, "prevResult"},
		"not attached":  {func(n *rooms, _ *client.Request) { clear(n.endpoints) }, types.ErrUnknownContainer, "not attached"},
		"address freed": {func(n *rooms, _ *client.Request) { clear(n.handles) }, cnirpc.CodeCheck, "allocation k8s-pod-network.c1"},
		"link gone":     {func(n *rooms, _ *client.Request) { clear(n.interfaces) }, cnirpc.CodeCheck, "no such link"},
		"other in previous": {func(_ *rooms, r *client.Request) {
			r.Config = []byte(strings.Replace(string(r.Config), "10.244.0.1/", "10.244.0.7/", 1))
		}, cnirpc.CodeCheck, "10.244.0.7"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			n := start(t, newRooms())
			out := n.must(t, client.Add, request("c1", "a"))
			r := request("c1", "a")
			r.Config = []byte(strings.TrimSuffix(netconf, "}") + `,"prevResult":` + out + "}")
			c.change(n.rooms, &r)
			before := n.left()
			_, err := n.call(t, client.Check, r)
			if c.code == 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantCode(t, err, c.code, c.want)
			n.wantLeft(t, before...)
		})
	}
}

func TestGCKeepsTheValidAndWhatIsNotItsOwn(t *testing.T) {
	n := start(t, newRooms())
	n.must(t, client.Add, request("keep", "a"))
	n.must(t, client.Add, request("stale", "b"))
	other := request("other", "")
	other.Config = []byte(strings.Replace(netconf, "k8s-pod-network", "second", 1))
	n.must(t, client.Add, other)
	n.handles["k8s-pod-network.leaked"] = nil
	n.handles["ipip-tunnel-addr-node1"] = nil
	n.interfaces[[2]string{"halfway", "eth0"}] = cniserver.InterfaceSpec{ContainerID: "halfway", Interface: "eth0", HostInterface: "calih"}
	gc := client.Request{Config: []byte(`{"cniVersion":"1.1.0","name":"k8s-pod-network",
	 "cni.dev/valid-attachments":[{"containerID":"keep","ifname":"eth0"}]}`)}
	n.must(t, client.GC, gc)
	n.wantLeft(t, append(standing("keep"), "endpoint other eth0", "handle second.other", "wire other eth0", "handle ipip-tunnel-addr-node1")...)
}

func TestGCLeavesARunningAddAlone(t *testing.T) {
	n := start(t, newRooms())
	inside, goOn := make(chan struct{}), make(chan struct{})
	n.setHook(func(_ context.Context, point string) error {
		if point == "before Settled" {
			close(inside)
			<-goOn
		}
		return nil
	})
	added := make(chan error, 1)
	go func() { _, err := client.Call(n.socket, 0, client.Add, request("c1", "a")); added <- err }()
	<-inside
	n.must(t, client.GC, client.Request{Config: []byte(`{"cniVersion":"1.1.0","name":"k8s-pod-network"}`)})
	close(goOn)
	if err := <-added; err != nil {
		t.Error(err)
	}
	n.wantLeft(t, standing("c1")...)
}

func TestGCGoesOnAfterAFailure(t *testing.T) {
	n := start(t, newRooms())
	n.must(t, client.Add, request("c1", "a"))
	n.must(t, client.Add, request("c2", "b"))
	var once sync.Once
	n.setHook(func(_ context.Context, point string) (err error) {
		if point == "before Detach" {
			once.Do(func() { err = errors.New("injected") })
		}
		return err
	})
	gc := client.Request{Config: []byte(`{"cniVersion":"1.1.0","name":"k8s-pod-network"}`)}
	_, err := n.call(t, client.GC, gc)
	if err == nil || !strings.Contains(err.Error(), "injected") {
		t.Errorf("error %v", err)
	}
	n.must(t, client.GC, gc)
	n.wantLeft(t)
}

func TestStatus(t *testing.T) {
	answers := map[string]struct {
		err  error
		code uint
	}{
		"ready":     {nil, 0},
		"not ready": {errors.New("no address pool"), types.ErrPluginNotAvailable},
		"limited":   {types.NewError(types.ErrLimitedConnectivity, "no BGP session", ""), types.ErrLimitedConnectivity},
	}
	for name, c := range answers {
		t.Run(name, func(t *testing.T) {
			n := start(t, newRooms(), func(o *cniserver.Options) { o.Status = func(context.Context) error { return c.err } })
			_, err := n.call(t, client.Status, client.Request{Config: []byte(netconf)})
			if c.code == 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantCode(t, err, c.code, "node1")
		})
	}
}

func TestRecordedDeletesAreDone(t *testing.T) {
	r := newRooms()
	dir := t.TempDir()
	n := startIn(t, dir, r)
	n.must(t, client.Add, request("c1", "a"))
	n.must(t, client.Add, request("c2", "b"))
	n.stop()
	for _, req := range []client.Request{request("c1", "a"), {ContainerID: "bad", IfName: "eth0", Config: []byte("{")}} {
		if err := spoolentry.Write(n.spool, req, nil); err != nil {
			t.Fatal(err)
		}
	}
	mustWrite(t, filepath.Join(n.spool, "torn@eth0.json"), `{"contai`)
	mustWrite(t, filepath.Join(n.spool, "README"), "not ours")

	n = startIn(t, dir, r)
	n.wantLeft(t, standing("c2")...) // done before the socket opened
	if err := spoolentry.Write(n.spool, request("c2", "b"), nil); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the record written meanwhile", func() bool { return len(n.left()) == 0 })
	waitFor(t, "an empty spool", func() bool {
		entries, err := os.ReadDir(n.spool)
		return err == nil && len(entries) == 1 && entries[0].Name() == "README"
	})
}

func TestSpoolIsWatched(t *testing.T) {
	n := start(t, newRooms(), func(o *cniserver.Options) { o.DrainInterval = time.Hour })
	for _, id := range []string{"c1", "c2"} {
		n.must(t, client.Add, request(id, map[string]string{"c1": "a", "c2": "b"}[id]))
		if err := spoolentry.Write(n.spool, request(id, id), nil); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "the records to be done", func() bool { return len(n.left()) == 0 })
	n.awaitDeletes(t)
}

// A spool that the kernel tells nothing of is looked at.
func TestSpoolThatIsNotWatched(t *testing.T) {
	n := start(t, newRooms(), func(o *cniserver.Options) {
		mustWrite(t, filepath.Join(filepath.Dir(o.Socket), "none"), "not a directory")
		o.Spool, o.DrainInterval = filepath.Join(filepath.Dir(o.Socket), "none"), time.Hour
	})
	n.must(t, client.Add, request("c1", "a"))
	dir := filepath.Join(filepath.Dir(n.socket), "none")
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := spoolentry.Write(dir, request("c1", "a"), nil); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the record to be done", func() bool { return len(n.left()) == 0 })
}

func TestRecordedDeleteThatFailsStays(t *testing.T) {
	r := newRooms()
	dir := t.TempDir()
	n := startIn(t, dir, r)
	n.must(t, client.Add, request("c1", "a"))
	n.stop()
	if err := spoolentry.Write(n.spool, request("c1", "a"), nil); err != nil {
		t.Fatal(err)
	}
	r.setHook(func(_ context.Context, point string) error {
		if point == "before Detach" {
			return errors.New("injected")
		}
		return nil
	})
	n = startIn(t, dir, r)
	if records, err := spool.List(n.spool, nil); err != nil || len(records) != 1 {
		t.Fatalf("records %v, error %v", records, err)
	}
	r.setHook(nil)
	waitFor(t, "the record to be done", func() bool { return len(n.left()) == 0 })
}

func mustWrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

func TestSocketIsForRootAndReplacesAStaleOne(t *testing.T) {
	dir := t.TempDir()
	n := startIn(t, dir, newRooms())
	st, err := os.Stat(n.socket)
	if err != nil || st.Mode() != os.ModeSocket|0o600 {
		t.Errorf("socket %v, error %v", st.Mode(), err)
	}
	n.stop()
	_, err = n.call(t, client.Status, client.Request{Config: []byte(netconf)})
	var away *client.Unavailable
	if !errors.As(err, &away) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("error %v after the stop, want refused", err)
	}
	n = startIn(t, dir, newRooms())
	n.must(t, client.Status, client.Request{Config: []byte(netconf)})
}

func TestSocketThatIsAFileIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	mustWrite(t, path, "precious")
	err := cniserver.New(cniserver.Options{Socket: path, Spool: t.TempDir()}).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Errorf("file is now %q", b)
	}
}

func TestStopWaitsForRunningCalls(t *testing.T) {
	n := start(t, newRooms())
	inside, goOn := make(chan struct{}), make(chan struct{})
	n.setHook(func(_ context.Context, point string) error {
		if point == "before Attach" {
			close(inside)
			<-goOn
		}
		return nil
	})
	added := make(chan error, 1)
	go func() { _, err := client.Call(n.socket, 0, client.Add, request("c1", "a")); added <- err }()
	<-inside
	go func() {
		// Let it end once the socket refuses: the stop has begun.
		waitFor(t, "the socket to close", func() bool {
			c, err := net.Dial("unix", n.socket)
			if err == nil {
				c.Close()
			}
			return err != nil
		})
		close(goOn)
	}()
	n.stop()
	if err := <-added; err != nil {
		t.Errorf("call that ran at the stop: %v", err)
	}
}

func TestObserveAndOtherServices(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	registered := false
	n := start(t, newRooms(), func(o *cniserver.Options) {
		o.Observe = func(verb string, _ time.Duration, code uint) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, fmt.Sprint(verb, " ", code))
		}
		o.Register = append(o.Register, func(*grpc.Server) { registered = true })
	})
	n.must(t, client.Add, request("c1", "a"))
	_, _ = n.call(t, client.Add, client.Request{Config: []byte("{")})
	mu.Lock()
	defer mu.Unlock()
	if d := cmp.Diff([]string{"ADD 0", "ADD 6"}, seen); d != "" || !registered {
		t.Errorf("observed (-want +got):\n%s registered %v", d, registered)
	}
}

// TestNotAdmitted: an ADD that may not begin touches nothing.
func TestNotAdmitted(t *testing.T) {
	r := newRooms()
	var answer error
	n := start(t, r, func(o *cniserver.Options) { o.Admit = func() error { return answer } })
	answer = types.NewError(types.ErrTryAgainLater, "the cluster is locked", "")
	_, err := n.call(t, client.Add, request("c1", "a"))
	wantCode(t, err, types.ErrTryAgainLater, "the cluster is locked", "pod ns/a")
	if calls := r.takeCalls(); len(calls) > 0 {
		t.Errorf("called: %v", calls)
	}
	answer = nil
	n.must(t, client.Add, request("c1", "a"))
}

// TestAddedHearsOfSuccess: with the pod's annotations and the configuration, and
// not of what failed.
func TestAddedHearsOfSuccess(t *testing.T) {
	r := newRooms()
	r.pods["ns/a"] = cniserver.PodInfo{Annotations: map[string]string{"qos.projectcalico.org/x": "1"}}
	var received []string
	n := start(t, r, func(o *cniserver.Options) {
		o.Added = func(namespace, pod string, info cniserver.PodInfo, config []byte) {
			received = append(received, namespace+"/"+pod+" "+info.Annotations["qos.projectcalico.org/x"]+" "+string(config))
		}
	})
	req := request("c1", "a")
	bad := request("c2", "a")
	bad.Netns = ""
	if _, err := n.call(t, client.Add, bad); err == nil {
		t.Fatal("an ADD without a namespace")
	}
	n.must(t, client.Add, req)
	if d := cmp.Diff([]string{"ns/a 1 " + string(req.Config)}, received); d != "" {
		t.Error(d)
	}
}

// TestPodOfTheRuntime: the API's pod of that name counts only if it is the one
// that the runtime speaks of.
func TestPodOfTheRuntime(t *testing.T) {
	r := newRooms()
	r.pods["ns/a"] = cniserver.PodInfo{UID: "new"}
	n := start(t, r)
	req := request("c1", "a")
	req.Args += ";K8S_POD_UID=old"
	_, err := n.call(t, client.Add, req)
	wantCode(t, err, cnirpc.CodePodUnknown, "no such pod")
	req.Args = strings.Replace(req.Args, "=old", "=new", 1)
	n.must(t, client.Add, req)
}
