package world

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
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
		if got := short(t, list(lay([]api.Object{named("one", api.Object{"spec": api.Object{"cidr": "old"}})}, []api.Object{c.change})...)); got != c.want {
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

// TestOnlyListsOfTheKindChange: a change of an IPPool concerns IPPools alone.
func TestOnlyListsOfTheKindChange(t *testing.T) {
	changes := []api.Object{{"kind": "IPPool", "metadata": api.Object{"name": "new"}}}
	if len(of(kind.MustFind("ippools").Path(), changes)) != 1 || len(of(kind.MustFind("bgppeers").Path(), changes)) != 0 || len(of("/api/v1/nodes", changes)) != 0 {
		t.Error("a change is laid over a list of another kind")
	}
}
