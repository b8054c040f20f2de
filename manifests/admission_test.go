package manifests_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

type object = map[string]any

// send asks the server with somebody's token; body may be a text.
func send(t *testing.T, cfg *rest.Config, method, path string, body any) (code int, answer string) {
	t.Helper()
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	text, is := body.(string)
	if !is && body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		text = string(data)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, cfg.Host+path, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(bytes.TrimSpace(data))
}

const v3Path = "/apis/projectcalico.org/v3/"

// owner is an attribute of a block: a pod of a node has the address.
func owner(node, pod string) object {
	return object{"handle_id": "k8s-pod-network." + pod, "secondary": object{"node": node, "namespace": "default", "pod": pod}}
}

// block is an IPAMBlock of a prefix whose first addresses have these owners; nil is a
// free one.
func block(cidr, affinity string, size int, owners ...object) object {
	spec := object{"cidr": cidr, "sequenceNumber": 7, "deleted": false, "strictAffinity": false, "sequenceNumberForAllocation": object{}}
	if affinity != "" {
		spec["affinity"] = affinity
	}
	slots, free, attributes := make([]any, size), []any{}, []any{}
	for i := range size {
		if i < len(owners) && owners[i] != nil {
			slots[i] = len(attributes)
			attributes = append(attributes, owners[i])
		} else {
			free = append(free, i)
		}
	}
	spec["allocations"], spec["unallocated"], spec["attributes"] = slots, free, attributes
	return v3Object("IPAMBlock", strings.NewReplacer(".", "-", "/", "-").Replace(cidr), spec)
}

func v3Object(kind, name string, spec object) object {
	return object{"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": object{"name": name}, "spec": spec}
}

func affinity(name, node, cidr string) object {
	return v3Object("BlockAffinity", name, object{"state": "confirmed", "node": node, "cidr": cidr, "type": "host"})
}

func handle(id, node string) object {
	o := v3Object("IPAMHandle", id, object{"handleID": id, "block": object{"10.20.0.0/29": 1}})
	if node != "" {
		o["metadata"].(object)["annotations"] = object{"muslin.io/node": node}
	}
	return o
}

func event(kind, name, host string) object {
	return object{
		"apiVersion": "v1", "kind": "Event", "metadata": object{"generateName": "x.", "namespace": "default"}, "type": "Warning", "reason": "Test",
		"involvedObject": object{"kind": kind, "name": name, "apiVersion": "v1"}, "source": object{"component": "muslin-agent", "host": host},
	}
}

// world is a cluster of nodes n1 and n2 whose agents have pods and have borrowed of
// each other.
var world = []object{
	{"apiVersion": "v1", "kind": "Node", "metadata": object{"name": "n1", "labels": object{"zone": "a"}, "annotations": object{"other.example/x": "kept"}}},
	{"apiVersion": "v1", "kind": "Node", "metadata": object{"name": "n2", "labels": object{"zone": "a"}, "annotations": object{"other.example/x": "kept"}}},
	v3Object("CalicoNodeStatus", "of-n1", object{"node": "n1", "classes": []any{"Agent"}, "updatePeriodSeconds": 10}),
	v3Object("CalicoNodeStatus", "of-n2", object{"node": "n2", "classes": []any{"Agent"}, "updatePeriodSeconds": 10}),
	affinity("n1-10-20-0-8-29", "n1", "10.20.0.8/29"), affinity("n2-10-20-0-0-29", "n2", "10.20.0.0/29"), affinity("n2-10-20-0-32-29", "n2", "10.20.0.32/29"),
	block("10.20.0.0/29", "host:n2", 8, owner("n2", "web"), owner("n1", "mine"), object{"releasedAt": "2026-01-01T00:00:00Z"}),
	block("10.20.0.8/29", "host:n1", 8, owner("n2", "theirs"), owner("n1", "mine")),
	block("10.20.0.16/29", "", 8, owner("n2", "web"), owner("n1", "mine")),
	block("10.20.0.24/29", "virtual:load-balancer", 8),
	block("10.20.0.32/29", "host:n2", 8), block("10.20.0.40/29", "", 8),
	handle("k8s-pod-network.web", "n2"), handle("k8s-pod-network.mine", "n1"), handle("k8s-pod-network.old", ""), handle("ipip-tunnel-addr-n2", ""),
}

