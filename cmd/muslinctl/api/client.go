package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	kjson "sigs.k8s.io/json"

	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
)

// Object is any API object as JSON has it. Numbers are int64 or float64.
type Object = map[string]any

// Client makes requests. It may be used from several goroutines.
type Client struct {
	rest      *rest.RESTClient
	Config    *rest.Config
	Namespace string // of the context, for pods and what else has one
}

// Select narrows a list.
type Select struct {
	Labels, Fields string
	Namespace      string // of namespaced kinds; empty: all
}

// pageSize is how many objects one answer holds.
const pageSize = 500

// Get reads one object; a Node comes as Calico shows it.
func (c *Client) Get(ctx context.Context, k *kind.Kind, name string) (Object, error) {
	var o Object
	if err := c.GetPath(ctx, c.path(k, name), nil, &o); err != nil {
		return nil, wrap("get", k, name, err)
	}
	return shown(k, o), nil
}

// path is the URL of an object. The name of one of a namespaced kind may have its
// namespace before it; else it is that of the context.
func (c *Client) path(k *kind.Kind, name string) string {
	namespace := ""
	if k.Namespaced {
		var ok bool
		if namespace, name, ok = strings.Cut(name, "/"); !ok {
			namespace, name = c.namespace(), namespace
		}
	}
	return k.PathIn(namespace) + "/" + url.PathEscape(name)
}

func (c *Client) namespace() string { return cmp.Or(c.Namespace, "default") }

// collection is the URL that an object is made at.
func (c *Client) collection(k *kind.Kind, o Object) string {
	return k.PathIn(kind.Text(o, "metadata.namespace", c.namespace()))
}

// List reads all objects of a kind, in pages, sorted by name as the server
// sorts. The second result is the resourceVersion to watch from.
func (c *Client) List(ctx context.Context, k *kind.Kind, s Select) ([]Object, string, error) {
	var out []Object
	rv, err := c.EachPage(ctx, k.PathIn(s.Namespace), s, func(items []Object) {
		for _, o := range items {
			if o = shown(k, o); o != nil {
				out = append(out, o)
			}
		}
	})
	return out, rv, wrap("list", k, "", err)
}

// EachPage reads a list page by page.
func (c *Client) EachPage(ctx context.Context, path string, s Select, visit func([]Object)) (string, error) {
	next := ""
	for {
		var page struct {
			Metadata struct {
				ResourceVersion string `json:"resourceVersion"`
				Continue        string `json:"continue"`
			} `json:"metadata"`
			Items []Object `json:"items"`
		}
		q := url.Values{"limit": {strconv.Itoa(pageSize)}}
		set(q, "continue", next)
		set(q, "labelSelector", s.Labels)
		set(q, "fieldSelector", s.Fields)
		if err := c.GetPath(ctx, path, q, &page); err != nil {
			return "", err
		}
		visit(page.Items)
		if next = page.Metadata.Continue; next == "" {
			return page.Metadata.ResourceVersion, nil
		}
	}
}

func set(q url.Values, key, value string) {
	if value != "" {
		q.Set(key, value)
	}
}

// GetPath reads whatever a path serves into a value.
func (c *Client) GetPath(ctx context.Context, path string, q url.Values, into any) error {
	req := c.rest.Get().AbsPath(path)
	for key, values := range q {
		for _, v := range values {
			req.Param(key, v)
		}
	}
	data, err := req.Do(ctx).Raw()
	if err != nil {
		return answered(data, err)
	}
	return decode(data, into)
}

// Create makes an object.
func (c *Client) Create(ctx context.Context, k *kind.Kind, o Object, dry bool) (Object, error) {
	return c.send(ctx, "create", k, o, c.rest.Post().AbsPath(c.collection(k, o)), dry)
}

// Update replaces an object under its resourceVersion.
func (c *Client) Update(ctx context.Context, k *kind.Kind, o Object, dry bool) (Object, error) {
	name := kind.Text(o, "metadata.name", "")
	return c.send(ctx, "update", k, o, c.rest.Put().AbsPath(c.collection(k, o), name), dry)
}

// Patch changes an object.
func (c *Client) Patch(ctx context.Context, k *kind.Kind, name string, t types.PatchType, patch any, dry bool) (Object, error) {
	o, err := c.send(ctx, "patch", k, patch, c.rest.Patch(t).AbsPath(c.path(k, name)), dry)
	var failed *RequestError
	if errors.As(err, &failed) {
		failed.Name = name
	}
	return o, err
}

func (c *Client) send(ctx context.Context, verb string, k *kind.Kind, body any, req *rest.Request, dry bool) (Object, error) {
	name := ""
	if m, ok := body.(Object); ok {
		name = kind.Text(m, "metadata.name", "")
	}
	data, ok := body.([]byte)
	if !ok {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return nil, wrap(verb, k, name, err)
		}
	}
	req.Param("fieldValidation", "Strict").Param("fieldManager", "muslinctl").Body(data)
	if dry {
		req.Param("dryRun", "All")
	}
	answer, err := req.Do(ctx).Raw()
	if err != nil {
		return nil, wrap(verb, k, name, answered(answer, err))
	}
	var o Object
	if err := decode(answer, &o); err != nil {
		return nil, wrap(verb, k, name, err)
	}
	return shown(k, o), nil
}

