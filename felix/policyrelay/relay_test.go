package policyrelay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/kube/kubetest"
	"github.com/muslin-net/muslin/pkg/model"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	authentication "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

var server *kubetest.Server

func TestMain(m *testing.M) {
	os.Exit(kubetest.Main(m, func(s *kubetest.Server) { server = s }))
}

const limit = 2 * time.Minute

// eventually waits until is is true.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// testCluster has what relays and agents need of the API server.
func testCluster(t *testing.T) *Directory {
	t.Helper()
	objects := `apiVersion: v1
kind: Namespace
metadata: {name: muslin-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: muslin-agent, namespace: muslin-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: other, namespace: muslin-system}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: muslin-relay, namespace: muslin-system}
data: {unreadable: "{"}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
`
	server.MustKubectl(t, objects, "apply", "-f", "-")
	d, err := NewDirectory(server.Config(), slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// token is one of a pod of an account on a node; without a node it is bound to nothing.
func token(t *testing.T, account, node, audience string) string {
	t.Helper()
	client, err := corev1client.NewForConfig(server.Config())
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	request := &authentication.TokenRequest{}
	if audience != "" {
		request.Spec.Audiences = []string{audience}
	}
	if node != "" {
		pods := client.Pods("muslin-system")
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: account + "-" + node},
			Spec:       corev1.PodSpec{NodeName: node, ServiceAccountName: account, Containers: []corev1.Container{{Name: "c", Image: "none"}}},
		}
		if _, err := pods.Create(ctx, p, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
		if p, err = pods.Get(ctx, p.Name, metav1.GetOptions{}); err != nil {
			t.Fatal(err)
		}
		request.Spec.BoundObjectRef = &authentication.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID}
	}
	out, err := client.ServiceAccounts("muslin-system").CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return out.Status.Token
}

// replica serves x; it is what a Directory says of it, and how it ends.
func replica(t *testing.T, x *Index) (Replica, func()) {
	t.Helper()
	review, err := Reviewer(server.Config())
	if err != nil {
		t.Fatal(err)
	}
	cert, text, err := NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, &Server{Index: x, Certificate: cert, Review: review, Logger: slog.Default()}, text)
}

// A connection lives on when a packet is lost while nothing is said: TCP's keepalives are off, of
// which one that is lost would end it after TCP_USER_TIMEOUT.
func TestNoKeepaliveOfTheKernel(t *testing.T) {
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	raw, err := far.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	on, failed := 0, error(nil)
	if err := errors.Join(raw.Control(func(fd uintptr) { on, failed = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE) }), failed); err != nil || on != 0 {
		t.Errorf("SO_KEEPALIVE is %d, %v", on, err)
	}
}

func serve(t testing.TB, s *Server, certificate string) (Replica, func()) {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	stop := func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		done <- nil
	}
	t.Cleanup(stop)
	return Replica{Address: l.Addr().String(), Certificate: certificate, Since: time.Now()}, stop
}

func webPods(n int) model.PolicyView {
	v := model.PolicyView{Synced: true, Revision: 1, Namespaces: map[string]map[string]string{"a": nil}}
	var list []*model.PolicyPod
	for i := range n {
		list = append(list, &model.PolicyPod{
			Namespace: "a", Name: fmt.Sprint("web-", i), Node: "n9", Labels: map[string]string{"app": "web"},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})},
		})
	}
	v.Pods = model.SortedOf(list)
	return v
}

var webNeed = policy.Need{Selector: `app == "web"`}

