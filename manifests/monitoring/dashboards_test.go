package monitoring_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

type dashboard struct {
	ID         *int
	UID, Title string
	Tags       []string
	Inputs     any `json:"__inputs"`
	Templating struct {
		List []struct {
			Name, Type string
			Query      any
		}
	}
	Panels []struct {
		ID                       int
		Type, Title, Description string
		Datasource               struct{ UID string }
		Targets                  []struct {
			Expr       string
			Datasource struct{ UID string }
		}
		FieldConfig struct{ Defaults struct{ Unit string } }
		GridPos     struct{ X, Y, W, H int }
	}
}

// readDashboards gives them by file name.
func readDashboards(t *testing.T) map[string]dashboard {
	t.Helper()
	files, err := filepath.Glob("dashboards/*.json")
	if err != nil || len(files) != 4 {
		t.Fatalf("%q, %v", files, err)
	}
	out := map[string]dashboard{}
	for _, f := range files {
		var d dashboard
		text := read(t, f)
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		if len(text) > 200<<10 { // all of them are one ConfigMap, of 1 MiB at most
			t.Errorf("%s has %d bytes", f, len(text))
		}
		out[filepath.Base(f)] = d
	}
	return out
}

var variable = regexp.MustCompile(`\$(?:\{?)([a-z_A-Z]+)`)

// filled puts what Grafana puts in the place of variables when all is chosen.
func filled(expr string) string {
	return variable.ReplaceAllStringFunc(expr, func(v string) string {
		if v == "$__rate_interval" {
			return "5m"
		}
		return ".*"
	})
}

// Dashboards are as Grafana's users expect of shared ones: no ids of one
// installation, each panel explained, and its data source chosen.
func TestDashboards(t *testing.T) {
	uids := map[string]bool{}
	for name, d := range readDashboards(t) {
		if d.ID != nil || d.Inputs != nil || !strings.HasPrefix(d.UID, "muslin-") || uids[d.UID] || !slices.Contains(d.Tags, "muslin") || d.Title == "" {
			t.Errorf("%s: id %v, uid %q, tags %q, title %q", name, d.ID, d.UID, d.Tags, d.Title)
		}
		uids[d.UID] = true
		declared := map[string]bool{"__rate_interval": true}
		for _, v := range d.Templating.List {
			declared[v.Name] = true
		}
		if !declared["datasource"] || !declared["cluster"] {
			t.Errorf("%s: variables %v", name, declared)
		}
		taken := map[[2]int]string{}
		for _, p := range d.Panels {
			if p.Title == "" || p.Description == "" || p.FieldConfig.Defaults.Unit == "" || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
				t.Errorf("%s: panel %q lacks title, description, unit, source or query", name, p.Title)
			}
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
					if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
						t.Fatalf("%s: panels %q and %q overlap at %d,%d", name, p.Title, other, x, y)
					}
					taken[[2]int{x, y}] = p.Title
				}
			}
			for _, q := range p.Targets {
				for _, v := range variable.FindAllStringSubmatch(q.Expr, -1) {
					if !declared[v[1]] {
						t.Errorf("%s: %q: variable %s is not declared", name, p.Title, v[1])
					}
				}
			}
		}
	}
}

// Each query is of metrics that exist, and Prometheus can read it.
func TestDashboardsNameMetricsThatExist(t *testing.T) {
	known := documented(t)
	var rules []map[string]string
	for name, d := range readDashboards(t) {
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				for _, unknown := range unknownMetrics(q.Expr, known, nil) {
					t.Errorf("%s: %q: %s does not exist", name, p.Title, unknown)
				}
				rules = append(rules, map[string]string{"record": fmt.Sprintf("query:%d", len(rules)), "expr": filled(q.Expr)})
			}
		}
		for _, v := range d.Templating.List {
			if q, ok := v.Query.(map[string]any); ok {
				expr := strings.TrimPrefix(fmt.Sprint(q["query"]), "label_values(")
				for _, unknown := range unknownMetrics(expr, known, nil) {
					t.Errorf("%s: variable %s: %s does not exist", name, v.Name, unknown)
				}
			}
		}
	}
	text, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboards", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "queries.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "promtool", "check", "rules", path).CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}
