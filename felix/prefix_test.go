package felix_test

import (
	"slices"
	"testing"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/pkg/model"
)

// TestInterfacePrefixes: pods are found under the prefixes of now and of earlier,
// also before FelixConfiguration has been read.
func TestInterfacePrefixes(t *testing.T) {
	pods := []model.Endpoint{{HostInterface: "eni01234567890"}, {HostInterface: "cali01234567890"}, {HostInterface: "eni09876543210"}}
	for _, c := range []struct {
		setting string
		want    []string
	}{
		{"", []string{"cali", "eni"}},
		{"eni", []string{"eni", "cali"}},
		{"pod,tap", []string{"pod", "cali", "eni", "tap"}},
		{"calico", []string{"cali", "eni"}}, // no prefix
	} {
		s := model.Snapshot{Felix: []model.FelixConfiguration{{Name: "default", InterfacePrefix: c.setting}}}
		if got := felix.InterfacePrefixes(s, "n1", pods); !slices.Equal(got, c.want) {
			t.Errorf("interfacePrefix %q: %v, want %v", c.setting, got, c.want)
		}
	}
	if got := felix.InterfacePrefixes(model.Snapshot{}, "n1", pods[:1]); !slices.Contains(got, "eni") {
		t.Errorf("without any configuration: %v lack the prefix of a pod that is here", got)
	}
}
