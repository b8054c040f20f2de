package main

import (
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/cmd/controller/app"
	"github.com/prometheus/client_golang/prometheus"
)

// The user guide's table of the controller has each metric that is collected, with
// its labels, and no other.
func TestMetricsAreDocumented(t *testing.T) {
	reg := described{}
	if err := (&app.Controller{}).Register(reg); err != nil {
		t.Fatal(err)
	}
	reg.MustRegister(buildInfo())
	guide, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(guide), "\nOf the controller, ")
	table, _, _ = strings.Cut(table, "\n## ")
	documented := described{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (gauge|counter) \\| ([a-z, ]*)\\|").FindAllStringSubmatch(table, -1) {
		documented[m[1]] = strings.ReplaceAll(strings.TrimSpace(m[3]), " ", "")
	}
	if !maps.Equal(reg, documented) {
		t.Errorf("collected: %v\nin the guide: %v", reg, documented)
	}
}

// described is a Registerer that keeps the labels of each metric by its name.
type described map[string]string

func (d described) Register(c prometheus.Collector) error {
	all := make(chan *prometheus.Desc, 1000)
	c.Describe(all)
	close(all)
	for one := range all {
		m := regexp.MustCompile(`^Desc\{fqName: "([^"]+)".*variableLabels: \{([^}]*)\}`).FindStringSubmatch(one.String())
		d[m[1]] = m[2]
	}
	return nil
}

func (d described) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		_ = d.Register(c)
	}
}

func (d described) Unregister(prometheus.Collector) bool { return false }
