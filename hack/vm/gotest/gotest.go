// Package gotest runs tests of another package on the second kernel of package
// vm and makes their results those of the calling test.
//
// It never counts what did not run: no matching test is a failure, and so is a
// skipped one. Footprint: that of package vm, and a test binary in a temporary
// directory.
package gotest

import (
	"cmp"
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

// Options say which tests to run.
type Options struct {
	Package string        // import path
	Tests   string        // regular expression, as for go test -run
	Tags    string        // build tags, separated by commas
	Timeout time.Duration // of the tests in the guest; 0: 5 min
}

// result is how one test of the guest ended.
type result struct {
	name   string
	action string // pass, fail, skip, or noEnd
	output string
}

// noEnd is the action of a test that panicked, or whose process did.
const noEnd = "no end"

// Run builds the package's test binary, runs it in a virtual machine in the
// package's directory and reports each of its tests as a subtest of t.
func Run(t *testing.T, o Options) {
	t.Helper()
	binary, dir, err := build(t.Context(), o, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	limit := cmp.Or(o.Timeout, 5*time.Minute)
	ctx, cancel := context.WithTimeout(t.Context(), limit+2*time.Minute)
	defer cancel()
	out, status, err := vm.Run(ctx, vm.Options{Dir: dir, Notes: t.Output()},
		binary, "-test.v=test2json", "-test.run="+o.Tests, "-test.timeout="+limit.String())
	if err != nil {
		t.Fatalf("%v; printed so far:\n%s", err, out)
	}
	results, rest, err := parse(t.Context(), out)
	if err != nil {
		t.Fatal(err)
	}
	if len(results) == 0 {
		t.Fatalf("no test of %s matches %q; exit status %d:\n%s", o.Package, o.Tests, status, rest)
	}
	report(t, results)
	if status != 0 {
		t.Errorf("%s: exit status %d\n%s", o.Package, status, rest)
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
func build(ctx context.Context, o Options, temp string) (binary, dir string, err error) {
	list, err := exec.CommandContext(ctx, "go", "list", "-tags="+o.Tags, "-f={{.Dir}}", o.Package).Output()
	if err != nil {
		return "", "", fmt.Errorf("find package %s: %w", o.Package, err)
	}
	binary = filepath.Join(temp, "package.test")
	out, err := exec.CommandContext(ctx, "go", "test", "-c", "-tags="+o.Tags, "-o", binary, o.Package).CombinedOutput()
	if err != nil {
		return "", "", fmt.Errorf("build tests of %s: %w: %s", o.Package, err, out)
	}
	return binary, strings.TrimSpace(string(list)), nil
}

// event is a line of go tool test2json.
type event struct{ Action, Test, Output string }

// parse collects the top level tests, in the order of their ends, and what was
// printed outside any.
func parse(ctx context.Context, out []byte) (results []result, rest string, err error) {
	convert := exec.CommandContext(ctx, "go", "tool", "test2json")
	convert.Stdin = strings.NewReader(string(out))
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