// paths of what a thief writes to.
const (
	node1, node2         = "/api/v1/nodes/n1/status", "/api/v1/nodes/n2/status"
	events               = "/api/v1/namespaces/default/events"
	affinities, blocks   = v3Path + "blockaffinities", v3Path + "ipamblocks"
	handles              = v3Path + "ipamhandles"
	blockOf2, blockOf1   = blocks + "/10-20-0-0-29", blocks + "/10-20-0-8-29"
	nobodys, loadBalance = blocks + "/10-20-0-16-29", blocks + "/10-20-0-24-29"
)

// With the token of n1's agent: what another node has cannot be written, nor of n1
// what is not the network's. A function changes what is there, as a PUT.
var forbidden = []struct {
	what, method, path string
	body               any
	want               string // of the answer
}{
	{"another node's address", "PATCH", node2, `{"metadata":{"annotations":{"projectcalico.org/IPv4Address":"192.0.2.66/24"}}}`, "may not write another node"},
	{"drain another node", "PATCH", node2, `{"metadata":{"annotations":{"muslin.io/drain":"true"}}}`, "may not write another node"},
	{"another node's labels", "PATCH", node2, `{"metadata":{"labels":{"zone":"b"}}}`, "may not write another node"},
	{"another node's condition", "PATCH", node2, `{"status":{"conditions":[{"type":"NetworkUnavailable","status":"True"}]}}`, "may not write another node"},
	{"own labels", "PATCH", node1, `{"metadata":{"labels":{"node-role.kubernetes.io/control-plane":""}}}`, "may not write labels"},
	{"own finalizers", "PATCH", node1, `{"metadata":{"finalizers":["x.example/y"]}}`, "may not write labels"},
	{"own drain", "PATCH", node1, `{"metadata":{"annotations":{"muslin.io/drain":"true"}}}`, "may write no annotations"},
	{"own AS number", "PATCH", node1, `{"metadata":{"annotations":{"projectcalico.org/ASNumber":"1"}}}`, "may write no annotations"},
	{"take off others' annotations", "PATCH", node1, `{"metadata":{"annotations":{"other.example/x":null}}}`, "may write no annotations"},
	{"own condition Ready", "PATCH", node1, `{"status":{"conditions":[{"type":"Ready","status":"False"}]}}`, "no conditions"},
	{"own status.addresses", "PATCH", node1, `{"status":{"addresses":[{"type":"InternalIP","address":"192.0.2.66"}]}}`, "nothing of the status"},
	{"own capacity", "PATCH", node1, `{"status":{"capacity":{"cpu":"64"}}}`, "nothing of the status"},
	{"a node itself", "PATCH", "/api/v1/nodes/n1", `{"spec":{"unschedulable":true}}`, "cannot patch resource"},
	{"event of another node", "POST", events, event("Node", "n2", "n1"), "this node and of BGPPeers"},
	{"event of a pod", "POST", events, event("Pod", "p", "n1"), "this node and of BGPPeers"},
	{"event in another's name", "POST", events, event("Node", "n1", "n2"), "another source"},
	{"event elsewhere", "POST", "/api/v1/namespaces/kube-system/events", event("Node", "n1", "n1"), "cannot create resource"},
	{"another node's status", "PATCH", v3Path + "caliconodestatuses/of-n2/status", `{"status":{"lastUpdated":null}}`, "status of another node"},
	{"another node's affinity", "PUT", affinities + "/n2-10-20-0-0-29", set("spec.state", "pendingDeletion"), "affinity of another node"},
	{"take an affinity over", "PUT", affinities + "/n2-10-20-0-0-29", set("spec.node", "n1"), "affinity of another node"},
	{"hand an affinity over", "PUT", affinities + "/n1-10-20-0-8-29", set("spec.node", "n2"), "affinity of another node"},
	{"delete an affinity", "DELETE", affinities + "/n2-10-20-0-0-29", nil, "affinity of another node"},
	{"delete that of an empty block", "DELETE", affinities + "/n2-10-20-0-32-29", nil, "affinity of another node"},
	{"claim for another node", "POST", affinities, affinity("n2-10-21-0-0-29", "n2", "10.21.0.0/29"), "affinity of another node"},
	{"claim under its name", "POST", affinities, affinity("n2-10-21-0-0-29", "n1", "10.21.0.0/29"), "the name has to be n1-10-21-0-0-29"},
	{"move an own affinity", "PUT", affinities + "/n1-10-20-0-8-29", set("spec.cidr", "10.20.0.0/29"), "same block as before"},
	{"block for another node", "POST", blocks, block("10.21.0.0/29", "host:n2", 8), "blocks of its own node only"},
	{"block for nobody", "POST", blocks, block("10.21.0.0/29", "", 8), "blocks of its own node only"},
	{"block with others' addresses", "POST", blocks, block("10.21.0.0/29", "host:n1", 8, owner("n2", "x")), "to its own node only"},
	{"take a block", "PUT", blockOf2, set("spec.affinity", "host:n1"), "whose block"},
	{"take nobody's block", "PUT", nobodys, set("spec.affinity", "host:n1"), "whose block"},
	{"hand a block over", "PUT", blockOf1, set("spec.affinity", "host:n2"), "whose block"},
	{"delete a block", "DELETE", blockOf2, nil, "may delete no block"},
	{"delete an empty block", "DELETE", blocks + "/10-20-0-32-29", nil, "may delete no block"},
	{"mark one as deleted", "PUT", blocks + "/10-20-0-32-29", set("spec.deleted", true), "may mark no block"},
	{"mark nobody's as deleted", "PUT", nobodys, set("spec.deleted", true), "may mark no block"},
	{"free its address", "PUT", blockOf2, slot(0, nil), "take an address from another node"},
	{"free its address in an own block", "PUT", blockOf1, slot(0, nil), "take an address from another node"},
	{"free its address in nobody's block", "PUT", nobodys, slot(0, nil), "take an address from another node"},
	{"say that it was released", "PUT", blockOf2, slot(0, object{"releasedAt": "2026-01-01T00:00:00Z"}), "take an address from another node"},
	{"take its address", "PUT", blockOf2, slot(0, owner("n1", "thief")), "take an address from another node"},
	{"take one by its handle", "PUT", blockOf2, slot(0, object{"handle_id": "k8s-pod-network.web", "secondary": object{"node": "n1"}}), "take an address from another node"},
	{"assign for another node", "PUT", blockOf2, slot(5, owner("n2", "x")), "to its own node only"},
	{"assign a load balancer's", "PUT", loadBalance, slot(0, owner("n1", "x")), "whose block"},
	{"queue an address in use", "PUT", blockOf2, set("spec.unallocated", []any{0, 3}), "not sound"},
	{"owner that does not parse", "PUT", blockOf2, slot(5, object{"handle_id": 5, "secondary": object{"node": "n1"}}), "denied"},
	{"time that does not parse", "PUT", blockOf2, slot(5, object{"releasedAt": "yesterday"}), "denied"},
	{"attribute that is none", "PUT", blockOf2, set("spec.allocations", []any{0, 1, 2, nil, nil, nil, nil, 9}), "denied"},
	{"fewer addresses", "PUT", blockOf2, set("spec.allocations", []any{0, 1, 2}), "denied"},
	{"sequence turned back", "PUT", blockOf2, set("spec.sequenceNumber", 1), "not sound"},
	{"sequence at its end", "PUT", blockOf2, set("spec.sequenceNumber", int64(9223372036854775807)), "not sound"},
	{"another node's handle", "PUT", handles + "/k8s-pod-network.web", set("spec.block", object{}), "handle of another node"},
	{"delete its handle", "DELETE", handles + "/k8s-pod-network.web", nil, "handle of another node"},
	{"hand a handle over", "PUT", handles + "/k8s-pod-network.mine", set("metadata.annotations", object{"muslin.io/node": "n2"}), "handle of another node"},
	{"make its handle", "POST", handles, handle("k8s-pod-network.new", "n2"), "handle of another node"},
	{"its tunnel's handle", "DELETE", handles + "/ipip-tunnel-addr-n2", nil, "of another node's tunnel"},
	{"a pool", "PATCH", v3Path + "ippools/p", `{}`, "cannot patch resource"},
	{"a pod", "PATCH", "/api/v1/namespaces/default/pods/p/status", `{}`, "cannot patch resource"},
	{"Secrets", "GET", "/api/v1/namespaces/muslin-system/secrets", nil, "cannot list resource"},
	{"a Secret by its name", "GET", "/api/v1/namespaces/muslin-system/secrets/other", nil, "cannot get resource"},
	{"a token", "POST", "/api/v1/namespaces/muslin-system/serviceaccounts/muslin-controller/token", `{}`, "cannot create resource"},
	{"Secrets of others", "GET", "/api/v1/namespaces/kube-system/secrets", nil, "cannot list resource"},
}

