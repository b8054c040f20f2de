package app

import (
	"fmt"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
)

func TestPieces(t *testing.T) {
	for _, c := range []struct {
		cidr  string
		block int64
		n     int
		want  string // or part of the error
	}{
		{"10.0.0.0/16", 26, 2, "[10.0.0.0/17 10.0.128.0/17]"},
		{"10.0.0.0/22", 26, 4, "[10.0.0.0/24 10.0.1.0/24 10.0.2.0/24 10.0.3.0/24]"},
		{"10.0.0.0/25", 26, 2, "[10.0.0.0/26 10.0.0.64/26]"},
		{"10.0.0.0/25", 26, 4, "are smaller than a block, which is a /26"},
		{"10.0.0.0/26", 0, 2, "are smaller than a block, which is a /26"},
		{"fd00::/47", 122, 4, "[fd00::/49 fd00:0:0:8000::/49 fd00:0:1::/49 fd00:0:1:8000::/49]"},
		{"fd00::/121", 0, 2, "[fd00::/122 fd00::40/122]"},
		{"10.0.0.0", 26, 2, "spec.cidr"},
	} {
		spec := api.Object{"cidr": c.cidr}
		if c.block > 0 {
			spec["blockSize"] = c.block
		}
		got, err := pieces(api.Object{"metadata": api.Object{"name": "p"}, "spec": spec}, c.n)
		text := fmt.Sprint(got)
		if err != nil {
			text = err.Error()
		}
		if !strings.Contains(text, c.want) {
			t.Errorf("%s into %d: %s, want %s", c.cidr, c.n, text, c.want)
		}
	}
}
