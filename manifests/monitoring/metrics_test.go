package monitoring_test

import (
	"regexp"
	"strings"
	"testing"
)

// documented are the metrics of docs/operations.md with their type and labels. The
// tests of cmd/agent/app and cmd/controller hold that table against what is collected.
func documented(t *testing.T) map[string]documentedMetric {
	t.Helper()
	out := map[string]documentedMetric{}
	row := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (gauge|counter|histogram) \\| ([a-z, ]*)\\|")
	for _, m := range row.FindAllStringSubmatch(string(read(t, "../../docs/operations.md")), -1) {
		known := out[m[1]]
		known.kind = m[2]
		known.labels = append(known.labels, strings.FieldsFunc(m[3], func(r rune) bool { return r == ',' || r == ' ' })...)
		out[m[1]] = known
	}
	if len(out) < 30 {
		t.Fatalf("docs/operations.md has %d metrics; is it read as it should be?", len(out))
	}
	return out
}

type documentedMetric struct {
	kind   string
	labels []string
}

// of targets, whatever is scraped
var targetLabels = []string{"job", "instance", "node", "cluster"}

var (
	metricName = regexp.MustCompile(`\b(?:muslin|ipam|ippool|go|process)[_:][a-z0-9_:]+`)
	selector   = regexp.MustCompile(`\b([a-z0-9_:]+)\{([^}]*)\}`)
	labelName  = regexp.MustCompile(`([a-z_]+)\s*(?:=|!=|=~|!~)\s*"`)
)

// unknownMetrics are names in an expression that nothing has, and labels that the
// metric does not have.
func unknownMetrics(expr string, known map[string]documentedMetric, recorded map[string]bool) []string {
	var out []string
	base := func(name string) (documentedMetric, bool) {
		m, ok := known[name]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if h, cut := strings.CutSuffix(name, suffix); cut && !ok && known[h].kind == "histogram" {
				return known[h], true
			}
		}
		return m, ok
	}
	for _, name := range metricName.FindAllString(expr, -1) {
		_, ok := base(name)
		if !ok && !recorded[name] && !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			out = append(out, name)
		}
	}
	for _, s := range selector.FindAllStringSubmatch(expr, -1) {
		m, ok := base(s[1])
		for _, l := range labelName.FindAllStringSubmatch(s[2], -1) {
			if labels := strings.Join(append(append([]string{"le"}, m.labels...), targetLabels...), " "); ok && !strings.Contains(" "+labels+" ", " "+l[1]+" ") {
				out = append(out, s[1]+"{"+l[1]+"}")
			}
		}
	}
	return out
}

// No alert asks for what nobody tells.
func TestRulesNameMetricsThatExist(t *testing.T) {
	known, recorded := documented(t), map[string]bool{}
	for _, r := range readRules(t) {
		recorded[r.Record] = true
	}
	for _, r := range readRules(t) {
		for _, name := range unknownMetrics(r.Expr, known, recorded) {
			t.Errorf("%s%s: %s does not exist", r.Alert, r.Record, name)
		}
	}
	if got := unknownMetrics(`muslin_nonsense > 0 and muslin_ready{nonsense="1"} and muslin_cni_seconds_bucket{verb="ADD",le="1"}`, known, nil); len(got) != 2 {
		t.Errorf("the test finds %q of what it should", got)
	}
}
