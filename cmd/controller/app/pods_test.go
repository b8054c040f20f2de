package app

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// A server that takes the request for a watch and is silent is asked once, and the
// failure is told: the reflector lists again.
func TestSilentWatchOfPods(t *testing.T) {
	var requests atomic.Int32
	silent := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		requests.Add(1)
		<-silent
	}))
	defer server.Close()
	defer close(silent)
	o, err := NewObjects(&rest.Config{Host: server.URL, Timeout: 100 * time.Millisecond}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if w, err := o.followPods(t.Context(), metav1.ListOptions{}); err == nil {
		t.Errorf("a watch that was not answered is no error: %T", w)
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("requested %d times, want once", n)
	}
}

// What is counted of pods is right after every kind of change.
func TestPodIndexCounts(t *testing.T) {
	pod := func(name, node string, phase corev1.PodPhase, host bool, ips ...string) *corev1.Pod {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
			Spec:       corev1.PodSpec{NodeName: node, HostNetwork: host}, Status: corev1.PodStatus{Phase: phase},
		}
		for _, ip := range ips {
			p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip})
		}
		return p
	}
	x := newPodIndex()
	check := func(step string, has, on bool) {
		t.Helper()
		if x.has(netip.MustParseAddr("10.0.0.1")) != has || x.on("n") != on {
			t.Errorf("%s: has %v, on %v", step, x.has(netip.MustParseAddr("10.0.0.1")), x.on("n"))
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check("empty", false, false)
	do(x.Add(pod("a", "n", corev1.PodPending, false)))
	check("no address yet", false, true)
	do(x.Update(pod("a", "n", corev1.PodRunning, false, "10.0.0.1", "fd00::1")))
	check("running", true, true)
	do(x.Update(pod("a", "n", corev1.PodSucceeded, false, "10.0.0.1")))
	check("finished", false, false)
	do(x.Add(pod("b", "m", corev1.PodRunning, true, "10.0.0.1")))
	do(x.Add(pod("c", "n", corev1.PodRunning, true, "10.0.0.1")))
	check("two on the host's network", true, false)
	do(x.Delete(pod("b", "m", corev1.PodRunning, true)))
	check("one of them", true, false)
	do(x.Replace([]any{pod("a", "n", corev1.PodRunning, false)}, ""))
	check("listed anew", false, true)
	do(x.Delete(pod("a", "n", corev1.PodRunning, false)))
	check("gone", false, false)
	if len(x.having)+len(x.bound)+len(x.rows) != 0 {
		t.Errorf("left over: %v %v %v", x.having, x.bound, x.rows)
	}
}
