package input

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
)

// Document is an object and where it came from.
type Document struct {
	From   string // "pools.yaml, document 2"
	Kind   *kind.Kind
	Object api.Object
}

// Name is metadata.name, behind the namespace if the object has one.
func (d Document) Name() string {
	if d.Kind == nil {
		return kind.Text(d.Object, "metadata.name", "")
	}
	return d.Kind.NameOf(d.Object)
}

// Ref is "IPPool default".
func (d Document) Ref() string { return d.Kind.Name + " " + d.Name() }

// Read reads every path: a file, a folder (its .yaml, .yml and .json files in
// order of their names; with deep the folders below too), or "-" for stdin. It
// gives what it could read, and the errors of the rest joined.
func Read(paths []string, deep bool, stdin io.Reader) ([]Document, error) {
	return read(paths, deep, stdin, one)
}

// ReadAny is Read for objects of any kind, and for JSON that is no object of the
// API, such as a CNI configuration: documents have no Kind.
func ReadAny(paths []string, deep bool, stdin io.Reader) ([]Document, error) {
	return read(paths, deep, stdin, func(from, _ string, o api.Object) ([]Document, error) {
		return []Document{{From: from, Object: o}}, nil
	})
}

// Known gives documents of ReadAny their kind, as Read does.
func Known(docs []Document) ([]Document, error) {
	var out []Document
	var errs []error
	for _, d := range docs {
		known, err := one(d.From, kind.Text(d.Object, "kind", ""), d.Object)
		out, errs = append(out, known...), append(errs, err)
	}
	return out, errors.Join(errs...)
}

// evaluate makes documents of one object of a kind.
type evaluate func(from, kind string, o api.Object) ([]Document, error)

func read(paths []string, deep bool, stdin io.Reader, accept evaluate) ([]Document, error) {
	var out []Document
	var errs []error
	for _, path := range paths {
		if path == "-" {
			docs, err := decode("stdin", stdin, accept)
			out, errs = append(out, docs...), append(errs, err)
			continue
		}
		files, err := expand(path, deep)
		errs = append(errs, err)
		for _, f := range files {
			docs, err := readFile(f, accept)
			out, errs = append(out, docs...), append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return out, err
	}
	if len(out) == 0 {
		return nil, api.Usagef("no object in %v", paths)
	}
	return out, nil
}

func expand(path string, deep bool) ([]string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, &api.UsageError{Err: err}
	}
	if !st.IsDir() {
		return []string{path}, nil
	}
	var out []string
	err = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && p != path && !deep:
			return filepath.SkipDir
		case !d.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(p)):
			out = append(out, p)
		}
		return nil
	})
	if err != nil {
		return nil, &api.UsageError{Err: err}
	}
	if len(out) == 0 {
		return nil, api.Usagef("%s: the folder has no .yaml, .yml or .json file", path)
	}
	return out, nil
}

func readFile(path string, accept evaluate) ([]Document, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &api.UsageError{Err: err}
	}
	defer f.Close()
	return decode(path, f, accept)
}

func decode(name string, r io.Reader, accept evaluate) ([]Document, error) {
	var out []Document
	var errs []error
	docs := utilyaml.NewYAMLReader(bufio.NewReader(r))
	for n := 1; ; n++ {
		data, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return out, errors.Join(errs...)
		}
		if err != nil {
			return out, errors.Join(append(errs, api.Usagef("%s: %w", name, err))...)
		}
		if len(bytes.TrimSpace(data)) == 0 {
			continue
		}
		from := name
		if n > 1 {
			from = fmt.Sprintf("%s, document %d", name, n)
		}
		o, err := object(data)
		if err != nil {
			errs = append(errs, api.Usagef("%s: not YAML or JSON: %w", from, err))
			continue
		}
		if o == nil {
			continue
		}
		more, err := unfold(from, o, accept)
		out, errs = append(out, more...), append(errs, err)
	}
}

// object reads YAML or JSON; whole numbers stay whole.
func object(data []byte) (o api.Object, err error) {
	if data, err = yaml.YAMLToJSONStrict(data); err != nil {
		return nil, err
	}
	return o, kjson.UnmarshalCaseSensitivePreserveInts(data, &o)
}

// unfold takes Lists apart.
func unfold(from string, o api.Object, accept evaluate) ([]Document, error) {
	items, isList := o["items"].([]any)
	name, _ := o["kind"].(string)
	if !isList {
		return accept(from, name, o)
	}
	var out []Document
	var errs []error
	for i, x := range items {
		item, ok := x.(api.Object)
		if !ok {
			errs = append(errs, api.Usagef("%s: items[%d] is no object", from, i))
			continue
		}
		docs, err := unfold(fmt.Sprintf("%s, items[%d]", from, i), item, accept)
		out, errs = append(out, docs...), append(errs, err)
	}
	return out, errors.Join(errs...)
}

func one(from, name string, o api.Object) ([]Document, error) {
	if name == "" {
		return nil, api.Usagef("%s: kind is missing", from)
	}
	k, err := kind.Find(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	switch version, _ := o["apiVersion"].(string); version {
	case k.APIVersion(), "crd.projectcalico.org/v1":
	case "":
		return nil, api.Usagef("%s: apiVersion is missing; want %s", from, k.APIVersion())
	default:
		return nil, api.Usagef("%s: apiVersion %q is not served for %s; want %s", from, version, k.Name, k.APIVersion())
	}
	return []Document{{From: from, Kind: k, Object: o}}, nil
}
