package sysctl

import (
	"context"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nstest"
)

func TestApplyWritesInsideTheNamespace(t *testing.T) {
	ns, other := nstest.New(t), nstest.New(t)
	w := New(Options{NetNS: ns.Path})
	const key = "net.ipv6.conf.all.forwarding"
	s := felix.State{Sysctls: []felix.Sysctl{
		{Key: "net/no/such", Value: "1"},
		{Key: "net/ipv6/conf/all/forwarding", Value: "1"},
		{Key: "net/ipv6/conf/lo/accept_ra", Value: "2", If: "1"},
		{Key: "net/ipv6/conf/default/accept_ra", Value: "2", If: "0"},
	}}
	for range 2 {
		err := w.Apply(context.Background(), s)
		if err == nil || !strings.Contains(err.Error(), "set sysctl net.no.such = 1") {
			t.Errorf("error for an unknown sysctl: %v", err)
		}
		if got := strings.TrimSpace(ns.Run("sysctl", "-n", key)); got != "1" {
			t.Errorf("%s = %s, want 1", key, got)
		}
	}
	for key, want := range map[string]string{"net.ipv6.conf.lo.accept_ra": "2", "net.ipv6.conf.default.accept_ra": "1"} {
		if got := strings.TrimSpace(ns.Run("sysctl", "-n", key)); got != want {
			t.Errorf("%s = %s, want %s", key, got, want)
		}
	}
	if got := strings.TrimSpace(other.Run("sysctl", "-n", key)); got != "0" {
		t.Errorf("%s = %s in another namespace, want 0", key, got)
	}
}
