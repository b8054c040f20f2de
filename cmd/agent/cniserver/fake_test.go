package cniserver_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/cmd/agent/cniserver"
	"github.com/muslin-net/muslin/pkg/model"
)

// rooms stands for all four rooms: it keeps what a real one would keep, holds
// callers to the contract of rooms.go, and fails where a test says so.
type rooms struct {
	mu         sync.Mutex
	handles    map[string][]netip.Addr
	interfaces map[[2]string]cniserver.InterfaceSpec // by sandbox and interface
	endpoints  map[[2]string]model.Endpoint
	pods       map[string]cniserver.PodInfo
	attrs      map[string]map[string]string
	requested  cniserver.AddressRequest // last
	revision   uint64
	next       int
	calls      []string

	// hook runs at the start ("before") and the end ("after") of every call,
	// outside the mutex; its error becomes the call's.
	hook func(ctx context.Context, point string) error
}

func newRooms() *rooms {
	return &rooms{
		handles: map[string][]netip.Addr{}, interfaces: map[[2]string]cniserver.InterfaceSpec{},
		endpoints: map[[2]string]model.Endpoint{}, pods: map[string]cniserver.PodInfo{"ns/a": {}, "ns/b": {}},
		attrs: map[string]map[string]string{},
	}
}

// do runs effect between the two points of the hook. A failure "after" leaves
// the effect: a step that failed halfway.
func (r *rooms) do(ctx context.Context, name string, effect func() error) error {
	r.mu.Lock()
	r.calls = append(r.calls, name)
	hook := r.hook
	r.mu.Unlock()
	if hook != nil {
		if err := hook(ctx, "before "+name); err != nil {
			return err
		}
	}
	r.mu.Lock()
	err := effect()
	r.mu.Unlock()
	if err == nil && hook != nil {
		err = hook(ctx, "after "+name)
	}
	return err
}

func (r *rooms) setHook(h func(ctx context.Context, point string) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hook = h
}

func (r *rooms) takeCalls() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.calls
	r.calls = nil
	return c
}

func (r *rooms) Assign(ctx context.Context, req cniserver.AddressRequest) (out []netip.Addr, err error) {
	err = r.do(ctx, "Assign", func() error {
		if have, ok := r.handles[req.Handle]; ok {
			out = have
			return nil
		}
		r.attrs[req.Handle], r.requested = req.Attributes, req
		r.next++
		switch {
		case len(req.Addresses) > 0:
			out = req.Addresses
		default:
			if req.IPv4 != cniserver.NeedNo {
				out = append(out, netip.AddrFrom4([4]byte{10, 244, byte(r.next >> 8), byte(r.next)}))
			}
			if req.IPv6 == cniserver.NeedYes {
				out = append(out, netip.MustParseAddr(fmt.Sprintf("fd00::%x", r.next)))
			}
		}
		if req.Chosen != nil {
			req.Chosen(out)
		}
		r.handles[req.Handle] = out
		return nil
	})
	return out, err
}

func (r *rooms) Release(ctx context.Context, handle string) error {
	return r.do(ctx, "Release", func() error {
		for key, w := range r.interfaces {
			for _, a := range w.Addresses {
				if slices.Contains(r.handles[handle], a) {
					return fmt.Errorf("address %s is released while wire %v has it", a, key)
				}
			}
		}
		delete(r.handles, handle)
		return nil
	})
}

func (r *rooms) Lookup(ctx context.Context, handle string) (out []netip.Addr, err error) {
	err = r.do(ctx, "Lookup", func() error { out = r.handles[handle]; return nil })
	return out, err
}

func (r *rooms) Handles(ctx context.Context) (out []string, err error) {
	err = r.do(ctx, "Handles", func() error { out = slices.Collect(maps.Keys(r.handles)); return nil })
	return out, err
}

