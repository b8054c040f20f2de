package kube

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// script is what an API server has, and what of it a watch has not delivered yet.
type script struct {
	r         *rand.Rand
	part      *partial[knownPolicy]
	version   int
	objects   map[string]int // version by key
	queue     []int          // versions that are to be delivered
	log       map[int]step
	requested map[string]pending // lists of a namespace that are under way
	first     bool
}

// step is one change: of is 0 if the object goes.
type step struct {
	key string
	of  int
}

type pending struct {
	space   *space
	objects []any
	version int
}

var spacesOfScript = []string{"a", "b", "c"}

func object3(key string, version int) *networking.NetworkPolicy {
	namespace, name, _ := strings.Cut(key, "/")
	return &networking.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Generation: int64(version), ResourceVersion: strconv.Itoa(version)}}
}

func (s *script) change() {
	key := spacesOfScript[s.r.IntN(3)] + "/" + strconv.Itoa(s.r.IntN(3))
	s.version++
	if _, there := s.objects[key]; there && s.r.IntN(2) == 0 {
		delete(s.objects, key)
		s.log[s.version] = step{key, 0}
	} else {
		s.objects[key] = s.version
		s.log[s.version] = step{key, s.version}
	}
	s.queue = append(s.queue, s.version)
}

func (s *script) deliver(t *testing.T) {
	if len(s.queue) == 0 {
		return
	}
	e := s.log[s.queue[0]]
	s.queue = s.queue[1:]
	err := s.part.Update(object3(e.key, max(e.of, 1)))
	if e.of == 0 {
		err = s.part.Delete(object3(e.key, 1))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (s *script) all(of string) (out []any) {
	for _, key := range slices.Sorted(maps.Keys(s.objects)) {
		if of == "" || strings.HasPrefix(key, of+"/") {
			out = append(out, object3(key, s.objects[key]))
		}
	}
	return out
}

func (s *script) want() {
	names := map[string]bool{}
	for _, n := range spacesOfScript {
		if s.r.IntN(2) == 0 {
			names[n] = true
		}
	}
	s.part.mu.Lock()
	s.part.want(names)
	s.part.mu.Unlock()
}

// list begins to list a namespace, or ends what was begun.
func (s *script) list(t *testing.T) {
	for _, name := range s.part.unlisted() {
		if s.r.IntN(2) == 0 {
			s.requested[name] = pending{s.part.request(name), s.all(name), s.version}
		}
	}
	for name, a := range s.requested {
		if s.r.IntN(2) == 0 {
			delete(s.requested, name)
			if err := s.part.take(name, a.space, a.objects, uint64(a.version)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// relist is a whole list, during which everything else may happen; the watch goes on
// from there.
func (s *script) relist(t *testing.T) {
	transform := s.part.Transformer()
	version, list := s.version, s.all("")
	for i := range list {
		var err error
		if list[i], err = transform(list[i]); err != nil {
			t.Fatal(err)
		}
		switch s.r.IntN(6) {
		case 0:
			s.want()
		case 1:
			s.change()
		case 2:
			if s.first {
				s.list(t)
			}
		}
	}
	if err := s.part.Replace(list, strconv.Itoa(version)); err != nil {
		t.Fatal(err)
	}
	s.first = true
	s.queue = nil
	for v := version + 1; v <= s.version; v++ {
		s.queue = append(s.queue, v)
	}
}

// check compares what nobody has changed since the watch's last event, in namespaces that
// are there: it is never missing, and never back.
func (s *script) check(t *testing.T) {
	t.Helper()
	last := map[string]int{}
	for version, e := range s.log {
		last[e.key] = max(last[e.key], version)
	}
	for key, version := range last {
		namespace, _, _ := strings.Cut(key, "/")
		if !s.part.has(namespace) || len(s.queue) > 0 && version >= s.queue[0] {
			continue
		}
		want, there := s.objects[key]
		if r, have := s.part.rows[key]; have != there || int(r.meta.Generation) != want {
			t.Fatalf("%s is %t of version %d, and was %t of version %d from before the last event", key, have, r.meta.Generation, there, want)
		}
	}
}

func (s *script) settle(t *testing.T) {
	for range 100 {
		s.list(t)
		s.deliver(t)
	}
	for len(s.queue) > 0 {
		s.deliver(t)
	}
	want, others := map[string]int{}, 0
	for key, version := range s.objects {
		if namespace, _, _ := strings.Cut(key, "/"); s.part.spaces[namespace] != nil {
			want[key] = version
		} else {
			others++
		}
	}
	got := map[string]int{}
	for key, r := range s.part.rows {
		got[key] = int(r.meta.Generation)
	}
	if !maps.Equal(got, want) || len(s.part.others) != others {
		t.Fatalf("kept %v and %d others; there is %v and %d", got, len(s.part.others), want, others)
	}
	for name, of := range s.part.spaces {
		if !of.listed || of.due {
			t.Fatalf("namespace %s is %+v", name, of)
		}
	}
}

// However lists, the watch and what is wanted come between each other, in the end what is
// there is what the server has.
func TestPartial(t *testing.T) {
	for seed := range uint64(300) {
		c, err := New(&rest.Config{Host: "https://192.0.2.1"}, Options{Node: "n1", Policy: true, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		s := &script{r: rand.New(rand.NewPCG(seed, 0)), part: c.policies.parts[0], objects: map[string]int{}, log: map[int]step{}, requested: map[string]pending{}}
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s.relist(t)
			for range 20 {
				for range s.r.IntN(12) {
					switch s.r.IntN(8) {
					case 0:
						s.want()
					case 1, 2:
						s.change()
					case 3, 4:
						s.deliver(t)
					case 5, 6:
						s.list(t)
					default:
						s.relist(t)
					}
					s.check(t)
				}
				s.settle(t)
			}
		})
	}
}

// A namespace's policies are there once those of both kinds are, and no longer than its
// last pod.
func TestWholeNamespaces(t *testing.T) {
	c, err := New(&rest.Config{Host: "https://192.0.2.1"}, Options{Node: "n1", Policy: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	p := &c.policies
	is := func(want bool, when string) {
		t.Helper()
		if v := c.PolicyView(); v.Of["a"] != want {
			t.Errorf("%s: %v", when, v.Of)
		}
	}
	is(false, "before anybody wants it")
	if err := c.pods.Add(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "x"}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	pod, waited := Pod{Namespace: "a", Node: "n1"}, make(chan error, 1)
	cancel()
	if err := c.AwaitPolicies(ctx, pod); err == nil || !strings.Contains(err.Error(), "namespace a ") {
		t.Errorf("who waited: %v", err)
	}
	go func() { waited <- c.AwaitPolicies(t.Context(), pod) }()
	for i, when := range []string{"Calico's lack", "all are there"} {
		if err := p.parts[i].Replace(nil, "1"); err != nil {
			t.Fatal(err)
		}
		is(i == 1, when)
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
	if err := c.pods.Delete(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "x"}}); err != nil {
		t.Fatal(err)
	}
	is(false, "without a pod")
}

// Of a kind that the server does not have the namespaces are there, too.
func TestPartOfAnAbsentKind(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	c, err := New(&rest.Config{Host: server.URL}, Options{Node: "n1", Policy: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.pods.Replace([]any{&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "x"}, Spec: corev1.PodSpec{NodeName: "n1"}}}, "1"); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { defer close(done); _ = c.Run(ctx) }()
	if err := c.AwaitPolicies(t.Context(), Pod{Namespace: "a", Node: "n1"}); err != nil {
		t.Error(err)
	}
	cancel()
	<-done
}
