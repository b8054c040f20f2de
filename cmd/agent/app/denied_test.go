package app

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/muslin-net/muslin/felix/policynft"
	"github.com/muslin-net/muslin/pkg/model"
)

func deniedPacket(direction, from, to string) policynft.Denied {
	return policynft.Denied{
		Denial: policynft.Denial{Direction: direction, By: "default end"},
		Source: netip.MustParseAddrPort(from), Destination: netip.MustParseAddrPort(to), Protocol: 6,
	}
}

// Packets that are alike but for the source port are one; the last kinds are kept.
func TestDeniedList(t *testing.T) {
	var l deniedList
	start := time.Unix(1000, 0)
	for i := range 3 {
		l.note(deniedPacket("ingress", fmt.Sprintf("10.0.0.1:%d", 40000+i), "10.0.0.2:80"), "shop/db", start.Add(time.Duration(i)*time.Second))
	}
	l.note(deniedPacket("egress", "10.0.0.1:40000", "10.0.0.2:80"), "shop/web", start)
	got := l.get()
	if len(got) != 2 || got[1].Count != 3 || !got[1].First.Equal(start) || !got[1].Last.Equal(start.Add(2*time.Second)) || got[1].Pod != "shop/db" || got[0].Direction != "egress" {
		t.Fatalf("got %+v", got)
	}
	for i := range mostDenied - 1 {
		l.note(deniedPacket("ingress", "10.0.0.1:40000", fmt.Sprintf("10.0.0.2:%d", 1000+i)), "", start)
	}
	if got = l.get(); len(got) != mostDenied || got[mostDenied-1].Direction != "egress" || got[0].Port != 1000+mostDenied-2 {
		t.Errorf("%d are kept, the first %+v, the last %+v", len(got), got[0], got[len(got)-1])
	}
}

// The pod is the one at the end that was judged.
func TestEvaluatedPod(t *testing.T) {
	pods := []model.Endpoint{
		{Namespace: "shop", Pod: "web", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}},
		{Namespace: "shop", Pod: "db", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")}},
	}
	for direction, want := range map[string]string{"ingress": "shop/db", "egress": "shop/web"} {
		if got := evaluated(pods, deniedPacket(direction, "10.0.0.1:40000", "10.0.0.2:80")); got != want {
			t.Errorf("%s: %q, want %q", direction, got, want)
		}
	}
	if got := evaluated(pods, deniedPacket("ingress", "10.0.0.1:40000", "10.0.0.3:80")); got != "" {
		t.Errorf("a pod of nobody: %q", got)
	}
}
