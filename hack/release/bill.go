package release

import (
	"cmp"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/hack/thirdparty"
)

// The parts of CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/) that are used.
type (
	billOfMaterials struct {
		Format       string       `json:"bomFormat"`
		SpecVersion  string       `json:"specVersion"`
		Version      int          `json:"version"`
		Metadata     metadata     `json:"metadata"`
		Components   []component  `json:"components"`
		Dependencies []dependency `json:"dependencies"`
	}
	metadata struct {
		Component component `json:"component"`
	}
	component struct {
		Type       string     `json:"type"`
		Ref        string     `json:"bom-ref"`
		Name       string     `json:"name"`
		Version    string     `json:"version,omitempty"`
		PURL       string     `json:"purl,omitempty"`
		Pedigree   *pedigree  `json:"pedigree,omitempty"`
		Properties []property `json:"properties,omitempty"`
	}
	// pedigree says what a component was made from, and by which patches.
	pedigree struct {
		Ancestors []component `json:"ancestors"`
		Patches   []patch     `json:"patches"`
	}
	patch struct {
		Type string `json:"type"`
		Diff diff   `json:"diff"`
	}
	diff struct {
		URL string `json:"url"`
	}
	property struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	dependency struct {
		Ref       string   `json:"ref"`
		DependsOn []string `json:"dependsOn"`
	}
)

// billOf lists the modules that each program says it was built from, as go version -m
// shows them, and Go's standard library. It has no time and no serial number: the same
// programs have the same bill.
func billOf(root, version string, programs []binary) (file, error) {
	bill := billOfMaterials{
		Format: "CycloneDX", SpecVersion: "1.6", Version: 1,
		Metadata: metadata{component{Type: "application", Ref: "muslin", Name: "muslin", Version: version, PURL: "pkg:golang/github.com/muslin-net/muslin@" + version}},
	}
	libraries := map[string]component{}
	for _, p := range programs {
		info, err := buildinfo.ReadFile(p.path)
		if err != nil {
			return file{}, fmt.Errorf("read what %s was built from: %w", p.name, err)
		}
		of := dependency{Ref: p.name}
		for _, m := range append([]*debug.Module{{Path: "std", Version: info.GoVersion}}, info.Deps...) {
			c, err := library(root, m)
			if err != nil {
				return file{}, err
			}
			libraries[c.Ref], of.DependsOn = c, append(of.DependsOn, c.Ref)
		}
		slices.Sort(of.DependsOn)
		bill.Components = append(bill.Components, component{Type: "application", Ref: p.name, Name: p.name, Version: version})
		bill.Dependencies = append(bill.Dependencies, of)
	}
	bill.Components = append(bill.Components, slices.SortedFunc(maps.Values(libraries), func(a, b component) int { return cmp.Compare(a.Ref, b.Ref) })...)
	text, err := json.MarshalIndent(bill, "", "  ")
	if err != nil {
		return file{}, fmt.Errorf("write the bill of materials: %w", err)
	}
	return file{name: "muslin-" + version + ".cdx.json", data: append(text, '\n')}, nil
}

// library describes a module; of one that is patched, what it was and the patches.
func library(root string, m *debug.Module) (component, error) {
	purl := "pkg:golang/" + strings.ToLower(m.Path) + "@" + m.Version
	c := component{Type: "library", Ref: purl, Name: m.Path, Version: m.Version, PURL: purl}
	if m.Sum != "" {
		c.Properties = []property{{"go:sum", m.Sum}}
	}
	if m.Replace == nil {
		return c, nil
	}
	if m.Path != thirdparty.Module {
		return c, fmt.Errorf("%s is replaced by %s: only %s may be", m.Path, m.Replace.Path, thirdparty.Module)
	}
	names, err := filepath.Glob(filepath.Join(root, thirdparty.Dir, "patches", "*.patch"))
	if err != nil {
		return c, err
	}
	c.Pedigree = &pedigree{Ancestors: []component{{Type: "library", Ref: purl + "#release", Name: m.Path, Version: m.Version, PURL: purl}}}
	for _, name := range names {
		at := "https://github.com/muslin-net/muslin/blob/main/" + thirdparty.Dir + "/patches/" + filepath.Base(name)
		c.Pedigree.Patches = append(c.Pedigree.Patches, patch{"unofficial", diff{at}})
	}
	c.Properties, c.PURL = nil, "" // it is not what is found under that name
	return c, nil
}
