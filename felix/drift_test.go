package felix_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/pkg/model"
)

// breakage is a way to spoil what is ours. Commands are separated by "; ".
type breakage struct {
	kind, spoil string
	// restore is what another one than we has to put back: links, addresses and
	// routes of the machine's own network.
	restore string
}

const uplinkAgain = "ip link set eth0 up; ip addr replace 10.1.0.1/24 dev eth0; ip -6 addr replace fd01::1/64 dev eth0 nodad; " +
	"ip neigh replace 10.1.0.254 lladdr $ROUTER dev eth0 nud permanent; ip -6 neigh replace fd01::254 lladdr $ROUTER dev eth0 nud permanent; " +
	"ip route replace default via 10.1.0.254; ip -6 route replace default via fd01::254"

// breakages are at least one of each kind that a node meets: delete, replace,
// flush, link down and up, address change, tunnel deleted, table deleted, rules
// flushed.
var breakages = []breakage{
	{kind: "delete", spoil: "ip route del 10.65.2.0/26"},
	{kind: "delete", spoil: "ip -6 route del fd65::2:0/122"},
	{kind: "delete", spoil: "ip route del 10.65.1.1/32"},
	{kind: "replace", spoil: "ip route replace 10.65.2.0/26 via 10.1.0.254 proto static metric 1024"},
	{kind: "replace", spoil: "ip route replace blackhole 10.65.1.1/32 proto 109 metric 1024"},
	{kind: "flush", spoil: "ip route flush proto 109"},
	{kind: "flush", spoil: "ip -6 route flush proto 109"},
	{kind: "link", spoil: "ip link set eth0 down", restore: uplinkAgain},
	{kind: "link", spoil: "ip link set $POD down"},
	{kind: "link", spoil: "ip link set $POD down; ip link set $POD up"},
	// A repair that is quicker than the flush makes it say that something remains.
	{kind: "address", spoil: "ip addr flush dev $POD || ip link show $POD"},
	{kind: "link", spoil: "ip link set vxlan.calico down"},
	{kind: "address", spoil: "ip addr del 10.1.0.1/24 dev eth0", restore: uplinkAgain},
	{kind: "address", spoil: "ip addr flush dev vxlan.calico || ip link show vxlan.calico"},
	{kind: "tunnel", spoil: "ip link del vxlan.calico"},
	{kind: "tunnel", spoil: "ip link del vxlan-v6.calico"},
	{kind: "tunnel", spoil: "ip neigh flush dev vxlan.calico nud permanent"},
	{kind: "tunnel", spoil: "ip link set vxlan.calico mtu 1200"},
	{kind: "table", spoil: "nft delete table inet muslin"},
	{kind: "rules", spoil: "nft flush table inet muslin"},
	{kind: "rules", spoil: "nft flush chain inet muslin from-pod"},
	{kind: "rules", spoil: "nft flush set inet muslin nat-from4"},
	{kind: "rules", spoil: "nft insert rule inet muslin from-pod drop"},
}

// shell runs commands in the node's namespace, in one process: what is timed is
// the repair.
func (x *node) shell(commands string) error {
	at := strings.NewReplacer("$POD", x.input.Endpoints[0].HostInterface, "$ROUTER", x.router)
	_, err := x.ns.Try("sh", "-ec", at.Replace(commands))
	return err
}

// meddle does one breakage and waits until the kernel is again what it was. It
// returns how long that took, from before the first command that made it
// possible.
func (x *node) meddle(b breakage, want string) time.Duration {
	x.t.Helper()
	begin := time.Now()
	if err := x.shell(b.spoil); err != nil {
		x.t.Fatal(err) // then nothing was broken
	}
	if b.restore != "" {
		begin = time.Now()
		if err := x.shell(b.restore); err != nil {
			x.t.Fatal(err)
		}
	}
	var have string
	var took time.Duration
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		now := time.Now()
		if have = x.snapshot(); have == want {
			return max(took, now.Sub(begin))
		}
	}
	x.t.Fatalf("not repaired: %s\n%s", b.spoil, cmp.Diff(want, have))
	return took
}

