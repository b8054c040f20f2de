package app

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muslin-net/muslin/cmd/agent/cniserver"
	"github.com/muslin-net/muslin/felix/route"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
)

func endpoint(container, host string, addrs ...string) model.Endpoint {
	ep := model.Endpoint{ContainerID: container, Interface: "eth0", HostInterface: host}
	for _, a := range addrs {
		ep.Addresses = append(ep.Addresses, netip.MustParseAddr(a))
	}
	return ep
}

func TestSettledWaitsForTheKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoints(nil)
		rev := e.Put(endpoint("a", "cali1", "10.0.0.1"))
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := e.Settled(short, rev); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("settled without the kernel: %v", err)
		}
		go func() {
			e.settle(writerDataplane, rev)
			time.Sleep(time.Minute)
			e.settle(writerPolicy, rev)
		}()
		if err := e.Settled(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
		e.settle(writerDataplane, rev-1)
		e.settle(writerPolicy, rev-1)
		if err := e.Settled(t.Context(), rev); err != nil {
			t.Fatalf("an older revision took the newer back: %v", err)
		}
	})
}

func TestSnapshotHasWhatItsRevisionStandsFor(t *testing.T) {
	e := newEndpoints([]model.Endpoint{endpoint("old", "cali9", "10.0.0.9")})
	e.Put(endpoint("b", "cali2", "10.0.0.2"))
	rev := e.Put(endpoint("a", "cali1", "10.0.0.1"))
	set := e.set.Value()
	got, at := set.list, set.rev
	if at != rev || len(got) != 3 || got[0].HostInterface != "cali1" || got[2].HostInterface != "cali9" {
		t.Fatalf("revision %d, want %d: %v", at, rev, got)
	}
	if e.Delete("absent", "eth0") <= rev {
		t.Error("deleting the absent gives no revision to wait for")
	}
}

func TestAddressesInUse(t *testing.T) {
	pods := []kube.Pod{{Name: "b", IPs: []string{"10.0.0.2"}}, {Name: "d", IPs: []string{"10.0.0.4"}, Finished: true}}
	used := inUse([]model.Endpoint{endpoint("a", "cali1", "10.0.0.1")}, pods)
	if !used["10.0.0.1"] || !used["10.0.0.2"] || used["10.0.0.4"] {
		t.Errorf("in use: %v; want those of a pod interface and of a pod of another plugin that runs", used)
	}
}

func TestGatesNameWhatIsMissing(t *testing.T) {
	c := newGates(gateKernel, gateBGP)
	if got := c.waiting(); len(got) != 2 {
		t.Fatalf("got %q", got)
	}
	c.pass(gateBGP)
	c.waitFirst(gateBGP, "no session") // a lost session does not close the gate
	c.wait(gateKernel, "routes refused")
	if got := c.waiting(); !slices.Equal(got, []string{"data-plane: routes refused"}) {
		t.Fatalf("got %q", got)
	}
	if got := c.waiting(gateBGP); len(got) != 0 {
		t.Fatalf("got %q", got)
	}
}

func TestOutcomeOf(t *testing.T) {
	pods := []model.Endpoint{endpoint("a", "cali1", "10.0.0.1")}
	refuse := func(prefixes ...string) error {
		r := &route.Refused{}
		for _, p := range prefixes {
			r.Prefixes = append(r.Prefixes, netip.MustParsePrefix(p))
		}
		return r
	}
	for name, c := range map[string]struct {
		err  error
		want int
	}{
		"nothing wrong":                {nil, carried},
		"a foreign prefix is refused":  {refuse("10.9.0.0/26"), partial},
		"a pod's route is refused":     {refuse("10.9.0.0/26", "10.0.0.1/32"), failed},
		"the kernel cannot be read":    {errors.New("read routes: no buffer space"), failed},
		"a refusal and something else": {errors.Join(refuse("10.9.0.0/26"), errors.New("x")), failed},
	} {
		if got := outcomeOf(sink{}, c.err, pods); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	if got := outcomeOf(sink{optional: true}, errors.New("operation not supported"), pods); got != partial {
		t.Errorf("a kernel without the tunnel keeps pods from starting: %d", got)
	}
}

func TestPodCIDRsAreAnnouncedOnceUsed(t *testing.T) {
	p := newPodCIDRs()
	announced := 0
	p.changed = func() { announced++ }
	p.SetPrefixes("n1", []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:1::/64")})
	if got := asBlocks(p.inUse.Value(), "n1"); len(got) != 0 {
		t.Fatalf("announced without a pod: %v", got)
	}
	d := addresses{podCIDRs: p, freed: newFreed(time.Now()), alloc: alloc.New("n1", nil)}
	got, err := d.Assign(t.Context(), cniserver.AddressRequest{
		Handle: "h", PodCIDRs: true, IPv4: cniserver.NeedYes, IPv6: cniserver.NeedYes,
	})
	if err != nil || len(got) != 2 || got[0].String() != "10.244.1.2" || got[1].String() != "fd00:1::2" {
		t.Fatalf("%v, %v", got, err)
	}
	if blocks := asBlocks(p.inUse.Value(), "n1"); len(blocks) != 2 || blocks[0].State != model.BlockConfirmed || announced != 1 {
		t.Errorf("blocks %v, told %d times", blocks, announced)
	}
	if handles, _ := d.Handles(t.Context()); !slices.Equal(handles, []string{"h"}) {
		t.Errorf("handles %q", handles)
	}
	if err := d.Release(t.Context(), "h"); err != nil { // without an API server
		t.Fatal(err)
	}
	if left, _ := d.Lookup(t.Context(), "h"); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	_, err = d.Assign(t.Context(), cniserver.AddressRequest{Handle: "h", PodCIDRs: true, Addresses: got})
	if err == nil {
		t.Error("a certain address was given")
	}
}
