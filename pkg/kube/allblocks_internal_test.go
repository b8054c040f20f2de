package kube

import (
	"fmt"
	"log/slog"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/muslin-net/muslin/pkg/model"
)

// What pods have out of their own node's block concerns no other node: it wakes
// nobody, however often it changes.
func TestOwnPodsOfOtherNodesAreNoNews(t *testing.T) {
	c, err := New(&rest.Config{Host: "https://192.0.2.1"}, Options{
		Node: "n1", AllBlocksWhile: func(model.Snapshot) bool { return true }, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	news := func(generation int64, allocations, node string) bool {
		o := obj("10-244-2-0-30", fmt.Sprintf(`{"cidr": "10.244.2.0/30", "affinity": "host:n2", "allocations": %s,
			"attributes": [{"secondary": {"node": "n2"}}, {"secondary": {"node": %q}}]}`, allocations, node))
		o.Generation = generation
		if err := c.all.lent.Update(o); err != nil {
			t.Fatal(err)
		}
		select {
		case <-c.Changed():
			return true
		default:
			return false
		}
	}
	if !news(1, `[null, null, null, null]`, "n2") {
		t.Error("a new block is no news")
	}
	if news(2, `[0, 1, null, null]`, "n2") {
		t.Error("pods of the block's own node are news")
	}
	if !news(3, `[0, 1, null, null]`, "n3") {
		t.Error("an address that another node has is no news")
	}
	if news(4, `[null, 1, null, null]`, "n3") {
		t.Error("a pod of the block's own node that ends is news")
	}
}
