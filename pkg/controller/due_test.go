package controller

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/muslin-net/muslin/pkg/model"
)

func TestDue(t *testing.T) {
	clock := now
	g := gone{now: func() time.Time { return clock }}
	s := func(nodes string, owners ...model.NodeName) (out model.Snapshot) {
		for _, n := range nodes {
			out.Nodes = append(out.Nodes, model.Node{Name: model.NodeName(n)})
		}
		for _, n := range owners {
			out.Blocks = append(out.Blocks, model.Block{Node: n})
		}
		return out
	}
	for _, step := range []struct {
		name    string
		after   time.Duration
		s       model.Snapshot
		borrows []model.NodeName
		due     []model.NodeName
		more    bool
	}{
		{"all there", 0, s("ab", "a", "b", "a", ""), []model.NodeName{"a"}, nil, false},
		{"b is missing", 0, s("a", "a", "b", "b"), nil, nil, true},
		{"not yet", goneFor - 1, s("a", "a", "b"), nil, nil, true},
		{"b is due, c is new", 1, s("a", "b", "c"), nil, []model.NodeName{"b"}, true},
		{"b is back", goneFor, s("ab", "b", "c"), nil, []model.NodeName{"c"}, false},
		{"b goes again: from the start", goneFor, s("a", "b"), nil, nil, true},
		{"d has only borrowed", goneFor, s("a"), []model.NodeName{"a", "d"}, nil, true},
		{"and is due", goneFor, s("a"), []model.NodeName{"a", "d"}, []model.NodeName{"d"}, false},
	} {
		clock = clock.Add(step.after)
		g.borrowers = step.borrows
		due, more := g.due(step.s)
		if d := cmp.Diff(step.due, due); d != "" || more != step.more {
			t.Errorf("%s: more %v, want %v; due (-want +got):\n%s", step.name, more, step.more, d)
		}
	}
}

// A node that the server has, or may have, loses nothing.
func TestFreeAsksTheServerFirst(t *testing.T) {
	for name, c := range map[string]struct {
		there bool
		err   error
	}{"it is there": {true, nil}, "nobody knows": {false, errors.New("no answer")}} {
		t.Run(name, func(t *testing.T) {
			g := gone{now: func() time.Time { return now }, exists: func(context.Context, model.NodeName) (bool, error) { return c.there, c.err }}
			got, err := g.free(t.Context(), "n", model.Snapshot{}) // a nil store: any use of it would panic
			if got != (freed{}) || !errors.Is(err, c.err) {
				t.Errorf("%+v %v", got, err)
			}
		})
	}
}
