// Package gotest runs tests of other packages on the second kernel of package
// vm and makes their results those of the calling test.
//
// It never counts what did not run: no matching test is a failure, and so is a
// skipped one. Footprint: that of package vm, and test binaries in a temporary
// directory.
package gotest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/hack/vm"
)

// Suite says which tests of a package to run.
type Suite struct {
	Package string // import path
	Tests   string // regular expression, as for go test -run; empty: all
	Tags    string // build tags, separated by commas

	binary, dir string // once built
}

// Build builds the package's tests, for a suite that several guests run.
func Build(t *testing.T, s Suite) Suite {
	t.Helper()
	var err error
	if s.binary, s.dir, err = build(t.Context(), s, filepath.Join(t.TempDir(), "package.test")); err != nil {
		t.Fatal(err)
	}
	return s
}

// result is how one test of the guest ended.
type result struct {
	name   string
	action string // pass, fail, skip, or noEnd
	output string
}

// noEnd is the action of a test that panicked, or whose process did.
const noEnd = "no end"

// Run builds the packages' test binaries, runs them one after the other in one
// virtual machine, each in its package's directory, and reports each test as a
// subtest of t. All of them together may take so long in the guest. Of the
// options, Dir and Notes are set here.
func Run(t *testing.T, limit time.Duration, o vm.Options, suites ...Suite) {
	t.Helper()
	var script strings.Builder
	for _, s := range suites {
		if s.binary == "" {
			s = Build(t, s)
		}
		fmt.Fprintf(&script, "cd '%s' && '%s' -test.v=test2json -test.run='%s' -test.timeout=%s; ", s.dir, s.binary, s.Tests, limit)
		fmt.Fprintf(&script, "printf '\\n%s%%s\\n' $?\n", suiteEnd)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit+2*time.Minute)
	defer cancel()
	o.Dir, o.Notes = "/", t.Output()
	o.Env = append([]string{"GOGC=400"}, o.Env...) // less collection: each instruction is dear
	out, _, err := vm.Run(ctx, o, "sh", "-c", script.String())
	if err != nil {
		t.Fatalf("%v; printed so far:\n%s", err, out)
	}
	for _, s := range suites {
		var printed, status string
		printed, rest, _ := strings.Cut(string(out), "\n"+suiteEnd)
		status, rest, _ = strings.Cut(rest, "\n")
		out = []byte(rest)
		t.Run(s.Package[strings.LastIndex(s.Package, "/")+1:], func(t *testing.T) { evaluate(t, s, printed, status) })
	}
}

// suiteEnd is before the exit status of each package's tests.
const suiteEnd = "muslin-gotest ended: "

// evaluate reports what a package's tests printed, and their exit status.
func evaluate(t *testing.T, s Suite, printed, status string) {
	t.Helper()
	results, rest, err := parse(t.Context(), printed)
	if err != nil {
		t.Fatal(err)
	}
	if len(results) == 0 {
		t.Fatalf("no test of %s matches %q; exit status %s:\n%s", s.Package, s.Tests, status, rest)
	}
	report(t, results)
	if status != "0" {
		t.Errorf("%s: exit status %s\n%s", s.Package, status, rest)
	}
}

func report(t *testing.T, results []result) {
	for _, r := range results {
		t.Run(r.name, func(t *testing.T) {
			fmt.Fprint(t.Output(), r.output)
			switch r.action {
			case "pass":
			case "skip":
				t.Error("skipped on a kernel that was started for it")
			default:
				t.Errorf("ended with %q", r.action)
			}
		})
	}
}

// build makes the test binary and returns it and the directory of the package's
// sources.
func build(ctx context.Context, s Suite, file string) (binary, dir string, err error) {
	list, err := exec.CommandContext(ctx, "go", "list", "-tags="+s.Tags, "-f={{.Dir}}", s.Package).Output()
	if err != nil {
		return "", "", fmt.Errorf("find package %s: %w", s.Package, err)
	}
	out, err := exec.CommandContext(ctx, "go", "test", "-c", "-tags="+s.Tags, "-ldflags=-s -w", "-o", file, s.Package).CombinedOutput()
	if err != nil {
		return "", "", fmt.Errorf("build tests of %s: %w: %s", s.Package, err, out)
	}
	return file, strings.TrimSpace(string(list)), nil
}

// event is a line of go tool test2json.
type event struct{ Action, Test, Output string }

// parse collects the top level tests, in the order of their ends, and what was
// printed outside any.
func parse(ctx context.Context, out string) (results []result, rest string, err error) {
	convert := exec.CommandContext(ctx, "go", "tool", "test2json")
	convert.Stdin = strings.NewReader(out)
	converted, err := convert.Output()
	if err != nil {
		return nil, "", fmt.Errorf("read test results: %w", err)
	}
	printed := map[string]*strings.Builder{}
	var begun []string
	ended := map[string]bool{}
	decoder := json.NewDecoder(strings.NewReader(string(converted)))
	for {
		var e event
		if err := decoder.Decode(&e); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, "", fmt.Errorf("read test results: %w", err)
		}
		top, _, sub := strings.Cut(e.Test, "/")
		if printed[top] == nil {
			printed[top] = &strings.Builder{}
		}
		printed[top].WriteString(e.Output)
		switch {
		case top == "" || sub:
		case e.Action == "run":
			begun = append(begun, top)
		case e.Action == "pass" || e.Action == "fail" || e.Action == "skip":
			results = append(results, result{top, e.Action, printed[top].String()})
			ended[top] = true
		}
	}
	for _, top := range begun {
		if !ended[top] { // a panic, or the end of the machine
			results = append(results, result{top, noEnd, printed[top].String()})
		}
	}
	if printed[""] != nil {
		rest = printed[""].String()
	}
	return results, rest, nil
}
