package cniserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/muslin-net/muslin/cmd/agent/cniserver"
	"github.com/muslin-net/muslin/pkg/cnirpc"
	"github.com/muslin-net/muslin/pkg/cnirpc/client"
)

const (
	noIPAM     = "cni.projectcalico.org/ipAddrsNoIpam"
	noIPAMConf = `{"cniVersion":"1.0.0","name":"k8s-pod-network","type":"muslin","ipam":{"type":"muslin-ipam"},
	 "feature_control":{"ip_addrs_no_ipam":true}}`
)

// given is a request of a pod whose annotation gives it addresses, in a network
// that allows it.
func given(r *rooms, container, pod, addrs string) client.Request {
	r.pods["ns/"+pod] = cniserver.PodInfo{Annotations: map[string]string{noIPAM: addrs}}
	q := request(container, pod)
	q.Config = []byte(noIPAMConf)
	return q
}

func withPrevious(r client.Request, result string) client.Request {
	r.Config = []byte(strings.TrimSuffix(string(r.Config), "}") + `,"prevResult":` + result + "}")
	return r
}

// wantIPAMUnrequested demands that nothing was assigned, looked up or released.
func (r *rooms) wantIPAMUnrequested(t *testing.T) {
	t.Helper()
	for _, c := range r.takeCalls() {
		if slices.Contains([]string{"Assign", "Release", "Lookup"}, c) {
			t.Errorf("IPAM was asked: %s", c)
		}
	}
}

func TestWithoutIPAM(t *testing.T) {
	n := start(t, newRooms())
	r := given(n.rooms, "c1", "a", `["fd00::9","192.0.2.9"]`)
	out := n.must(t, client.Add, r)
	if !strings.Contains(out, `"192.0.2.9/32"`) || !strings.Contains(out, `"fd00::9/128"`) {
		t.Errorf("answer %s", out)
	}
	standing := []string{"endpoint c1 eth0", "wire c1 eth0"} // and no handle
	n.wantLeft(t, standing...)
	key := [2]string{"c1", "eth0"}
	if e, w := n.endpoints[key], n.interfaces[key]; e.WithoutIPAM != "k8s-pod-network" || w.WithoutIPAM != e.WithoutIPAM || len(e.Addresses) != 2 {
		t.Errorf("endpoint %+v, wire %+v", e, w)
	}
	sameJSON(t, out, n.must(t, client.Add, r))
	n.must(t, client.Check, withPrevious(r, out))
	_, err := n.call(t, client.Check, withPrevious(r, strings.Replace(out, "192.0.2.9", "192.0.2.8", 1)))
	wantCode(t, err, cnirpc.CodeCheck, "192.0.2.8")
	n.wantLeft(t, standing...)
	n.del(t, r)
	n.wantIPAMUnrequested(t)
	n.wantLeft(t)
}

func TestWithoutIPAMStandsWhateverIsSaidLater(t *testing.T) {
	n := start(t, newRooms())
	r := given(n.rooms, "c1", "a", `["192.0.2.9"]`)
	out := n.must(t, client.Add, r)
	given(n.rooms, "c1", "a", `["192.0.2.10"]`)
	sameJSON(t, out, n.must(t, client.Add, r))
	n.pods["ns/a"] = cniserver.PodInfo{}
	sameJSON(t, out, n.must(t, client.Add, r))
	n.wantIPAMUnrequested(t)

	byIPAM := n.must(t, client.Add, request("c2", "b"))
	sameJSON(t, byIPAM, n.must(t, client.Add, given(n.rooms, "c2", "b", `["192.0.2.11"]`)))
	n.del(t, r)
	n.wantLeft(t, standing("c2")...)
}

func TestWithoutIPAMFailingAtEachSeamLeavesNothing(t *testing.T) {
	for _, at := range []string{"before Attach", "after Attach", "before Disconnect", "after Disconnect", "before Settled", "after Settled"} {
		t.Run(at, func(t *testing.T) {
			n := start(t, newRooms())
			r := given(n.rooms, "c1", "a", `["192.0.2.9"]`)
			n.setHook(func(_ context.Context, point string) error {
				if point == at {
					return errors.New("injected " + point)
				}
				return nil
			})
			_, err := n.call(t, client.Add, r)
			if err == nil || !strings.Contains(err.Error(), at) {
				t.Errorf("got %v", err)
			}
			n.wantIPAMUnrequested(t)
			n.wantLeft(t)
		})
	}
}

