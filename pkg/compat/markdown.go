package compat

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

const markdownHead = `# What has an effect, and what has none

Of all that Calico's users write, this is what Muslin does not honour, and what to do instead. What is not listed has
Calico's meaning. ` + "`muslinctl compat -f FILE`" + ` lists it for YAML, ` + "`muslinctl compat --live`" + ` for a cluster, before or after a change;
where it stands on an object of a cluster with Muslin, a condition of the object says it, or an event where its kind has
no conditions. This file is written from the same table.
`

// Markdown is docs/compat.md.
func Markdown() string {
	var w strings.Builder
	w.WriteString(markdownHead + "\n## Kinds\n\n| kind | why none of its objects has an effect |\n|---|---|\n")
	for _, k := range kinds {
		if k.Why != "" {
			fmt.Fprintf(&w, "| %s | %s |\n", k.title(), k.Why)
		}
	}
	for _, k := range kinds {
		table(&w, k.title(), "field below `spec`", k.Fields)
	}
	for _, k := range kinds {
		table(&w, "Annotations of a "+k.Name, "annotation", k.Annotations)
	}
	table(&w, "Annotations of MetalLB and Cilium on a Service of type LoadBalancer that Muslin serves", "annotation", others)
	table(&w, "CNI configuration", "key of the plugin", plugin.Fields)
	table(&w, "ConfigMaps calico-config and canal-config", "key", configKeys)
	table(&w, "Environment of Calico's programs", "variable", variables)
	w.WriteString("\nOther variables that begin with `FELIX_` are the fields of FelixConfiguration of the same name: say those. ")
	for _, prefix := range slices.Sorted(maps.Keys(variablePrefixes)) {
		fmt.Fprintf(&w, "`%s…`: %s. ", prefix, variablePrefixes[prefix])
	}
	w.WriteString("\n")
	return w.String()
}

func (k Kind) title() string { return strings.TrimSuffix(k.Name+"."+k.Group, ".") }

// table writes what has no effect, fields of one reason in one row.
func table(w *strings.Builder, title, what string, fields map[string]Field) {
	rows := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		f := fields[name]
		why := f.Why
		if f.Default {
			why = "on another object than `default`"
		}
		if why != "" {
			row := fmt.Sprintf("%s | %s", quoted(f.Same), why)
			rows[row] = append(rows[row], name)
		}
	}
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(w, "\n## %s\n\n| %s without effect | value that asks for what Muslin does anyway | why, or what to do instead |\n|---|---|---|\n", title, what)
	byName := slices.SortedFunc(maps.Keys(rows), func(a, b string) int { return strings.Compare(rows[a][0], rows[b][0]) })
	for _, row := range byName {
		fmt.Fprintf(w, "| %s | %s |\n", quoted(rows[row]), row)
	}
}

func quoted(list []string) string {
	list = slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == byReference })
	if len(list) == 0 {
		return ""
	}
	return "`" + strings.Join(list, "`, `") + "`"
}