// Delete removes an object, only the one with the UID when one is given.
func (c *Client) Delete(ctx context.Context, k *kind.Kind, name, uid string, dry bool) error {
	options := Object{"kind": "DeleteOptions", "apiVersion": "v1"}
	if uid != "" {
		options["preconditions"] = Object{"uid": uid}
	}
	if dry {
		options["dryRun"] = []string{"All"}
	}
	body, err := json.Marshal(options)
	if err != nil {
		return err
	}
	data, err := c.rest.Delete().AbsPath(c.path(k, name)).Body(body).Do(ctx).Raw()
	if err != nil {
		return wrap("delete", k, name, answered(data, err))
	}
	return nil
}

// Event is one thing a watch tells.
type Event struct {
	Type   string `json:"type"` // ADDED, MODIFIED, DELETED
	Object Object `json:"object"`
}

// Watch tells what becomes of the objects of a kind from a resourceVersion on,
// until ctx ends or the server closes the stream; nil then.
func (c *Client) Watch(ctx context.Context, k *kind.Kind, s Select, from string, tell func(Event) error) error {
	req := c.rest.Get().AbsPath(k.PathIn(s.Namespace)).Param("watch", "true").Param("resourceVersion", from).Timeout(0)
	if s.Labels != "" {
		req.Param("labelSelector", s.Labels)
	}
	if s.Fields != "" {
		req.Param("fieldSelector", s.Fields)
	}
	body, err := req.Stream(ctx)
	if err != nil {
		return wrap("watch", k, "", err)
	}
	defer body.Close()
	for dec := json.NewDecoder(body); ; {
		var e Event
		var raw json.RawMessage
		err := dec.Decode(&raw)
		if err == nil {
			err = decode(raw, &e)
		}
		switch {
		case ctx.Err() != nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return wrap("watch", k, "", err)
		case e.Type == "ERROR":
			return wrap("watch", k, "", errors.New(kind.Text(e.Object, "message", "the server ended the watch")))
		case e.Type == "BOOKMARK":
			continue
		}
		if e.Object = shown(k, e.Object); e.Object == nil {
			continue
		}
		if err := tell(e); err != nil {
			return err
		}
	}
}

// shown is the object as users see it; nil for a pod that is no endpoint.
func shown(k *kind.Kind, o Object) Object {
	switch {
	case o == nil:
	case k.Name == "Node":
		return kind.CalicoNode(o)
	case k.Name == "WorkloadEndpoint":
		return kind.CalicoEndpoint(o)
	}
	if o != nil && !k.Core {
		o["apiVersion"], o["kind"] = kind.GroupVersion, k.Name
		if m, ok := o["metadata"].(Object); ok {
			delete(m, "managedFields")
		}
	}
	return o
}

// decode reads whole numbers as int64: sequence numbers do not fit a float.
func decode(data []byte, into any) error {
	if err := kjson.UnmarshalCaseSensitivePreserveInts(data, into); err != nil {
		return fmt.Errorf("the server's answer is not the JSON that was asked for: %w", err)
	}
	return nil
}

// MergePath changes whatever object a path names, by a merge patch.
func (c *Client) MergePath(ctx context.Context, path string, patch Object) error {
	body, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	answer, err := c.rest.Patch(types.MergePatchType).AbsPath(path).Param("fieldManager", "muslinctl").Body(body).Do(ctx).Raw()
	if err != nil {
		return answered(answer, err)
	}
	return nil
}

// CreatePath makes an object of a kind that muslinctl does not manage.
func (c *Client) CreatePath(ctx context.Context, path string, o Object) error {
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	answer, err := c.rest.Post().AbsPath(path).Param("fieldManager", "muslinctl").Body(body).Do(ctx).Raw()
	if err != nil {
		return answered(answer, err)
	}
	return nil
}

// DeletePath removes an object at once.
func (c *Client) DeletePath(ctx context.Context, path string) error {
	answer, err := c.rest.Delete().AbsPath(path).Param("gracePeriodSeconds", "0").Do(ctx).Raw()
	if err != nil {
		return answered(answer, err)
	}
	return nil
}

// Text reads what a path serves as text, such as a pod's log.
func (c *Client) Text(ctx context.Context, path string, q url.Values) ([]byte, error) {
	req := c.rest.Get().AbsPath(path)
	for key, values := range q {
		for _, v := range values {
			req.Param(key, v)
		}
	}
	data, err := req.Do(ctx).Raw()
	if err != nil {
		return nil, answered(data, err)
	}
	return data, nil
}