func TestWithoutIPAMRefused(t *testing.T) {
	cases := map[string]struct {
		addrs, old, new string // of the configuration
		more            map[string]string
		args            string
		want            string
	}{
		"feature off":   {addrs: `["192.0.2.9"]`, old: "true", new: "false", want: `"feature_control": {"ip_addrs_no_ipam": true}`},
		"feature unset": {addrs: `["192.0.2.9"]`, old: "ip_addrs_no_ipam", new: "floating_ips", want: `"feature_control": {"ip_addrs_no_ipam": true}`},
		"other ipam":    {addrs: `["192.0.2.9"]`, old: `"muslin-ipam"`, new: `"host-local","subnet":"usePodCidr"`, want: "host-local"},
		"both ways":     {addrs: `["192.0.2.9"]`, more: map[string]string{"cni.projectcalico.org/ipAddrs": `["10.0.0.1"]`}, want: "cni.projectcalico.org/ipAddrs"},
		"and in args":   {addrs: `["192.0.2.9"]`, args: ";IP=10.0.0.1", want: "CNI_ARGS"},
		"no list":       {addrs: `192.0.2.9`, want: `write it as in ["10.1.2.3"]`},
		"no address":    {addrs: `["192.0.2"]`, want: `"192.0.2" is not an address`},
		"prefix":        {addrs: `["192.0.2.9/32"]`, want: "is not an address"},
		"zone":          {addrs: `["fe80::1%eth0"]`, want: "is not an address"},
		"two of IPv4":   {addrs: `["192.0.2.9","192.0.2.10"]`, want: "more than one"},
		"two of IPv6":   {addrs: `["fd00::1","192.0.2.10","fd00::2"]`, want: "more than one"},
		"loopback":      {addrs: `["127.0.0.1"]`, want: "routed"},
		"gateway":       {addrs: `["169.254.1.1"]`, want: "routed"},
		"group":         {addrs: `["ff05::1"]`, want: "routed"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			n := start(t, newRooms())
			r := given(n.rooms, "c1", "a", c.addrs)
			for k, v := range c.more {
				n.pods["ns/a"].Annotations[k] = v
			}
			r.Args += c.args
			if c.old != "" {
				r.Config = []byte(strings.Replace(noIPAMConf, c.old, c.new, 1))
			}
			_, err := n.call(t, client.Add, r)
			wantCode(t, err, types.ErrInvalidNetworkConfig, c.want, "Pod ns/a: metadata.annotations["+noIPAM+"]")
			n.wantIPAMUnrequested(t)
			n.wantLeft(t)
		})
	}
}

func TestWithoutIPAMOfAnotherPodHere(t *testing.T) {
	n := start(t, newRooms())
	first := given(n.rooms, "c1", "a", `["192.0.2.9"]`)
	n.must(t, client.Add, first)
	second := given(n.rooms, "c2", "b", `["192.0.2.9"]`)
	_, err := n.call(t, client.Add, second)
	wantCode(t, err, types.ErrTryAgainLater, "192.0.2.9", "ns/a")
	n.wantLeft(t, "endpoint c1 eth0", "wire c1 eth0")
	n.del(t, first)
	n.must(t, client.Add, second)
}

func TestGCWithoutIPAM(t *testing.T) {
	n := start(t, newRooms())
	n.must(t, client.Add, given(n.rooms, "keep", "a", `["192.0.2.9"]`))
	n.must(t, client.Add, given(n.rooms, "stale", "b", `["192.0.2.10"]`))
	gc := func(network, valid string) {
		n.must(t, client.GC, client.Request{Config: []byte(`{"cniVersion":"1.1.0","name":"` + network + `","cni.dev/valid-attachments":[` + valid + `]}`)})
	}
	gc("second", "")
	n.wantLeft(t, "endpoint keep eth0", "wire keep eth0", "endpoint stale eth0", "wire stale eth0")
	gc("k8s-pod-network", `{"containerID":"keep","ifname":"eth0"}`)
	n.wantLeft(t, "endpoint keep eth0", "wire keep eth0")
	n.wantIPAMUnrequested(t)
}

