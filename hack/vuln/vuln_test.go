package vuln

import (
	"slices"
	"strings"
	"testing"
)

// TestRead: what is about a package counts, once; what is about a module alone does not.
func TestRead(t *testing.T) {
	const reported = `{"config": {"scan_level": "package"}}
{"osv": {"id": "GO-1"}}
{"finding": {"osv": "GO-2", "fixed_version": "v1.26.9", "trace": [{"module": "stdlib", "version": "v1.26.8", "package": "net/http"}]}}
{"finding": {"osv": "GO-1", "trace": [{"module": "example.org/a", "version": "v1.0.0", "package": "example.org/a/b"}]}}
{"finding": {"osv": "GO-1", "trace": [{"module": "example.org/a", "version": "v1.0.0", "package": "example.org/a/b"}]}}
{"finding": {"osv": "GO-3", "fixed_version": "v2.0.0", "trace": [{"module": "example.org/c", "version": "v1.0.0"}]}}`
	found, err := read(strings.NewReader(reported))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range found {
		got = append(got, a.String())
	}
	want := []string{"GO-1: example.org/a/b v1.0.0: no version without it is known", "GO-2: net/http v1.26.8: take v1.26.9"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if _, err := read(strings.NewReader("govulncheck: no such database")); err == nil {
		t.Error("what is no JSON is read")
	}
}

// TestRefuted: an advisory of the list is left out, and a line of the list that says
// nothing any more is an error.
func TestRefuted(t *testing.T) {
	found := []Advisory{{ID: "GO-1"}}
	for id := range Refuted {
		found = append(found, Advisory{ID: id})
	}
	left, err := refute(slices.Clone(found))
	if err != nil || len(left) != 1 || left[0].ID != "GO-1" {
		t.Errorf("%v, %v, want GO-1 alone", left, err)
	}
	if _, err := refute(found[:1]); err == nil {
		t.Error("a line that says nothing is kept")
	}
}