// What an agent has to be able to write.
var permitted = []struct {
	what, method, path string
	body               any
}{
	{"own address", "PATCH", node1, `{"metadata":{"annotations":{"projectcalico.org/IPv4Address":"192.0.2.1/24"}}}`},
	{"own condition", "PATCH", node1, `{"status":{"conditions":[{"type":"NetworkUnavailable","status":"False"}]}}`},
	{"own status", "PATCH", v3Path + "caliconodestatuses/of-n1/status", `{"status":{"lastUpdated":null}}`},
	{"event", "POST", events, event("Node", "n1", "n1")},
	{"borrow", "PUT", blockOf2, slot(5, owner("n1", "new"))},
	{"give back", "PUT", blockOf2, slot(1, nil)},
	{"what has cooled down", "PUT", blockOf2, slot(2, owner("n1", "new"))},
	{"the address of a pod that was there", "PUT", blockOf2, slot(0, owner("n1", "web"))},
	{"own", "PUT", blockOf1, slot(1, object{"releasedAt": "2026-01-01T00:00:00Z"})},
	{"a handle of an older release", "DELETE", handles + "/k8s-pod-network.old", nil},
	{"nobody's empty block, marked", "PUT", blocks + "/10-20-0-40-29", set("spec.deleted", true)},
	{"and deleted", "DELETE", blocks + "/10-20-0-40-29", nil},
	{"an empty block's claim beside another's", "POST", affinities, affinity("n1-10-20-0-32-29", "n1", "10.20.0.32/29")},
}