// drifter is a cluster whose node a has things of others, too.
func drifter(t testing.TB) (*cluster, string) {
	c := newCluster(t)
	c.encap(t, model.EncapCrossSubnet, "vxlan")
	a := c.a
	if err := a.shell("nft 'add table inet other; add chain inet other c { type filter hook input priority 0; policy accept; }; " +
		"add rule inet other c counter; add set inet other s { type ipv4_addr; elements = { 10.1.1.1 }; }'; " +
		"ip link add other0 type veth peer name other1; ip link set other1 up; ip addr add 10.80.1.1/24 dev other0; ip link set other0 up; " +
		"ip route add 10.80.2.0/24 via 10.80.1.2 proto bird; ip route add 10.65.9.0/26 via 10.80.1.2 proto static metric 50; " +
		"ip route add 10.65.3.0/26 via 10.80.1.2 proto 109 table 100; ip route add blackhole 10.65.1.0/26 proto static metric 2000; " +
		"ip rule add pref 100 from 10.80.0.0/16 lookup 100"); err != nil {
		t.Fatal(err)
	}
	a.settle()
	return c, a.foreign()
}

// foreign is everything of others on the node that no breakage touches.
func (x *node) foreign() string {
	x.t.Helper()
	return x.ns.IP("route show table 100") + x.ns.IP("route show root 10.80.0.0/16") + x.ns.IP("route show proto static") +
		x.ns.IP("rule show") + x.ns.IP("-4 addr show dev other0") +
		strings.ReplaceAll(x.ns.Run("nft", "-s", "list", "table", "inet", "other"), "\t", " ")
}

// TestDrift breaks what is ours a hundred times at random, under traffic, each
// kind at least once. Everything is put back, what is somebody else's is never
// touched, and pods talk at the end.
func TestDrift(t *testing.T) {
	c, foreign := drifter(t)
	witness := c.a.ns.MonitorRoutes()
	stop := c.traffic(t, "10.65.2.1")
	c.meddleAll(100)
	sent, lost := stop()
	t.Logf("%d packets sent meanwhile, %d lost", sent, lost)
	c.reach(t)
	if diff := cmp.Diff(foreign, c.a.foreign()); diff != "" {
		t.Errorf("what others have on the node changed:\n%s", diff)
	}
	for _, l := range witness.Lines() {
		if strings.Contains(l, "10.80.") || strings.Contains(l, "table 100") || strings.Contains(l, "10.65.9.") || strings.Contains(l, "metric 2000") {
			t.Errorf("a route of somebody else's was touched: %s", l)
		}
	}
}

// meddleAll breaks something count times and returns how long each repair took,
// by kind.
func (c *cluster) meddleAll(count int) map[string][]time.Duration {
	took := map[string][]time.Duration{}
	want := c.a.snapshot()
	random := rand.New(rand.NewPCG(1, 2))
	for i := range count {
		b := breakages[random.IntN(len(breakages))]
		if i < len(breakages) {
			b = breakages[i]
		}
		took[b.kind] = append(took[b.kind], c.a.meddle(b, want))
		// The next one meets a node at rest, not one in the middle of a repair.
		time.Sleep(50 * time.Millisecond)
	}
	return took
}

// BenchmarkRepair tells how long the kernel is not as wanted after each kind of
// breakage, under traffic, with the time that the commands themselves take.
func BenchmarkRepair(b *testing.B) {
	c, _ := drifter(b)
	stop := c.traffic(b, "10.65.2.1")
	var all []time.Duration
	for kind, took := range c.meddleAll(100 * b.N) {
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)-1])/1e6, kind+"-max-ms")
		all = append(all, took...)
	}
	stop()
	slices.Sort(all)
	for _, p := range []int{50, 99} {
		b.ReportMetric(float64(all[(len(all)-1)*p/100])/1e6, fmt.Sprintf("p%d-ms", p))
	}
	b.ReportMetric(0, "ns/op")
}
