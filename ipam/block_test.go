package ipam_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

var epoch = time.Date(2026, 8, 22, 10, 0, 0, 0, time.UTC)

func newBlock(t testing.TB, cidr string) *ipam.Block {
	t.Helper()
	b, err := ipam.NewBlock(prefix(cidr), "host:node1", epoch)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func owner(handle string) ipam.Attribute {
	return ipam.Attribute{Handle: handle, Owner: map[string]string{"node": "node1"}}
}

func TestNewBlockLimits(t *testing.T) {
	for cidr, size := range map[string]int{
		"10.0.0.0/20": 4096, "10.0.0.0/26": 64, "10.0.0.1/32": 1,
		"fd00::/116": 4096, "fd00::/122": 64, "fd00::1/128": 1,
	} {
		b := newBlock(t, cidr)
		if b.Size() != size || b.InUse() != 0 || !b.Empty() || b.Node() != "node1" || !b.ClaimedAt().Equal(epoch) || b.Sequence() != uint64(epoch.UnixNano()) {
			t.Errorf("%s: %+v", cidr, b)
		}
		all := b.Assign(size+1, owner("h"), nil)
		if len(all) != size || all[0] != prefix(cidr).Addr() || !prefix(cidr).Contains(all[size-1]) {
			t.Errorf("%s: %d addresses, first %s", cidr, len(all), all[0])
		}
		if err := b.Validate(epoch); err != nil {
			t.Error(err)
		}
	}
	for _, cidr := range []string{"10.0.0.0/19", "fd00::/115", "10.0.0.1/26", "::ffff:10.0.0.0/122"} {
		if _, err := ipam.NewBlock(prefix(cidr), "", epoch); err == nil {
			t.Errorf("%s was accepted", cidr)
		}
	}
	if _, err := ipam.NewBlock(netip.Prefix{}, "", epoch); err == nil {
		t.Error("the zero prefix was accepted")
	}
}

func TestFirstInFirstOut(t *testing.T) {
	b := newBlock(t, "10.0.0.0/30")
	got := []netip.Addr{}
	for i := range 10 {
		a := b.Assign(1, owner(fmt.Sprint(i)), nil)
		got = append(got, a...)
		b.ReleaseHandle(fmt.Sprint(i), epoch, 0)
	}
	want := []netip.Addr{}
	for i := range 10 {
		want = append(want, addr(fmt.Sprintf("10.0.0.%d", i%4)))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestAttributesAreShared(t *testing.T) {
	b := newBlock(t, "10.0.0.0/28")
	b.Assign(2, owner("a"), nil)
	b.Assign(2, owner("b"), nil)
	b.Assign(1, owner("a"), nil)
	if got := b.AddrsOf("a"); !slices.Equal(got, []netip.Addr{addr("10.0.0.0"), addr("10.0.0.1"), addr("10.0.0.4")}) {
		t.Errorf("a has %v", got)
	}
	var spec struct{ Attributes []any }
	data, err := json.Marshal(b)
	if err != nil || json.Unmarshal(data, &spec) != nil || len(spec.Attributes) != 2 {
		t.Errorf("attributes: %v, %v", spec, err)
	}
	b.ReleaseHandle("a", epoch, 0)
	data, err = json.Marshal(b)
	if err != nil || json.Unmarshal(data, &spec) != nil || len(spec.Attributes) != 1 {
		t.Errorf("attributes after release: %v, %v", spec, err)
	}
	if _, ok := b.Owner(addr("10.0.0.2")); !ok {
		t.Error("b lost its address")
	}
	if b.AddrsOf("") != nil {
		t.Error("the empty handle has addresses")
	}
}

func TestReleaseChecks(t *testing.T) {
	b := newBlock(t, "10.0.0.0/28")
	b.Assign(1, owner("a"), nil)
	seq := b.Sequence()
	b.Bump()
	b.Assign(1, ipam.Attribute{Handle: "b\rdirt"}, nil)
	other := seq + 99
	bad := [][]ipam.Release{
		{{Addr: addr("10.0.1.0")}},
		{{Addr: addr("10.0.0.0"), Handle: "b"}},
		{{Addr: addr("10.0.0.1"), Handle: "b"}, {Addr: addr("10.0.0.0"), Sequence: &other}},
	}
	for _, r := range bad {
		if _, err := b.Release(r, epoch, 0); err == nil {
			t.Errorf("%v was accepted", r)
		}
		if b.InUse() != 2 {
			t.Fatalf("%v had an effect", r)
		}
	}
	got, err := b.Release([]ipam.Release{
		{Addr: addr("10.0.0.0"), Handle: "a", Sequence: &seq}, {Addr: addr("10.0.0.0")},
		{Addr: addr("10.0.0.1"), Handle: "b"}, {Addr: addr("10.0.0.9"), Handle: "free is no error"},
	}, epoch, 0)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int{"a": 1, "b\rdirt": 1}, got); diff != "" {
		t.Errorf("released (-want +got):\n%s", diff)
	}
	if !b.Empty() {
		t.Error("the block is not empty")
	}
}

func TestAssignAddr(t *testing.T) {
	b := newBlock(t, "10.0.0.0/30")
	if err := b.AssignAddr(addr("10.0.0.2"), owner("a")); err != nil {
		t.Fatal(err)
	}
	if err := b.AssignAddr(addr("10.0.0.2"), owner("a")); err != nil {
		t.Errorf("again: %v", err)
	}
	if err := b.AssignAddr(addr("10.0.0.9"), owner("a")); err == nil {
		t.Error("an address outside was accepted")
	}
	pod := ipam.Attribute{Handle: "p", Owner: map[string]string{"pod": "web", "namespace": "ns", "node": "n"}}
	tunnel := ipam.Attribute{Handle: "t", Owner: map[string]string{"type": "ipipTunnelAddress", "node": "n"}}
	for _, tt := range []struct {
		owner ipam.Attribute
		says  string
	}{{owner("a"), "handle a"}, {pod, "pod ns/web on node n"}, {tunnel, "ipipTunnelAddress of node n"}} {
		b := newBlock(t, "10.0.0.0/30")
		b.Assign(1, tt.owner, nil)
		err := b.AssignAddr(addr("10.0.0.0"), owner("z"))
		if ipam.CodeOf(err) != ipam.CodeTaken || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("got %v, want %q", err, tt.says)
		}
	}
}

func TestBlockCooldown(t *testing.T) {
	b := newBlock(t, "10.0.0.0/31")
	now := epoch.Add(300 * time.Millisecond)
	b.Assign(2, owner("a"), nil)
	b.ReleaseHandle("a", now, 10*time.Second)
	if b.InUse() != 0 || b.Empty() || len(b.Assign(1, owner("b"), nil)) != 0 {
		t.Error("cooling addresses are free")
	}
	if err := b.Validate(now); err != nil {
		t.Error(err)
	}
	if err := b.Validate(epoch.Add(-time.Hour)); err == nil {
		t.Error("a release in the future is valid")
	}
	if b.Collect(now.Add(9*time.Second), 10*time.Second) {
		t.Error("collected too early")
	}
	if err := b.AssignAddr(addr("10.0.0.1"), owner("c")); err != nil {
		t.Errorf("a cooling address by name: %v", err)
	}
	if !b.Collect(now.Add(11*time.Second), 10*time.Second) || len(b.Assign(9, owner("d"), nil)) != 1 {
		t.Error("not collected")
	}
	if err := b.Validate(now); err != nil {
		t.Error(err)
	}
}

// TestCalicoJSON reads a block as Calico writes it and writes the same.
func TestCalicoJSON(t *testing.T) {
	const text = `{"cidr":"10.244.1.0/30","affinity":"host:node1","affinityClaimTime":"2026-08-22T10:00:00Z",` +
		`"allocations":[0,null,1,2],"unallocated":[1],` +
		`"attributes":[{"handle_id":"ipip-tunnel-addr-node1","secondary":{"node":"node1","type":"ipipTunnelAddress"}},` +
		`{"handle_id":"k8s-pod-network.c","secondary":{"namespace":"default","node":"node1","pod":"a"},"alternateOwnerAttrs":{"pod":"b"}},` +
		`{"releasedAt":"2026-08-22T09:00:00Z"}],` +
		`"sequenceNumber":1787392800000000001,"sequenceNumberForAllocation":{"0":1787392800000000000,"2":1787392800000000000},` +
		`"deleted":false,"strictAffinity":false}`
	b := new(ipam.Block)
	if err := json.Unmarshal([]byte(text), b); err != nil {
		t.Fatal(err)
	}
	if err := b.Validate(epoch); err != nil {
		t.Error(err)
	}
	again, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	if string(again) != text {
		t.Errorf("got  %s\nwant %s", again, text)
	}
	if b.Node() != "node1" || b.InUse() != 2 || b.Deleted() {
		t.Errorf("block: %+v", b)
	}
	empty, err := json.Marshal(newBlock(t, "10.0.0.0/31"))
	want := `{"cidr":"10.0.0.0/31","affinity":"host:node1","affinityClaimTime":"2026-08-22T10:00:00Z","allocations":[null,null],"unallocated":[0,1],` +
		`"attributes":[],"sequenceNumber":1787392800000000000,"sequenceNumberForAllocation":{},"deleted":false,"strictAffinity":false}`
	if err != nil || string(empty) != want {
		t.Errorf("got  %s\nwant %s, %v", empty, want, err)
	}
}

// TestCalicoNulls: what Calico leaves out, or writes as null, is nothing, and is
// left out again: the affinity of a block that is nobody's, its time, lists of
// none.
func TestCalicoNulls(t *testing.T) {
	const nobodys = `{"cidr":"10.0.0.0/31","allocations":[null,null],"unallocated":[1,0],"attributes":[],` +
		`"sequenceNumber":7,"sequenceNumberForAllocation":{},"deleted":false,"strictAffinity":false}`
	for text, want := range map[string]string{
		nobodys: nobodys,
		`{"cidr":"10.0.0.0/31","affinity":null,"affinityClaimTime":null,"allocations":[null,null],"unallocated":[1,0],"attributes":null,"sequenceNumber":7,"sequenceNumberForAllocation":null,"strictAffinity":true}`: nobodys,
		`{"allocations":[0],"attributes":[{"handle_id":null,"secondary":null,"alternateOwnerAttrs":null}],"cidr":"fd00::/128","affinity":"virtual:load-balancer","unallocated":null,"sequenceNumber":9,"deleted":true}`: `{"cidr":"fd00::/128","affinity":"virtual:load-balancer","allocations":[0],"unallocated":[],"attributes":[{}],` +
			`"sequenceNumber":9,"sequenceNumberForAllocation":{},"deleted":true,"strictAffinity":false}`,
	} {
		b := new(ipam.Block)
		if err := json.Unmarshal([]byte(text), b); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := json.Marshal(b); err != nil || string(got) != want {
			t.Errorf("read  %s\ngot   %s\nwant  %s, %v", text, got, want, err)
		}
		if b.Node() != "" {
			t.Errorf("%s is node %q's", text, b.Node())
		}
	}
}

// TestUnknownKeys: what a newer release or Calico has written beside the known keys
// is kept as it is, wherever it stands, and stays with its owner.
func TestUnknownKeys(t *testing.T) {
	const text = `{"cidr":"10.0.0.0/30","allocations":[0,1,null,null],"unallocated":[2,3],"sequenceNumber":7,` +
		`"sequenceNumberForAllocation":{},"deleted":false,"strictAffinity":false,` +
		`"attributes":[{"handle_id":"a","alternateOwnerAttrs":{"pod":"x"},"alternate":{"pod":"b"},"future":[1.50,{"deep":null}]},{"handle_id":"b"}],` +
		`"hostAffinity":"node1","later":{"big":123456789012345678901234567890}}`
	b := new(ipam.Block)
	if err := json.Unmarshal([]byte(text), b); err != nil {
		t.Fatal(err)
	}
	if got, err := json.Marshal(b); err != nil || string(got) != text {
		t.Errorf("got  %s\nwant %s, %v", got, text, err)
	}
	if owner, _ := b.Owner(addr("10.0.0.0")); owner.Alternate["pod"] != "x" {
		t.Errorf("the next owner is %v", owner.Alternate)
	}
	c := b.Clone()
	c.ReleaseHandle("b", epoch, 0)
	c.Assign(1, owner("c"), nil)
	got, err := json.Marshal(c)
	for _, part := range []string{`"future":[1.50,{"deep":null}]`, `"hostAffinity":"node1"`, `"big":123456789012345678901234567890`, `"handle_id":"c"`} {
		if err != nil || !strings.Contains(string(got), part) {
			t.Errorf("%s is not in %s, %v", part, got, err)
		}
	}
	b.ReleaseHandle("a", epoch, 0)
	if got, _ := json.Marshal(b); strings.Contains(string(got), "future") {
		t.Errorf("they outlive their owner: %s", got)
	}
}

// TestKeysOfOtherCase: a key is a field's only if it is spelt so, as for the API
// server. One of other case must not stand for it.
func TestKeysOfOtherCase(t *testing.T) {
	const good = `{"cidr":"10.0.0.0/31","allocations":[0,null],"unallocated":[1],"attributes":[{"handle_id":"a"%s}]%s}`
	for name, text := range map[string]string{
		"field":             fmt.Sprintf(good, "", `,"Allocations":[null,null]`),
		"escaped":           fmt.Sprintf(good, "", `,"\u0041llocations":[null,null]`),
		"of an attribute":   fmt.Sprintf(good, `,"Handle_ID":"b"`, ""),
		"folded to a field": fmt.Sprintf(good, "", `,"attributeſ":[]`),
	} {
		b := new(ipam.Block)
		if err := json.Unmarshal([]byte(text), b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if owner, taken := b.Owner(addr("10.0.0.0")); !taken || owner.Handle != "a" {
			t.Errorf("%s: taken %v by %q", name, taken, owner.Handle)
		}
	}
}

func TestBadJSON(t *testing.T) {
	valid := `{"cidr":"10.0.0.0/31","allocations":[null,0],"unallocated":[0],"attributes":[{}]}`
	if err := json.Unmarshal([]byte(valid), new(ipam.Block)); err != nil {
		t.Fatal(err)
	}
	for _, change := range [][3]string{
		{`10.0.0.0/31`, `10.0.0.1/31`, "bits set"},
		{`10.0.0.0/31`, `10.0.0.0/8`, "want 20 to 32"},
		{`10.0.0.0/31`, `ten`, "spec.cidr"},
		{`[null,0]`, `[null]`, "1 entries; want 2"},
		{`[null,0]`, `[null,1]`, "there are 1 attributes"},
		{`[null,0]`, `[null,-1]`, "want null or an index"},
		{`[null,0]`, `[null,"x"]`, "block"},
		{`[null,0]`, `[null,99999]`, "block"},
		{`[0]`, `[2]`, "want 0 to 1"},
		{`[0]`, `[-1]`, "want 0 to 1"},
		{`[{}]`, `[{"releasedAt":"x"}]`, "releasedAt"},
		{`"attributes"`, `"affinityClaimTime":"x","attributes"`, "affinityClaimTime"},
	} {
		text := strings.Replace(valid, change[0], change[1], 1)
		if err := json.Unmarshal([]byte(text), new(ipam.Block)); err == nil || !strings.Contains(err.Error(), change[2]) {
			t.Errorf("%s: got %v, want %q", text, err, change[2])
		}
	}
}

// TestMendsTheQueue: what others left wrong is told, never assigned from, and
// gone with the next write.
func TestMendsTheQueue(t *testing.T) {
	for text, says := range map[string]string{
		`{"cidr":"10.0.0.0/30","allocations":[0,null,null,null],"unallocated":[0,1,2,3],"attributes":[{"handle_id":"a"}]}`:                    "free and assigned",
		`{"cidr":"10.0.0.0/30","allocations":[0,null,null,null],"unallocated":[1,1,2,3],"attributes":[{"handle_id":"a"}]}`:                    "free twice",
		`{"cidr":"10.0.0.0/30","allocations":[0,null,null,null],"unallocated":[3],"attributes":[{"handle_id":"a"}]}`:                          "neither free nor assigned",
		`{"cidr":"10.0.0.0/30","allocations":[0,null,null,null],"unallocated":[1,2,3],"attributes":[{"handle_id":"a"},{"handle_id":"lost"}]}`: "referred to by no address",
	} {
		b := new(ipam.Block)
		if err := json.Unmarshal([]byte(text), b); err != nil {
			t.Fatal(err)
		}
		if err := b.Validate(epoch); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %q", err, says)
		}
		got := b.Assign(9, owner("b"), nil)
		if len(got) != 3 || slices.Contains(got, addr("10.0.0.0")) {
			t.Errorf("assigned %v", got)
		}
		b.ReleaseHandle("b", epoch, 0)
		if err := b.Validate(epoch); err != nil {
			t.Errorf("after a write: %v", err)
		}
	}
}

func TestNames(t *testing.T) {
	long := model.NodeName(strings.Repeat("n", 250))
	for got, want := range map[string]string{
		ipam.BlockName(prefix("10.244.1.0/26")):                         "10-244-1-0-26",
		ipam.BlockName(prefix("fd00:10::40/122")):                       "fd00-10--40-122",
		ipam.AffinityName("node1", prefix("10.244.1.0/26")):             "node1-10-244-1-0-26",
		ipam.HandleName("k8s-pod-network.ABC"):                          "k8s-pod-network.abc",
		ipam.HostAffinity("node1"):                                      "host:node1",
		ipam.HostnameHash("node1"):                                      "7DS2CCNJGGLTHBDQLLFO6SX24SY2YDDEG3W2VN556FA2W4DLLV5A",
		fmt.Sprint(len(ipam.AffinityName(long, prefix("10.0.0.0/26")))): "252",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	labels := ipam.AffinityLabels(ipam.Affinity{Node: "node1", Type: "host", CIDR: prefix("fd00::/122")})
	if labels[ipam.LabelIPVersion] != "6" || labels[ipam.LabelAffinityType] != "host" || labels[ipam.LabelHostnameHash] != ipam.HostnameHash("node1") {
		t.Errorf("labels: %v", labels)
	}
}

func TestErrorText(t *testing.T) {
	e := &ipam.Error{Code: ipam.CodeTaken, Object: model.Ref{Kind: "Address", Name: "10.0.0.1"}, Field: "f", Detail: "d", Hint: "do this", Err: fmt.Errorf("cause")}
	if e.Error() != "Address 10.0.0.1: f: d: cause (do this)" {
		t.Errorf("got %q", e)
	}
	if p := e.Problem(); p.Reason != "AddressTaken" || p.Message != "d; do this" || p.Field != "f" {
		t.Errorf("problem: %+v", p)
	}
	if (&ipam.Error{Detail: "d"}).Error() != "ipam: d" {
		t.Error("an error without object")
	}
	if ipam.CodeOf(nil) != "" || ipam.CodeOf(fmt.Errorf("x")) != ipam.CodeUnavailable || ipam.CodeOf(fmt.Errorf("x: %w", e)) != ipam.CodeTaken {
		t.Error("CodeOf")
	}
}
