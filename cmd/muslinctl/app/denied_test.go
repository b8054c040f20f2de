package app

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/cmd/muslinctl/agentview"
	"github.com/muslin-net/muslin/cmd/muslinctl/ipamview"
	"github.com/muslin-net/muslin/felix/nodeview"
)

func shop() *ipamview.Survey {
	return &ipamview.Survey{Pods: map[netip.Addr]ipamview.Pod{
		netip.MustParseAddr("10.0.0.1"): {Namespace: "shop", Name: "web", Node: "n1"},
		netip.MustParseAddr("10.0.0.2"): {Namespace: "shop", Name: "new", Node: "n2"},
	}}
}

// The end that was judged has the name that it had then, the other one that of now.
func TestDeniedIsNamed(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	d := nodeview.Denied{
		First: at, Last: at.Add(time.Minute), Count: 7, Direction: "ingress", By: "default NetworkPolicy shop/db rule 0", Pod: "shop/db",
		Source: netip.MustParseAddr("10.0.0.1"), Destination: netip.MustParseAddr("10.0.0.2"), Port: 5432, Protocol: 6,
	}
	echo := nodeview.Denied{First: at, Last: at, Count: 1, Direction: "egress", By: "default end", Source: d.Destination, Destination: netip.MustParseAddr("192.0.2.1"), Protocol: 1}
	var out bytes.Buffer
	tool := &Tool{Out: &out}
	if err := tool.printDenied([]denied{named(shop(), "n2", d), named(shop(), "n2", echo)}, "wide"); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"LAST COUNT SOURCE DESTINATION PORT DIRECTION POLICY NODE FIRST ADDRESSES",
		"2026-01-02 03:05:05 7 shop/web shop/db 5432/tcp ingress default NetworkPolicy shop/db rule 0 n2 2026-01-02 03:04:05 10.0.0.1 to 10.0.0.2",
		"2026-01-02 03:04:05 1 shop/new 192.0.2.1 icmp egress default end n2 2026-01-02 03:04:05 10.0.0.2 to 192.0.2.1",
	}
	for i, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		if got := strings.Join(strings.Fields(line), " "); got != want[i] {
			t.Errorf("line %d:\n%s\nwant\n%s", i, got, want[i])
		}
	}
}

func TestDeniedOf(t *testing.T) {
	tool := &Tool{}
	agents := []agentview.Agent{{Node: "n1"}, {Node: "n2"}}
	for _, c := range []struct {
		args  []string
		nodes int
		pod   string
	}{{nil, 2, ""}, {[]string{"n2"}, 1, ""}, {[]string{"shop/web"}, 2, "shop/web"}} {
		nodes, pod, err := tool.deniedOf(shop(), agents, c.args)
		if err != nil || len(nodes) != c.nodes || pod != c.pod {
			t.Errorf("%q: %q, %q, %v", c.args, nodes, pod, err)
		}
	}
	if _, _, err := tool.deniedOf(shop(), agents, []string{"shop/nobody"}); err == nil {
		t.Error("what is neither node nor pod is taken")
	}
}
