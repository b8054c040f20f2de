package kube

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
)

// Objects are API objects as JSON has them, by the path of the list that a server
// gives them in: "/api/v1/nodes". A Secret is by itself, under its own path.
type Objects map[string][]map[string]any

// ReadObjects reads YAML documents, or JSON, of any kinds. It reads no field but
// apiVersion, kind and, of a Secret, its name.
func ReadObjects(data []byte) (Objects, error) {
	out := Objects{}
	d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	for i := 1; ; i++ {
		var o map[string]any
		switch err := d.Decode(&o); {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, fmt.Errorf("document %d: %w", i, err)
		}
		if len(o) == 0 {
			continue // between two separators
		}
		path, err := pathOf(o)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", i, err)
		}
		out[path] = append(out[path], o)
	}
}

// pathOf is where a server lists such objects.
func pathOf(o map[string]any) (string, error) {
	version, _ := o["apiVersion"].(string)
	kind, _ := o["kind"].(string)
	gv, err := schema.ParseGroupVersion(version)
	if err != nil || version == "" || kind == "" {
		return "", fmt.Errorf("%q of %q is not an API object's kind", kind, version)
	}
	plural, _ := meta.UnsafeGuessKindToResource(gv.WithKind(kind))
	root := "/apis/" + version
	if gv.Group == "" {
		root = "/api/" + version
	}
	if kind != "Secret" {
		return root + "/" + plural.Resource, nil
	}
	metadata, _ := o["metadata"].(map[string]any)
	name, _ := metadata["name"].(string)
	namespace, _ := metadata["namespace"].(string)
	return secretPath(namespace, name), nil
}

func secretPath(namespace, name string) string {
	return "/api/v1/namespaces/" + namespace + "/secrets/" + name
}

// From is the door without a server: a Cluster that knows these objects and
// nothing else. It must not be Run. An object that is no such object at all, by its
// types, is an error; one whose values are wrong is a Problem, as always.
func From(objects Objects, o Options) (*Cluster, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c, err := New(&rest.Config{}, o)
	if err != nil {
		return nil, err
	}
	for filled := true; filled; { // a list may turn on the demand for another
		filled = false
		for _, s := range c.unfilled() {
			list, ok := objects[s.Path]
			if !ok {
				continue
			}
			if err := s.fill(list); err != nil {
				return nil, fmt.Errorf("%s: %w", s.Path, err)
			}
			filled = true
		}
	}
	if err := c.secrets.from(objects); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.noteChange()
	return c, nil
}

// List is what a server is asked for.
type List struct {
	Path           string
	Fields, Labels string // selectors; empty: everything
	Secret         bool   // one Secret, not a list
}

// Older is the path in the version that an older server has the kind in; empty if
// there is none.
func (l List) Older() string {
	before, after, ok := strings.Cut(l.Path, "/"+policyVersions[0].String()+"/")
	if !ok {
		return ""
	}
	return before + "/" + policyVersions[1].String() + "/" + after
}

// Missing gives the lists, and the Secrets, that the Cluster would ask a server for
// and has not got.
func (c *Cluster) Missing() []List {
	var out []List
	for _, s := range c.unfilled() {
		out = append(out, s.List)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range sortedKeys(c.secrets.wanted) {
		if !c.secrets.wanted[name].tried {
			out = append(out, List{Path: secretPath(c.secrets.namespace, name), Secret: true})
		}
	}
	return out
}

// Snapshot is what a Cluster makes of these objects where there are no others, and
// what could not be honoured of each.
func Snapshot(objects Objects, o Options) (model.Snapshot, []model.Problem, error) {
	all := Objects{}
	for path, list := range objects {
		all[path] = list
	}
	for {
		c, err := From(all, o)
		if err != nil {
			return model.Snapshot{}, nil, err
		}
		missing := c.Missing()
		if len(missing) == 0 {
			return c.Snapshot(), c.Problems(), nil
		}
		for _, l := range missing {
			all[l.Path] = nil
		}
	}
}

// unfilled gives the sources that are asked for at present and have listed nothing.
func (c *Cluster) unfilled() []source {
	c.mu.Lock()
	defer c.mu.Unlock()
	requested := slices.Concat(c.sources, c.aside)
	for _, d := range c.demands {
		if d.on {
			requested = append(requested, d.sources...)
		}
	}
	return slices.DeleteFunc(requested, func(s source) bool { return s.synced() })
}

// fill puts those of the objects that the feed's selectors choose into a table, in
// place of a server's list.
func (t *table[T]) fill(f feed, list []map[string]any) error {
	byField, err := fields.ParseSelector(f.fields)
	if err != nil {
		return err
	}
	byLabel, err := labels.Parse(f.labels)
	if err != nil {
		return err
	}
	objects := make([]any, 0, len(list))
	for _, o := range list {
		if u := (unstructured.Unstructured{Object: o}); !byField.Matches(fieldsOf{u}) || !byLabel.Matches(labels.Set(u.GetLabels())) {
			continue
		}
		into := reflect.New(reflect.TypeOf(f.expect).Elem()).Interface()
		if err := decodeObject(o, into); err != nil {
			return err
		}
		objects = append(objects, into)
	}
	return t.Replace(objects, "")
}

// fieldsOf are the fields of an object as a selector names them: "spec.nodeName".
type fieldsOf struct{ unstructured.Unstructured }

func (o fieldsOf) Has(field string) bool { return o.Get(field) != "" }

func (o fieldsOf) Get(field string) string {
	text, _, _ := unstructured.NestedString(o.Object, strings.Split(field, ".")...)
	return text
}

// from answers for the Secrets that are wanted, as far as objects has their paths.
func (s *secrets) from(objects Objects) error {
	s.c.mu.Lock()
	wanted := sortedKeys(s.wanted)
	s.c.mu.Unlock()
	for _, name := range wanted {
		list, ok := objects[secretPath(s.namespace, name)]
		for _, o := range list {
			var secret corev1.Secret
			if err := decodeObject(o, &secret); err != nil {
				return err
			}
			if err := s.wanted[name].table.Add(&secret); err != nil {
				return err
			}
		}
		s.wanted[name].tried = s.wanted[name].tried || ok
	}
	return nil
}

func decodeObject(o map[string]any, into any) error {
	data, err := json.Marshal(o)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		metadata, _ := o["metadata"].(map[string]any)
		return fmt.Errorf("%v: %w", metadata["name"], err)
	}
	return nil
}
