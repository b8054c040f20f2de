package reconcile

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type table = map[string]int

type entries = []Entry[string, int]

func TestDiff(t *testing.T) {
	for name, c := range map[string]struct {
		have, want table
		diff       Delta[string, int]
	}{
		"nothing":      {nil, nil, Delta[string, int]{}},
		"equal":        {table{"a": 1, "b": 2}, table{"a": 1, "b": 2}, Delta[string, int]{}},
		"from nothing": {nil, table{"b": 2, "a": 1}, Delta[string, int]{Add: entries{{"a", 1}, {"b", 2}}}},
		"to nothing":   {table{"b": 2, "a": 1}, nil, Delta[string, int]{Remove: entries{{"a", 1}, {"b", 2}}}},
		"all at once": {
			table{"gone": 1, "kept": 2, "other": 3, "also gone": 4}, table{"kept": 2, "other": 4, "new": 5},
			Delta[string, int]{Add: entries{{"new", 5}}, Change: entries{{"other", 4}}, Remove: entries{{"also gone", 4}, {"gone", 1}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := Diff(c.have, c.want, func(a, b int) bool { return a == b }, strings.Compare)
			if diff := cmp.Diff(c.diff, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
