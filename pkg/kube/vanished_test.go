package kube

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/muslin-net/muslin/pkg/model"
)

func TestVanishedPoolsCountOn(t *testing.T) {
	a := model.Pool{Name: "a", CIDR: netip.MustParsePrefix("10.1.0.0/16"), BlockSize: 26}
	b := model.Pool{Name: "b", CIDR: netip.MustParsePrefix("10.2.0.0/16"), BlockSize: 26}
	anew := model.Pool{Name: "c", CIDR: netip.MustParsePrefix("10.1.128.0/17"), BlockSize: 24}
	goes := func(p model.Pool) model.Pool { p.Deleting = true; return p }
	steps := []struct {
		name  string
		after time.Duration // since the step before
		live  []model.Pool
		want  []model.Pool
		wakes time.Duration // 0: never
	}{
		{"both", 0, []model.Pool{a, b}, []model.Pool{a, b}, 0},
		{"one goes", 0, []model.Pool{b}, []model.Pool{goes(a), b}, poolGrace},
		{"it counts", poolGrace / 2, []model.Pool{b}, []model.Pool{goes(a), b}, poolGrace / 2},
		{"and is forgotten", poolGrace / 2, []model.Pool{b}, []model.Pool{b}, 0},
		{"the last goes", 0, nil, []model.Pool{goes(b)}, 0},
		{"and counts while there is none", 10 * poolGrace, nil, []model.Pool{goes(b)}, 0},
		{"until there is one", 0, []model.Pool{a}, []model.Pool{a}, 0},
		{"one that is replaced", 0, []model.Pool{anew}, []model.Pool{anew}, 0},
		{"one that comes back", 0, nil, []model.Pool{goes(anew)}, 0},
		{"is itself", 0, []model.Pool{anew}, []model.Pool{anew}, 0},
	}
	v, now := vanished{gone: map[string]gonePool{}}, time.Unix(1e9, 0)
	for _, s := range steps {
		now = now.Add(s.after)
		got, next := v.with(s.live, now)
		if diff := cmp.Diff(s.want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", s.name, diff)
		}
		if wakes := max(0, next.Sub(now)); wakes != s.wakes {
			t.Errorf("%s: asks again after %v, want %v", s.name, wakes, s.wakes)
		}
	}
}