// set changes a field of what is there.
func set(path string, value any) func(object) {
	return func(o object) {
		parts := strings.Split(path, ".")
		for _, p := range parts[:len(parts)-1] {
			o = o[p].(object)
		}
		o[parts[len(parts)-1]] = value
	}
}

// slot gives an address of a block to an owner, or frees it.
func slot(at int, to object) func(object) {
	return func(o object) {
		spec := o["spec"].(object)
		slots, attributes, free := spec["allocations"].([]any), spec["attributes"].([]any), []any{}
		slots[at] = nil
		if to != nil {
			slots[at] = len(attributes)
			spec["attributes"] = append(attributes, to)
		}
		for i, s := range slots {
			if s == nil {
				free = append(free, i)
			}
		}
		spec["unallocated"] = free
		spec["sequenceNumber"] = spec["sequenceNumber"].(float64) + 1
	}
}

// try does a write of the tables; a function changes what an administrator sees.
func try(t *testing.T, s *kubetest.Server, cfg *rest.Config, method, path string, body any) (int, string) {
	t.Helper()
	if change, is := body.(func(object)); is {
		code, text := send(t, s.Config(), http.MethodGet, path, nil)
		var o object
		if err := json.Unmarshal([]byte(text), &o); err != nil || code != http.StatusOK {
			t.Fatalf("%d %s: %v", code, text, err)
		}
		change(o)
		body = o
	}
	return send(t, cfg, method, path, body)
}

