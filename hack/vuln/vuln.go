// Package vuln looks the programs up in Go's database of vulnerabilities: govulncheck
// over every package that they import, by the plain go.mod, with the standard library of
// the toolchain that go.mod names.
//
// The database is a module, golang.org/x/vulndb, and comes as other modules do. What it
// says and what is not so is in Refuted, with the reason.
//
// Footprint: the module cache. It changes nothing.
package vuln

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Refuted says of advisories why they are not so, by id.
var Refuted = map[string]string{
	"GO-2026-4736": "GoBGP has mended it in v4.4.0, and the database names no version; bgp/gobgp.TestMalformedAttributes sends such a NEXT_HOP",
}

// Advisory is one that is about a package which is imported.
type Advisory struct {
	ID, Package    string
	Version, Fixed string // that is used, and the first without it; no Fixed: none is known
}

func (a Advisory) String() string {
	fixed := "no version without it is known"
	if a.Fixed != "" {
		fixed = "take " + a.Fixed
	}
	return fmt.Sprintf("%s: %s %s: %s", a.ID, a.Package, a.Version, fixed)
}

// Options say what is looked up, and in what.
type Options struct {
	Root     string   // of the module
	Packages []string // as for go list
	Version  string   // of the database, as in golang.org/x/vulndb@latest
}

// Check gives the advisories that hold, sorted by id. One of Refuted that the database
// does not have any more is an error: its line can go.
func Check(ctx context.Context, o Options) ([]Advisory, error) {
	db, err := database(ctx, o)
	if err != nil {
		return nil, err
	}
	argv := append([]string{"tool", "-modfile=" + filepath.Join(o.Root, "hack/tools/vuln/go.mod"), "govulncheck", "-scan", "package", "-format", "json", "-db", "file://" + db}, o.Packages...)
	out, err := output(ctx, o.Root, argv...)
	if err != nil {
		return nil, err
	}
	found, err := read(bytes.NewReader(out))
	if err != nil {
		return nil, err
	}
	return refute(found)
}

// read reads what govulncheck found. One without a package is about a module of which
// something else is imported.
func read(r io.Reader) ([]Advisory, error) {
	found := map[string]Advisory{}
	for d := json.NewDecoder(r); ; {
		var message struct {
			Finding *struct {
				OSV   string
				Fixed string `json:"fixed_version"`
				Trace []struct{ Module, Version, Package string }
			}
		}
		err := d.Decode(&message)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read what govulncheck reports: %w", err)
		}
		if f := message.Finding; f != nil && len(f.Trace) > 0 && f.Trace[0].Package != "" {
			found[f.OSV] = Advisory{ID: f.OSV, Package: f.Trace[0].Package, Version: f.Trace[0].Version, Fixed: f.Fixed}
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b Advisory) int { return strings.Compare(a.ID, b.ID) }), nil
}

// refute leaves those out that Refuted has.
func refute(found []Advisory) ([]Advisory, error) {
	has := map[string]bool{}
	for _, a := range found {
		has[a.ID] = true
	}
	for id := range Refuted {
		if !has[id] {
			return nil, fmt.Errorf("the database does not say %s any more: take it out of hack/vuln.Refuted", id)
		}
	}
	return slices.DeleteFunc(found, func(a Advisory) bool { return Refuted[a.ID] != "" }), nil
}

// database gives the directory of the advisories. Without network it is the newest that
// this machine has.
func database(ctx context.Context, o Options) (string, error) {
	var module struct{ Dir, Error string }
	out, err := output(ctx, os.TempDir(), "mod", "download", "-json", "golang.org/x/vulndb@"+o.Version)
	if err == nil {
		err = json.Unmarshal(out, &module)
	}
	if err == nil {
		return filepath.Join(module.Dir, "data/osv"), nil
	}
	cache, cacheErr := output(ctx, o.Root, "env", "GOMODCACHE")
	if cacheErr != nil {
		return "", cacheErr
	}
	kept, _ := filepath.Glob(filepath.Join(strings.TrimSpace(string(cache)), "golang.org/x/vulndb@*/data/osv")) // the pattern is well formed
	if len(kept) == 0 {
		return "", fmt.Errorf("no database of vulnerabilities: %w", err)
	}
	return slices.Max(kept), nil
}

func output(ctx context.Context, dir string, argv ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", argv...)
	cmd.Dir = dir
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("go %s: %w: %s", strings.Join(argv, " "), err, errs.String())
	}
	return out, nil
}
