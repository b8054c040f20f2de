package nl_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/felix/internal/nstest"
)

func dial(t *testing.T, ns *nstest.NS) (*nl.NS, *nl.Conn) {
	t.Helper()
	n, err := nl.Open(ns.Path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := nl.Dial(n, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); n.Close() })
	return n, c
}

// blackhole appends the body of a request for 10.<i>/24, or for a broken prefix
// when i is negative.
func blackhole(b []byte, i int) []byte {
	bits := byte(24)
	if i < 0 {
		bits = 77
	}
	b = append(b, unix.AF_INET, bits, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, 0, unix.RTN_BLACKHOLE, 0, 0, 0, 0)
	return nl.AppendAttr(b, unix.RTA_DST, []byte{10, byte(i >> 8), byte(i), 0})
}

func TestBatchGoesOnAfterRefusals(t *testing.T) {
	ns := nstest.New(t)
	_, c := dial(t, ns)
	var b nl.Batch
	const count = 5000 // several sends
	broken := map[int]bool{0: true, 999: true, 1000: true, 2500: true, count - 1: true}
	for i := range count {
		n := i
		if broken[i] {
			n = -1
		}
		b.Add(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, func(m []byte) []byte { return blackhole(m, n) })
	}
	if b.Len() != count {
		t.Fatalf("%d requests in the batch", b.Len())
	}
	failed := map[int]error{}
	if err := c.Do(&b, func(i int, err error) { failed[i] = err }); err != nil {
		t.Fatal(err)
	}
	for i, err := range failed {
		if !broken[i] || !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "Invalid prefix length") {
			t.Errorf("request %d: %v", i, err)
		}
	}
	if len(failed) != len(broken) {
		t.Errorf("%d refusals, want %d", len(failed), len(broken))
	}
	if got := strings.Count(ns.IP("route show type blackhole"), "\n"); got != count-len(broken) {
		t.Errorf("%d routes, want %d", got, count-len(broken))
	}
	b.Reset()
	b.Add(unix.RTM_DELROUTE, 0, func(m []byte) []byte { return blackhole(m, 3) })
	for want := range 2 {
		err := c.Each(&b, func(_ int, err error) error { return fmt.Errorf("delete: %w", err) })
		if got := errors.Is(err, unix.ESRCH); got != (want == 1) {
			t.Errorf("delete number %d: %v", want+1, err)
		}
	}
}

func TestInterruptedDumps(t *testing.T) {
	ns := nstest.New(t)
	for name, c := range map[string]struct {
		interrupted int
		err         error
	}{
		"never": {0, nil}, "twice": {2, nil}, "always": {1000, nl.ErrInterrupted},
	} {
		t.Run(name, func(t *testing.T) {
			_, conn := dial(t, ns)
			left := c.interrupted
			conn.InterruptDumps(func() bool { left--; return left >= 0 })
			links, resets := 0, 0
			err := conn.DumpAll(unix.RTM_GETLINK, unix.SizeofIfInfomsg, func() { links = 0; resets++ }, func([]byte) { links++ })
			if !errors.Is(err, c.err) {
				t.Fatalf("got %v, want %v", err, c.err)
			}
			if err == nil && (links != 1 || resets != c.interrupted+1) {
				t.Errorf("%d links after %d attempts, want the loopback once after %d", links, resets, c.interrupted+1)
			}
		})
	}
}

func TestGetNamesTheAbsent(t *testing.T) {
	_, c := dial(t, nstest.New(t))
	if _, err := c.GetLink("nosuch"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("got %v", err)
	}
	l, err := c.GetLink("lo")
	if err != nil || l.Name != "lo" || l.Index != 1 || !l.AdminUp {
		t.Errorf("got %+v, %v", l, err)
	}
}

func TestDoStaysInsideAndComesBack(t *testing.T) {
	here, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	ns, _ := dial(t, nstest.New(t))
	for range 100 {
		var inside, after string
		err := ns.Do(func() (err error) {
			inside, err = os.Readlink("/proc/thread-self/ns/net")
			return err
		})
		if err != nil || inside == here {
			t.Fatalf("inside: %s, here: %s, %v", inside, here, err)
		}
		if after, err = os.Readlink("/proc/thread-self/ns/net"); err != nil || after != here {
			t.Fatalf("after: %s, here: %s, %v", after, here, err)
		}
	}
	want := errors.New("no")
	if err := ns.Do(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("got %v", err)
	}
	if _, err := nl.Open("/nonexistent"); err == nil {
		t.Error("a namespace that does not exist was opened")
	}
}

func TestSame(t *testing.T) {
	one, two := nstest.New(t), nstest.New(t)
	a, _ := dial(t, one)
	b, _ := dial(t, two)
	again, _ := dial(t, one)
	if same, err := a.Same(again); !same || err != nil {
		t.Errorf("the same namespace: %t, %v", same, err)
	}
	if same, err := a.Same(b); same || err != nil {
		t.Errorf("another namespace: %t, %v", same, err)
	}
}

func TestListenerTellsOfLosses(t *testing.T) {
	ns := nstest.New(t)
	n, c := dial(t, ns)
	l, err := nl.Listen(n, unix.NETLINK_ROUTE, nil, unix.RTNLGRP_IPV4_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var b nl.Batch
	for i := range 60000 { // more than its buffer holds
		b.Add(unix.RTM_NEWROUTE, unix.NLM_F_CREATE, func(m []byte) []byte { return blackhole(m, i) })
	}
	if err := c.Do(&b, func(i int, err error) { t.Errorf("request %d: %v", i, err) }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	lost := false
	err = l.Follow(ctx, func(nl.Message) {}, func() { lost = true; cancel() })
	if err != nil || !lost {
		t.Errorf("lost %t, %v", lost, err)
	}
}

func TestAttributes(t *testing.T) {
	b := nl.AppendAttr(nil, 1, []byte("abc"))
	b, start := nl.BeginNested(b, 2)
	if kind := binary.NativeEndian.Uint16(b[start+2:]); kind != 2|unix.NLA_F_NESTED {
		t.Errorf("a nested attribute is not marked as one: %#x", kind)
	}
	b = nl.AppendAttr32(b, 3, 7)
	b = nl.EndNested(b, start)
	b = append(b, 200, 0, 9, 9) // longer than what follows
	var got []string
	nl.Attrs(b, func(kind uint16, data []byte) {
		if kind == 2 {
			nl.Attrs(data, func(kind uint16, data []byte) { got = append(got, fmt.Sprint(kind, nl.Uint32(data))) })
			return
		}
		got = append(got, fmt.Sprint(kind, string(data)))
	})
	if want := "1abc 3 7"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", strings.Join(got, " "), want)
	}
	if nl.Uint32([]byte{1}) != 0 || nl.Uint32(binary.NativeEndian.AppendUint32(nil, 5)) != 5 {
		t.Error("Uint32")
	}
	if got := nl.LinkLocal(net.HardwareAddr{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}).String(); got != "fe80::ecee:eeff:feee:eeee" {
		t.Errorf("link-local address %s", got)
	}
}