// The token of a node's agent writes what is that node's, and nothing else.
func TestAdmission(t *testing.T) {
	server.Install(t)
	create(t, world...)
	cfg := server.ConfigOfPod(t, "muslin-system", "muslin-agent", "n1")
	until(t, "the policies are in force", func() bool {
		code, _ := try(t, server, cfg, "PATCH", node2, `{"metadata":{"annotations":{"muslin.io/drain-state":"x"}}}`)
		return code != http.StatusOK
	})
	for _, c := range forbidden {
		t.Run("forbidden/"+c.what, func(t *testing.T) {
			if code, text := try(t, server, cfg, c.method, c.path, c.body); code < 400 || !strings.Contains(text, c.want) || code == http.StatusConflict {
				t.Errorf("%s %s: %d %.600s, want %q", c.method, c.path, code, text, c.want)
			}
		})
	}
	unbound := server.Config()
	unbound.BearerToken = strings.TrimSpace(server.MustKubectl(t, "", "-n", "muslin-system", "create", "token", "muslin-agent"))
	if code, text := try(t, server, unbound, "PATCH", node1, permitted[0].body); code != http.StatusUnprocessableEntity || !strings.Contains(text, "the token is bound to no node") {
		t.Errorf("a token of no pod: %d %s", code, text)
	}
	for _, c := range permitted {
		t.Run("permitted/"+c.what, func(t *testing.T) {
			if code, text := try(t, server, cfg, c.method, c.path, c.body); code >= 400 {
				t.Errorf("%s %s: %d %.600s", c.method, c.path, code, text)
			}
		})
	}
}

// The largest blocks there are can be written, too: the server bounds what an
// expression may cost.
func TestAdmissionOfLargeBlocks(t *testing.T) {
	server.Install(t)
	const size = 4096
	for _, node := range []string{"n1", "n2"} {
		owners := make([]object, size-1)
		for i := range owners {
			owners[i] = owner(node, fmt.Sprintf("a-pod-with-a-name-of-usual-length-%d", i))
		}
		create(t, block(map[string]string{"n1": "10.32.0.0/20", "n2": "10.32.16.0/20"}[node], "host:"+node, size, owners...))
	}
	create(t, world[:2]...)
	cfg := server.ConfigOfPod(t, "muslin-system", "muslin-agent", "n1")
	for _, c := range []struct {
		path string
		at   int
		to   object
		good bool
	}{
		{"10-32-0-0-20", 5, nil, true}, {"10-32-0-0-20", size - 1, owner("n1", "x"), true},
		{"10-32-16-0-20", size - 1, owner("n1", "x"), true}, {"10-32-16-0-20", size - 2, nil, false},
	} {
		began := time.Now()
		code, text := try(t, server, cfg, "PUT", blocks+"/"+c.path, slot(c.at, c.to))
		if (code < 400) != c.good {
			t.Errorf("%s %d: %d %.600s", c.path, c.at, code, text)
		}
		t.Logf("%s %d: %v", c.path, c.at, time.Since(began))
	}
}

// create makes objects as the administrator, and deletes them when the test ends.
func create(t *testing.T, list ...object) {
	t.Helper()
	items := make([]any, len(list))
	for i, o := range list {
		items[i] = o
	}
	text, err := json.Marshal(object{"apiVersion": "v1", "kind": "List", "items": items})
	if err != nil {
		t.Fatal(err)
	}
	server.MustKubectl(t, string(text), "create", "-f", "-")
	t.Cleanup(func() { server.Kubectl(string(text), "delete", "--ignore-not-found", "-f", "-") })
}