func (r *rooms) Attach(ctx context.Context, w cniserver.InterfaceSpec) (cniserver.InterfaceResult, error) {
	err := r.do(ctx, "Attach", func() error { return r.link(w) })
	return cniserver.InterfaceResult{HostMAC: "ee:ee:ee:ee:ee:ee", MAC: "02:00:00:00:00:01", MTU: 1500}, err
}

// link refuses a host interface name that another sandbox still has.
func (r *rooms) link(w cniserver.InterfaceSpec) error {
	key := [2]string{w.ContainerID, w.Interface}
	for other, o := range r.interfaces {
		if other != key && o.HostInterface == w.HostInterface {
			return fmt.Errorf("link %s is that of %v", w.HostInterface, other)
		}
	}
	r.interfaces[key] = w
	return nil
}

func (r *rooms) Disconnect(ctx context.Context, _ []netip.Addr) error {
	return r.do(ctx, "Disconnect", func() error { return nil })
}

func (r *rooms) HandOver(ctx context.Context, _, _ string, _ []netip.Addr) error {
	return r.do(ctx, "HandOver", func() error { return nil })
}

func (r *rooms) Detach(ctx context.Context, w cniserver.InterfaceSpec) error {
	return r.do(ctx, "Detach", func() error { delete(r.interfaces, [2]string{w.ContainerID, w.Interface}); return nil })
}

func (r *rooms) Check(ctx context.Context, w cniserver.InterfaceSpec) error {
	return r.do(ctx, "Check", func() error {
		if _, ok := r.interfaces[[2]string{w.ContainerID, w.Interface}]; !ok {
			return errors.New("no such link")
		}
		return nil
	})
}

// interfaceRoom gives Wires its List, which Endpoints has with another signature.
type interfaceRoom struct{ *rooms }

func (r interfaceRoom) List(ctx context.Context) (out []model.Endpoint, err error) {
	err = r.do(ctx, "ListWires", func() error {
		for key, w := range r.interfaces {
			out = append(out, model.Endpoint{
				ContainerID: key[0], Interface: key[1], Namespace: w.Namespace, Pod: w.Pod,
				HostInterface: w.HostInterface, Addresses: w.Addresses, WithoutIPAM: w.WithoutIPAM,
			})
		}
		return nil
	})
	return out, err
}

func (r *rooms) Put(ep model.Endpoint) uint64 {
	_ = r.do(context.Background(), "Put", func() error { r.endpoints[[2]string{ep.ContainerID, ep.Interface}] = ep; r.revision++; return nil })
	return r.revision
}

func (r *rooms) Delete(containerID, ifname string) uint64 {
	_ = r.do(context.Background(), "Delete", func() error { delete(r.endpoints, [2]string{containerID, ifname}); r.revision++; return nil })
	return r.revision
}

func (r *rooms) Settled(ctx context.Context, _ uint64) error {
	return r.do(ctx, "Settled", func() error { return nil })
}

func (r *rooms) List() []model.Endpoint {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Values(r.endpoints))
}

func (r *rooms) Pod(ctx context.Context, namespace, name, uid string) (info cniserver.PodInfo, err error) {
	err = r.do(ctx, "Pod", func() error {
		var ok bool
		if info, ok = r.pods[namespace+"/"+name]; !ok || uid != "" && uid != info.UID {
			return cniserver.ErrNoPod
		}
		return nil
	})
	return info, err
}

// left lists all that the rooms hold.
func (r *rooms) left() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for h := range r.handles {
		out = append(out, "handle "+h)
	}
	for k := range r.interfaces {
		out = append(out, "wire "+k[0]+" "+k[1])
	}
	for k := range r.endpoints {
		out = append(out, "endpoint "+k[0]+" "+k[1])
	}
	slices.Sort(out)
	return out
}

func (r *rooms) wantLeft(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	if d := cmp.Diff(want, r.left()); d != "" {
		t.Errorf("what is left (-want +got):\n%s", d)
	}
}

// standing is what one attachment leaves in the rooms.
func standing(container string) []string {
	return []string{"endpoint " + container + " eth0", "handle k8s-pod-network." + container, "wire " + container + " eth0"}
}
