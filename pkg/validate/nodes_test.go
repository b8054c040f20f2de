package validate_test

import (
	"fmt"
	"testing"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/validate"
)

// counting is a selector that counts how often it is evaluated.
type counting struct {
	rack     string
	requests *int
}

func (c counting) String() string { return "rack == " + c.rack }
func (c counting) Matches(labels map[string]string) bool {
	*c.requests++
	return labels["rack"] == c.rack
}

// TestAnotherNode: what one node's event costs is little for each selector, however many
// nodes there are, and is right.
func TestAnotherNode(t *testing.T) {
	var s model.Snapshot
	requests := 0
	for i := range 1000 {
		rack := fmt.Sprint(i / 10)
		s.Nodes = append(s.Nodes, model.Node{Name: model.NodeName(fmt.Sprint("n", i)), Labels: map[string]string{"rack": rack}})
	}
	for i := range 110 { // the last ten have no rack
		s.Peers = append(s.Peers, model.BGPPeer{Name: fmt.Sprint("p", i), NodeSelector: counting{fmt.Sprint(i), &requests}})
	}
	var nodes validate.Nodes
	look := func() int {
		requests = 0
		nodes.See(s.Nodes)
		return len(validate.BGP(s, &nodes)) + len(validate.Placed(s, nil, &nodes))
	}
	if got := look(); got != 10 {
		t.Errorf("%d problems, want those of ten selectors", got)
	}
	for _, c := range []struct {
		name   string
		change func()
		want   int
	}{
		{"nothing", func() {}, 10},
		{"a node comes", func() {
			s.Nodes = append(s.Nodes, model.Node{Name: "new", Labels: map[string]string{"rack": "105"}})
		}, 9},
		{"it gets another label", func() { s.Nodes[1000].Labels = map[string]string{"rack": "106"} }, 9},
		{"it goes", func() { s.Nodes = s.Nodes[:1000] }, 10},
	} {
		c.change()
		got := look()
		if got != c.want {
			t.Errorf("%s: %d problems, want %d", c.name, got, c.want)
		}
		if requests > 2*len(s.Peers)+2*len(s.Nodes) {
			t.Errorf("%s: selectors were evaluated %d times", c.name, requests)
		}
	}
	s.Nodes = s.Nodes[10:]
	if got := look(); got != 11 {
		t.Errorf("without a rack: %d problems", got)
	}
}
