package gobgp

import (
	"slices"
	"strings"
	"testing"
)

// patched reports whether the GoBGP under test has the patch of that number:
// make test runs with the patches, the go command alone with the release.
func patched(number string) bool {
	return slices.ContainsFunc(patches(), func(name string) bool { return strings.HasPrefix(name, number+"-") })
}

func TestRelease(t *testing.T) {
	got := Release()
	if has := strings.HasSuffix(got, " patches"); has != patched("0001") {
		t.Errorf("release %q, first patch: %v", got, patched("0001"))
	}
}