// run runs a client; the function ends it.
func run(t testing.TB, c *Client) func() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, func() {}) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestAgentFollowsReplicas finds relays in the ConfigMap, moves to the other one when
// one ends, and keeps what it has, on disk too, when there is none.
func TestAgentFollowsReplicas(t *testing.T) {
	d := testCluster(t)
	x := NewIndex()
	x.Update(webPods(30))
	ctx, cancel := context.WithCancel(context.Background())
	published := make(chan error, 2)
	stops := map[string]func(){}
	for _, name := range []string{"one", "two"} {
		r, stop := replica(t, x)
		stops[name] = stop
		go func() { published <- d.Publish(ctx, name, r) }()
	}
	eventually(t, "both replicas are found", func() bool {
		found, err := d.Replicas(context.Background())
		return err == nil && len(found) == 2
	})
	text := token(t, "muslin-agent", "n1", Audience)
	file := filepath.Join(t.TempDir(), "view")
	c := &Client{Node: "n1", Replicas: d.Replicas, Token: func() (string, error) { return text, nil }, File: file, Logger: slog.Default()}
	end := run(t, c)
	c.Need([]policy.Need{webNeed})
	has := func(n int) func() bool {
		return func() bool {
			v, _ := c.View()
			return v.Known[webNeed] && v.Pods.Len() == n && v.Lost.IsZero()
		}
	}
	eventually(t, "30 pods are there", has(30))
	stops["one"]()
	x.Update(webPods(31))
	eventually(t, "the other replica tells of one more", has(31))
	stops["two"]()
	eventually(t, "nobody answers, and the view is kept", func() bool {
		v, _ := c.View()
		return !v.Lost.IsZero() && v.Err != nil && v.Pods.Len() == 31 && v.Known[webNeed]
	})
	unknown := policy.Need{Port: "late"}
	c.Need([]policy.Need{unknown, webNeed})
	eventually(t, "what is needed since is not known", func() bool {
		v, _ := c.View()
		return v.Known[webNeed] && !v.Known[unknown]
	})
	end()
	if err := writeView(file, c.receiver, newMoment()); err != nil {
		t.Fatal(err)
	}
	again := &Client{Node: "n1", Replicas: d.Replicas, Token: c.Token, File: file, Logger: slog.Default()}
	end = run(t, again) // what is needed the agent finds out while it runs
	outlives := func() bool {
		v, _ := again.View()
		return v.Known[webNeed] && v.Pods.Len() == 31
	}
	eventually(t, "the view outlives the agent", outlives)
	again.Need([]policy.Need{webNeed})
	eventually(t, "no relay is there for the next one either", func() bool { v, _ := again.View(); return !v.Lost.IsZero() })
	if !outlives() {
		t.Error("the view does not outlive the first try")
	}
	end()
	if _, err := readView(file, "n2", newMoment()); err == nil {
		t.Error("the view of one node is read by another")
	}
	late, put := newMoment(), newMoment()
	late.since += 2 * storedAge
	if _, err := readView(file, "n1", late); err == nil {
		t.Error("an old view is believed")
	}
	put.wall += int64(2 * storedAge / time.Second)
	if _, err := readView(file, "n1", put); err != nil {
		t.Errorf("a view is not believed since the clock was put forward: %v", err)
	}
	cancel()
	for range 2 {
		if err := <-published; err != nil {
			t.Error(err)
		}
	}
	if left, err := d.Replicas(context.Background()); err != nil || len(left) != 0 {
		t.Errorf("after both have ended: %v %v", left, err)
	}
}

// TestRelayAnswersTheNodeOfTheToken, and nobody else.
func TestRelayAnswersTheNodeOfTheToken(t *testing.T) {
	testCluster(t)
	x := NewIndex()
	x.Update(webPods(1))
	r, _ := replica(t, x)
	for name, c := range map[string]struct {
		token, node string
		code        codes.Code
	}{
		"its own node":         {token(t, "muslin-agent", "n1", Audience), "n1", codes.OK},
		"another node":         {token(t, "muslin-agent", "n1", Audience), "n2", codes.PermissionDenied},
		"for the API server":   {token(t, "muslin-agent", "n1", ""), "n1", codes.Unauthenticated},
		"bound to no node":     {token(t, "muslin-agent", "", Audience), "n1", codes.PermissionDenied},
		"of another account":   {token(t, "other", "n1", Audience), "n1", codes.PermissionDenied},
		"nobody's":             {"x", "n1", codes.Unauthenticated},
		"none":                 {"", "n1", codes.Unauthenticated},
		"of no node and named": {token(t, "muslin-agent", "", Audience), "", codes.PermissionDenied},
	} {
		t.Run(name, func(t *testing.T) {
			a := &Client{Node: model.NodeName(c.node), Token: func() (string, error) { return c.token, nil }, Logger: slog.Default()}
			a.receiver = newReceiver(a.Node)
			a.Need([]policy.Need{webNeed})
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			failed := make(chan error, 1)
			go func() {
				_, err := a.follow(ctx, r)
				failed <- err
			}()
			if c.code == codes.OK {
				eventually(t, "it is answered", func() bool { v, _ := a.View(); return v.Known[webNeed] })
				cancel()
				<-failed
				return
			}
			if err := <-failed; status.Code(err) != c.code {
				t.Errorf("got %v, want %s", err, c.code)
			}
			if v, _ := a.View(); v.Pods.Len() > 0 || len(v.Known) > 0 {
				t.Errorf("it has %+v", v)
			}
		})
	}
}

// TestAnotherCertificateIsRefused: a token goes to nobody but the relay that the
// ConfigMap names.
func TestAnotherCertificateIsRefused(t *testing.T) {
	x := NewIndex()
	cert, _, err := NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	r, _ := serve(t, &Server{Index: x, Certificate: cert, Logger: slog.Default(), Review: func(context.Context, string) (model.NodeName, error) {
		t.Error("a token came")
		return "n1", nil
	}}, other)
	c := &Client{Node: "n1", Token: func() (string, error) { return "secret", nil }, Logger: slog.Default()}
	c.receiver = newReceiver("n1")
	c.Need([]policy.Need{webNeed})
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if _, err := c.follow(ctx, r); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v", err)
	}
	if _, err := (Replica{Certificate: "none"}).trust(); err == nil {
		t.Error("a replica without a certificate is trusted")
	}
}
