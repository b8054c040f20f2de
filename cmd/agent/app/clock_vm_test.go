//go:build vmtest

package app_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestClockInACluster has the clock of a guest, with all nodes of a cluster, jump an hour ahead of the API server's, then
// an hour behind it, under pings. Each time a changed pool is followed, pods come and go, and an agent starts anew: no
// ping is lost, and no address is given twice. It changes the machine's clock, so it runs in a guest alone (hack/vm).
func TestClockInACluster(t *testing.T) {
	if os.Getenv(envAPIAt) == "" {
		t.Fatal("this is no guest of hack/vm")
	}
	s := newSpread(t)
	a, c := s.nodes["a"], s.nodes["c"]
	streams := []*unbroken{a.stream(c.podIP), a.stream(c.podIP6), c.stream(a.podIP)}
	used := map[string]string{a.podIP: "a", c.podIP: "c", a.podIP6: "a", c.podIP6: "c"}
	for i, step := range []struct {
		by       time.Duration
		mode     string
		near, to string
		mtu      int
	}{
		{time.Hour, "Always", "tunl0", "tunl0", 1480},
		{-2 * time.Hour, "Never", "eth0", "eth0", 1500},
		{time.Hour, "CrossSubnet", "eth0", "tunl0", 1480},
	} {
		turnClock(t, step.by)
		s.must("PATCH", "/apis/projectcalico.org/v3/ippools/pods", `{"spec":{"ipipMode":"`+step.mode+`"}}`)
		for _, m := range s.mine {
			began := time.Now()
			s.await(m.name+" follows ipipMode "+step.mode, func() string { return s.wrong(m, step.near, step.to, step.mtu) })
			t.Logf("the clock jumped by %s: %s follows ipipMode %s after %s", step.by, m.name, step.mode, time.Since(began))
			s.pass(m, fmt.Sprintf("next-%d-%s", i, m.name), used)
		}
		a.kill()
		a.launchAgent()
		a.awaitReady()
		for _, p := range streams {
			p.check()
		}
	}
}

// turnClock sets the machine's clock.
func turnClock(t *testing.T, by time.Duration) {
	t.Helper()
	now := unix.NsecToTimespec(time.Now().Add(by).UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &now); err != nil {
		t.Fatal(err)
	}
}

// pass has a pod come to a node, be reached, and go. Its addresses are nobody's, of those that have one.
func (s *spread) pass(m *member, name string, used map[string]string) {
	s.t.Helper()
	s.must("POST", "/api/v1/namespaces/default/pods",
		fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q,"namespace":"default"},"spec":{"nodeName":%q,"containers":[{"name":"c","image":"none"}]}}`, name, m.name))
	pod, ip, ip6 := m.pod, m.podIP, m.podIP6
	m.pod = makeNamespaces(s.t, 1)[0]
	m.attach(name, name)
	for _, address := range []string{m.podIP, m.podIP6} {
		if owner, given := used[address]; given {
			s.t.Errorf("%s has the address of %s, %s", name, owner, address)
		}
	}
	s.await(name+" reaches a pod of its node", func() string {
		out, err := m.inPod("ping", "-c", "1", "-W", "5", ip).CombinedOutput()
		if err != nil {
			return string(out)
		}
		return ""
	})
	if out, err := m.cni("DEL", name, name, m.netnsOfPod()); err != nil {
		s.t.Errorf("DEL of %s: %v: %s", name, err, out)
	}
	m.pod, m.podIP, m.podIP6 = pod, ip, ip6
	s.must("DELETE", "/api/v1/namespaces/default/pods/"+name+"?gracePeriodSeconds=0", "")
}