// without makes pod a of this machine one with addresses of its own, in a
// network that allows it.
func (m *machine) without(addrs string) *libcni.NetworkConfigList {
	m.t.Helper()
	b, err := json.Marshal(map[string]string{noIPAM: addrs})
	if err != nil {
		m.t.Fatal(err)
	}
	mustWrite(m.t, filepath.Join(m.dir, "annotations-a"), string(b))
	text := strings.Replace(string(m.list("1.0.0").Bytes), `"ipam"`, `"feature_control":{"ip_addrs_no_ipam":true},"ipam"`, 1)
	l, err := libcni.ConfListFromBytes([]byte(text))
	if err != nil {
		m.t.Fatal(err)
	}
	return l
}

func TestWithoutIPAMInTheKernel(t *testing.T) {
	m := newMachine(t)
	l := m.without(`["198.51.100.9","2001:db8:9::9"]`)
	podNS, _ := newNetns(t)
	rt := runtimeConf("c1", "a", podNS)
	m.startAgent("")
	first, err := m.cni.AddNetworkList(t.Context(), l, rt)
	if err != nil {
		t.Fatal(err)
	}
	reached := func() {
		t.Helper()
		m.ping(podNS, "198.51.100.9")
		m.ping(podNS, "2001:db8:9::9")
		if err := m.cni.CheckNetworkList(t.Context(), l, rt); err != nil {
			t.Errorf("CHECK: %v", err)
		}
		again, err := m.cni.AddNetworkList(t.Context(), l, rt)
		if err != nil {
			t.Fatal(err)
		}
		a, _ := json.Marshal(first)
		if b, _ := json.Marshal(again); !bytes.Equal(a, b) {
			t.Errorf("ADD again: %s, want %s", b, a)
		}
	}
	reached()
	m.stopAgent()
	m.startAgent("") // knows it from the kernel alone
	reached()
	inNetns(t, podNS, "ip", "address", "flush", "dev", "eth0")
	if err := m.cni.CheckNetworkList(t.Context(), l, rt); err == nil || !strings.Contains(err.Error(), "eth0") {
		t.Errorf("CHECK of a pod without addresses: %v", err)
	}
	for range 2 {
		if err := m.cni.DelNetworkList(t.Context(), l, rt); err != nil {
			t.Errorf("DEL: %v", err)
		}
	}
	m.wantNothing()
}

func TestAgentKilledAtEachStepWithoutIPAM(t *testing.T) {
	for _, kill := range []string{"before Attach", "after Attach", "before Put", "before Settled", "after Settled"} {
		t.Run(kill, func(t *testing.T) {
			m := newMachine(t)
			l := m.without(`["198.51.100.9"]`)
			podNS, _ := newNetns(t)
			rt := runtimeConf("c1", "a", podNS)
			m.startAgent(kill)
			if _, err := m.cni.AddNetworkList(t.Context(), l, rt); err == nil {
				t.Fatal("ADD by a killed agent succeeded")
			}
			m.awaitKilled()
			m.startAgent("")
			if _, err := m.cni.AddNetworkList(t.Context(), l, rt); err != nil {
				t.Fatal(err)
			}
			m.ping(podNS, "198.51.100.9")
			if err := m.cni.DelNetworkList(t.Context(), l, rt); err != nil {
				t.Error(err)
			}
			m.wantNothing()
		})
	}
}

// TestWithoutIPAMTakesNobodysAddress has pods ask for what is others'. A pod that
// stands keeps what it has.
func TestWithoutIPAMTakesNobodysAddress(t *testing.T) {
	held := map[string]string{"192.0.2.1": "a gateway of this node", "10.96.0.10": "in the service range 10.96.0.0/12", "fd00::1": "an address of node b"}
	var known atomic.Bool
	known.Store(true)
	n := start(t, newRooms(), func(o *cniserver.Options) {
		o.Holder = func(a netip.Addr) string {
			if !known.Load() {
				return ""
			}
			return held[a.String()]
		}
	})
	for addr, whose := range held {
		_, err := n.call(t, client.Add, given(n.rooms, "c1", "a", `["192.0.2.77","`+addr+`"]`))
		if strings.Contains(addr, ".") {
			_, err = n.call(t, client.Add, given(n.rooms, "c1", "a", `["`+addr+`"]`))
		}
		wantCode(t, err, types.ErrTryAgainLater, addr+" is "+whose)
		n.wantLeft(t)
	}
	known.Store(false)
	r := given(n.rooms, "c1", "a", `["192.0.2.1"]`)
	out := n.must(t, client.Add, r)
	known.Store(true)
	sameJSON(t, out, n.must(t, client.Add, r))
}
