package print

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/util/jsonpath"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
)

// Formats that -o takes; those with "=" need a value.
var Formats = []string{"ps", "wide", "yaml", "json", "name", "custom-columns=", "go-template=", "go-template-file=", "jsonpath="}

// Printer shows objects of one kind. List says that a list was asked for and not
// one object by name.
type Printer interface {
	Print(w io.Writer, k *kind.Kind, objects []api.Object, list bool) error
}

// New makes the printer of a format; empty means ps.
func New(format string) (Printer, error) {
	name, value, _ := strings.Cut(format, "=")
	switch name {
	case "", "ps":
		return &table{}, nil
	case "wide":
		return &table{wide: true}, nil
	case "yaml":
		return whole{&printers.YAMLPrinter{}}, nil
	case "json":
		return whole{&printers.JSONPrinter{}}, nil
	case "name":
		return names{}, nil
	case "custom-columns":
		return columns(value)
	case "go-template-file", "jsonpath-file":
		data, err := os.ReadFile(value)
		if err != nil {
			return nil, &api.UsageError{Err: err}
		}
		value = string(data)
	}
	switch strings.TrimSuffix(name, "-file") {
	case "go-template":
		p, err := printers.NewGoTemplatePrinter([]byte(value))
		if err != nil {
			return nil, api.Usagef("-o %s: %w", name, err)
		}
		return whole{p}, nil
	case "jsonpath":
		p, err := printers.NewJSONPathPrinter(value)
		if err != nil {
			return nil, api.Usagef("-o %s: %w", name, err)
		}
		p.AllowMissingKeys(true)
		return whole{p}, nil
	}
	return nil, api.Usagef("unknown format %q: one of %s", format, strings.Join(Formats, ", "))
}

// NoHeadings leaves the headings of a table out; other formats have none.
func NoHeadings(p Printer) {
	if t, ok := p.(*table); ok {
		t.bare = true
	}
}

// table prints columns.
type table struct {
	wide, bare bool
	own        []kind.Column
	pick       []string
}

func (t *table) Print(w io.Writer, k *kind.Kind, objects []api.Object, _ bool) error {
	cols, err := t.columns(k)
	if err != nil {
		return err
	}
	rows := make([][]string, 0, len(objects)+1)
	if !t.bare {
		head := make([]string, len(cols))
		for i, c := range cols {
			head[i] = c.Head
		}
		rows = append(rows, head)
	}
	for _, o := range objects {
		row := make([]string, len(cols))
		for i, c := range cols {
			row[i] = c.Value(o)
		}
		rows = append(rows, row)
	}
	return Rows(w, rows)
}

// Rows aligns cells as calicoctl does: at least five wide, three blanks apart.
func Rows(w io.Writer, rows [][]string) error {
	var buf bytes.Buffer
	tw := tabwriter.NewWriter(&buf, 5, 1, 3, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(tw, strings.Join(r, "\t"))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(buf.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

func (t *table) columns(k *kind.Kind) ([]kind.Column, error) {
	switch {
	case t.own != nil:
		return t.own, nil
	case t.pick != nil:
		return pick(k, t.pick)
	case t.wide:
		return k.WideColumns(), nil
	}
	return k.Columns, nil
}

// columns reads custom-columns: calicoctl's names of columns, or kubectl's
// HEAD:.path.
func columns(spec string) (Printer, error) {
	if spec == "" {
		return nil, api.Usagef("-o custom-columns=: name columns, as in NAME,CIDR or NAME:.metadata.name,CIDR:.spec.cidr")
	}
	t := &table{}
	for part := range strings.SplitSeq(spec, ",") {
		head, path, hasPath := strings.Cut(part, ":")
		if !hasPath {
			t.pick = append(t.pick, strings.ToUpper(part))
			continue
		}
		value, err := pathValue(path)
		if err != nil {
			return nil, err
		}
		t.own = append(t.own, kind.Column{Head: head, Value: value})
	}
	if t.own != nil && t.pick != nil {
		return nil, api.Usagef("-o custom-columns=%s: either every column has a path or none", spec)
	}
	return t, nil
}

func pathValue(path string) (func(map[string]any) string, error) {
	p := jsonpath.New("column").AllowMissingKeys(true)
	if err := p.Parse("{" + strings.TrimSuffix(strings.TrimPrefix(path, "{"), "}") + "}"); err != nil {
		return nil, api.Usagef("-o custom-columns: %q is not a path: %w", path, err)
	}
	return func(o map[string]any) string {
		var b bytes.Buffer
		if err := p.Execute(&b, o); err != nil || b.Len() == 0 {
			return "<none>"
		}
		return b.String()
	}, nil
}

func pick(k *kind.Kind, heads []string) ([]kind.Column, error) {
	have := k.WideColumns()
	var out []kind.Column
	for _, h := range heads {
		i := slices.IndexFunc(have, func(c kind.Column) bool { return c.Head == h })
		if i < 0 {
			all := make([]string, len(have))
			for j, c := range have {
				all[j] = c.Head
			}
			return nil, api.Usagef("-o custom-columns: %s has no column %s; it has %s, and any HEAD:.path", k.Name, h, strings.Join(all, ", "))
		}
		out = append(out, have[i])
	}
	return out, nil
}

// whole prints objects through one of cli-runtime's printers; a list of objects
// as one List.
type whole struct{ p printers.ResourcePrinter }

func (p whole) Print(w io.Writer, k *kind.Kind, objects []api.Object, list bool) error {
	if !list && len(objects) == 1 {
		return p.p.PrintObj(&unstructured.Unstructured{Object: objects[0]}, w)
	}
	items := make([]any, len(objects))
	for i, o := range objects {
		items[i] = o
	}
	return p.p.PrintObj(&unstructured.Unstructured{Object: api.Object{
		"apiVersion": k.APIVersion(), "kind": k.Name + "List", "metadata": api.Object{}, "items": items,
	}}, w)
}

// names prints kind/name, as kubectl does.
type names struct{}

func (names) Print(w io.Writer, k *kind.Kind, objects []api.Object, _ bool) error {
	for _, o := range objects {
		prefix := strings.ToLower(k.Name)
		if !k.Core {
			prefix += ".projectcalico.org"
		}
		if _, err := fmt.Fprintf(w, "%s/%s\n", prefix, kind.Text(o, "metadata.name", "")); err != nil {
			return err
		}
	}
	return nil
}
