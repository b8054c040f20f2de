package world

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/pkg/ctl/api"
	"github.com/muslin-net/muslin/pkg/ctl/kind"
)

// list is what a server answers.
func list(items ...api.Object) []byte {
	data, _ := json.Marshal(api.Object{"kind": "List", "items": items})
	return data
}

func named(name string, rest api.Object) api.Object {
	o := api.Object{"metadata": api.Object{"name": name, "annotations": api.Object{"a": "1", "b": "2"}}}
	for k, v := range rest {
		o[k] = v
	}
	return o
}

func TestChangesLieOverTheList(t *testing.T) {
	for _, c := range []struct {
		name   string
		change api.Object
		want   string // JSON of the items' specs and annotations
	}{
		{"over one of the same name", api.Object{"kind": "IPPool", "metadata": api.Object{"name": "one"}, "spec": api.Object{"cidr": "new"}},
			`one spec={"cidr":"new"} annotations={"a":"1","b":"2"}`},
		{"with annotations of its own", api.Object{"kind": "IPPool", "metadata": api.Object{"name": "one", "annotations": api.Object{"c": "3"}}, "spec": api.Object{}},
			`one spec={} annotations={"c":"3"}`},
		{"beside the others", api.Object{"kind": "IPPool", "metadata": api.Object{"name": "two"}, "spec": api.Object{"cidr": "other"}},
			`one spec={"cidr":"old"} annotations={"a":"1","b":"2"};two spec={"cidr":"other"} annotations=null`},
		{"as a patch of a node", api.Object{"kind": "Node", "metadata": api.Object{"name": "one"}, "patch": api.Object{"metadata": api.Object{"annotations": api.Object{"a": nil, "c": "3"}, "labels": api.Object{"rack": "r1"}}}},
			`one spec={"cidr":"old"} annotations={"b":"2","c":"3"} labels={"rack":"r1"}`},
		{"as a patch of a node that is not there", api.Object{"kind": "Node", "metadata": api.Object{"name": "two"}, "patch": api.Object{"metadata": api.Object{}}},
			`one spec={"cidr":"old"} annotations={"a":"1","b":"2"}`},
	} {
		body, err := lay(list(named("one", api.Object{"spec": api.Object{"cidr": "old"}})), []api.Object{c.change})
		if err != nil {
			t.Fatal(err)
		}
		if got := short(t, body); got != c.want {
			t.Errorf("%s: %s\nwant %s", c.name, got, c.want)
		}
	}
}

func short(t *testing.T, body []byte) string {
	t.Helper()
	var l struct{ Items []api.Object }
	if err := json.Unmarshal(body, &l); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, o := range l.Items {
		spec, _ := json.Marshal(o["spec"])
		annotations, _ := json.Marshal(kind.At(o, "metadata.annotations"))
		text := kind.Text(o, "metadata.name", "") + " spec=" + string(spec) + " annotations=" + string(annotations)
		if labels := kind.At(o, "metadata.labels"); labels != nil {
			data, _ := json.Marshal(labels)
			text += " labels=" + string(data)
		}
		out = append(out, text)
	}
	return strings.Join(out, ";")
}

// Only lists of the changed kinds are touched; a list in the form of a watch is
// refused, so that the client asks for one that can be changed.
func TestOnlyListsOfTheKindAreTouched(t *testing.T) {
	var accept string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		accept = r.Header.Get("Accept")
		_, _ = w.Write(list())
	}))
	defer server.Close()
	client := &http.Client{Transport: overlay([]api.Object{{"kind": "IPPool", "metadata": api.Object{"name": "new"}, "spec": api.Object{}}})(http.DefaultTransport)}
	get := func(path string) (int, string) {
		req, _ := http.NewRequest(http.MethodGet, server.URL+path, nil)
		req.Header.Set("Accept", "application/vnd.kubernetes.protobuf")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	pools := kind.MustFind("ippools").Path()
	if _, body := get(pools); !strings.Contains(body, `"name":"new"`) || accept != "application/json" {
		t.Errorf("the list of the kind: %s, asked as %s", body, accept)
	}
	if _, body := get(kind.MustFind("bgppeers").Path()); strings.Contains(body, "new") || accept != "application/vnd.kubernetes.protobuf" {
		t.Errorf("another list: %s, asked as %s", body, accept)
	}
	if _, body := get(pools + "?watch=true"); strings.Contains(body, "new") {
		t.Errorf("a watch: %s", body)
	}
	if code, _ := get(pools + "?sendInitialEvents=true&watch=true"); code != http.StatusUnprocessableEntity {
		t.Errorf("a list in the form of a watch: %d", code)
	}
}
