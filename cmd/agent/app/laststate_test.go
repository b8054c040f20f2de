package app

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/selector"
)

// filled gives every field of a value something, as deep as it goes.
func filled(t *testing.T, v reflect.Value) {
	t.Helper()
	rack, err := selector.Parse(`rack == "r1"`)
	if err != nil {
		t.Fatal(err)
	}
	switch v.Interface().(type) {
	case netip.Addr:
		v.Set(reflect.ValueOf(netip.MustParseAddr("2001:db8::1")))
		return
	case netip.Prefix:
		v.Set(reflect.ValueOf(netip.MustParsePrefix("192.0.2.0/24")))
		return
	case model.Secret:
		v.Set(reflect.ValueOf(model.NewSecret("s3cret")))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			filled(t, v.Field(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		filled(t, v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		filled(t, v.Index(0))
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		filled(t, key)
		filled(t, value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Interface:
		v.Set(reflect.ValueOf(rack))
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		v.SetUint(7)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(7)
	default:
		t.Fatalf("nothing to fill a %s with", v.Type())
	}
}

// TestStateOnDisk: every field of a snapshot comes back, passwords too, out of a
// file that is root's alone.
func TestStateOnDisk(t *testing.T) {
	var want model.Snapshot
	filled(t, reflect.ValueOf(&want).Elem())
	path := filepath.Join(t.TempDir(), "muslin", "last-state.json")
	now := time.Unix(1_800_000_000, 0).UTC()
	text, sum, err := encodeState(want, "n1", now)
	if err != nil {
		t.Fatal(err)
	}
	if _, later, _ := encodeState(want, "n1", now.Add(time.Hour)); later != sum {
		t.Error("the same state at another time is another")
	}
	for range 2 {
		if err := writeState(path, text); err != nil {
			t.Fatal(err)
		}
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
	got, err := readState(path, "n1", now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	want.Synced, want.Namespaces = false, nil
	if d := cmp.Diff(want, got.Snapshot, cmp.Comparer(func(a, b model.Selector) bool { return a.String() == b.String() }),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmp.Comparer(func(a, b model.Secret) bool { return a.Equal(b) })); d != "" || !got.Time.Equal(now) {
		t.Errorf("%s (-want +got):\n%s", got.Time, d)
	}
	if want.Pools[0].NodeSelector == nil {
		t.Error("the snapshot was written to")
	}
}

// TestStateThatIsNotUsed: what is broken, old, of another node or format is left
// alone, and said; so is that there is none.
func TestStateThatIsNotUsed(t *testing.T) {
	for name, c := range map[string]struct{ text, says string }{
		"none":         {"", "no such file"},
		"cut off":      {`{"Format": 1, "Node": "n1", "Ti`, "cannot be read"},
		"other format": {`{"Format": 2, "Node": "n1"}`, "has format 2"},
		"other node":   {`{"Format": 1, "Node": "n2"}`, "is of node n2"},
		"old":          {`{"Format": 1, "Node": "n1", "Time": "2020-01-01T00:00:00Z"}`, "too long ago"},
		"selector":     {`{"Format": 1, "Node": "n1", "Time": "2099-01-01T00:00:00Z", "Snapshot": {"Pools": [{"Name": "p"}]}, "Selectors": {"IPPool p nodes": "a =="}}`, "selector of IPPool p nodes"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "last-state.json")
			if c.text != "" {
				if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			l := newLastState(path, "n1", slog.New(slog.DiscardHandler))
			l.use()
			if l.inForce.Value() != nil {
				t.Error("it is in force")
			}
			if p := l.problems.get(); len(p) != 1 || p[0].Reason != "NoLastState" || !strings.Contains(p[0].Message, c.says) {
				t.Errorf("problems: %v", p)
			}
		})
	}
}

// TestBlocksWithoutPodsAreNotAnnounced: a block of before may be another node's by
// now, unless a running pod has an address of it; an address without a known block
// is announced by itself.
func TestBlocksWithoutPodsAreNotAnnounced(t *testing.T) {
	a := netip.MustParsePrefix
	s := model.Snapshot{
		Blocks:   []model.Block{{CIDR: a("10.0.0.0/26"), Node: "n1"}, {CIDR: a("10.0.0.64/26"), Node: "n1"}, {CIDR: a("10.0.0.128/26"), Node: "n2"}},
		Borrowed: []netip.Prefix{a("10.0.1.1/32"), a("10.0.1.2/32")},
	}
	s.Pools = []model.Pool{{CIDR: a("10.0.0.0/16")}}
	ip := netip.MustParseAddr
	got := ofPods(s, "n1", []netip.Addr{ip("10.0.0.65"), ip("10.0.1.2"), ip("10.0.2.7"), ip("192.0.2.1")})
	if len(got.Blocks) != 2 || got.Blocks[0].CIDR != a("10.0.0.64/26") || got.Blocks[1].Node != "n2" || !slices.Equal(got.Borrowed, []netip.Prefix{a("10.0.1.2/32"), a("10.0.2.7/32")}) {
		t.Errorf("%+v", got)
	}
	if len(s.Blocks) != 3 {
		t.Error("the state itself was changed")
	}
}
