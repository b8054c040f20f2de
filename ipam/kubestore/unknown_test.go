package kubestore_test

import (
	"strings"
	"testing"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

// TestUnknownKeysStay: keys of a spec that this release does not know are kept by
// the server, and by whoever reads an object and writes it.
func TestUnknownKeysStay(t *testing.T) {
	wipe(t)
	s, ctx, cidr := open(t), t.Context(), prefix("10.6.0.0/30")
	server.MustKubectl(t, `
apiVersion: projectcalico.org/v3
kind: IPAMBlock
metadata: {name: 10-6-0-0-30}
spec:
  cidr: 10.6.0.0/30
  affinity: host:n1
  allocations: [0, null, null, null]
  unallocated: [1, 2, 3]
  attributes: [{handle_id: a, alternateOwnerAttrs: {pod: b}, future: {deep: [1, null]}}]
  strictAffinity: false
  later: block
---
apiVersion: projectcalico.org/v3
kind: BlockAffinity
metadata: {name: n1-10-6-0-0-30}
spec: {cidr: 10.6.0.0/30, node: n1, state: pending, type: host, deleted: false, later: affinity}
---
apiVersion: projectcalico.org/v3
kind: IPAMHandle
metadata: {name: a}
spec: {handleID: a, block: {10.6.0.0/30: 1}, later: {of: handle}}
`, "create", "-f", "-")
	for range 2 { // the answer of a write has no spec: what was read is remembered
		b, rev, err := s.Blocks().Get(ctx, cidr)
		if err != nil {
			t.Fatal(err)
		}
		b.Assign(1, ipam.Attribute{Handle: "c"}, nil)
		b.Bump()
		if _, err = s.Blocks().Update(ctx, b, rev); err != nil {
			t.Fatal(err)
		}
	}
	aff, affRev, err := s.Affinities().Get(ctx, ipam.AffinityKey{Node: "n1", CIDR: cidr})
	for _, state := range []model.BlockState{model.BlockConfirmed, model.BlockPending, model.BlockConfirmed} {
		if aff.State = state; err == nil {
			affRev, err = s.Affinities().Update(ctx, aff, affRev)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	h, handleRev, err := s.Handles().Get(ctx, "a")
	for n := range 3 {
		if h.Blocks[cidr] = n + 2; err == nil {
			handleRev, err = s.Handles().Update(ctx, h, handleRev)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	for object, parts := range map[string][]string{
		"ipamblock/10-6-0-0-30":        {`"later":"block"`, `"future":{"deep":[1,null]}`, `"alternateOwnerAttrs":{"pod":"b"}`, `"handle_id":"c"`},
		"blockaffinity/n1-10-6-0-0-30": {`"later":"affinity"`, `"state":"confirmed"`},
		"ipamhandle/a":                 {`"later":{"of":"handle"}`, `"10.6.0.0/30":4`},
	} {
		got := server.MustKubectl(t, "", "get", object, "-o", "jsonpath={.spec}")
		for _, part := range parts {
			if !strings.Contains(got, part) {
				t.Errorf("%s: %s is not in %s", object, part, got)
			}
		}
	}
}
