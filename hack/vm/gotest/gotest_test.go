package gotest

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What a test binary prints with -test.v=test2json.
const (
	passes = "\x16=== RUN   TestA\n\x16=== RUN   TestA/sub\nword\n\x16--- PASS: TestA/sub (0.00s)\n\x16=== NAME  TestA\n\x16--- PASS: TestA (0.00s)\n\x16=== NAME  \n"
	fails  = "\x16=== RUN   TestB\n    b_test.go:9: why\n\x16--- FAIL: TestB (0.00s)\n\x16=== NAME  \n"
	skips  = "\x16=== RUN   TestC\n\x16--- SKIP: TestC (0.00s)\n\x16=== NAME  \n"
	panics = "\x16=== RUN   TestD\n\x16--- FAIL: TestD (0.00s)\npanic: no\n\ngoroutine 1 [running]:\n"
)

func TestParse(t *testing.T) {
	for name, c := range map[string]struct {
		out  string
		want map[string]string
	}{
		"none":                {"testing: warning: no tests to run\nPASS\n", map[string]string{}},
		"all kinds":           {passes + fails + skips + "FAIL\n", map[string]string{"TestA": "pass", "TestB": "fail", "TestC": "skip"}},
		"panic":               {passes + panics, map[string]string{"TestA": "pass", "TestD": noEnd}},
		"the machine stops":   {passes + "\x16=== RUN   TestE\n", map[string]string{"TestA": "pass", "TestE": noEnd}},
		"nothing was printed": {"", map[string]string{}},
	} {
		t.Run(name, func(t *testing.T) {
			results, _, err := parse(t.Context(), c.out)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for _, r := range results {
				got[r.name] = r.action
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
