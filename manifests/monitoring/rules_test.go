package monitoring_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

var update = flag.Bool("update", false, "write rules/prometheusrule.yaml")

const rulesFile = "rules/muslin.yaml"

type rule struct {
	Alert, Record, Expr, For string
	Labels, Annotations      map[string]string
}

// readRules gives the rules of rules/muslin.yaml.
func readRules(t *testing.T) []rule {
	t.Helper()
	var file struct{ Groups []struct{ Rules []rule } }
	if err := yaml.Unmarshal(read(t, rulesFile), &file); err != nil {
		t.Fatal(err)
	}
	var out []rule
	for _, g := range file.Groups {
		out = append(out, g.Rules...)
	}
	return out
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Prometheus' own tool reads the rules, and runs the tests of theirs.
func TestRules(t *testing.T) {
	for _, args := range [][]string{{"check", "rules", "muslin.yaml"}, {"test", "rules", "muslin_test.yaml"}} {
		cmd := exec.CommandContext(t.Context(), "promtool", args...)
		cmd.Dir = "rules"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// Each alert has a test in which it fires, and one of a time when it does not.
func TestEachAlertIsTested(t *testing.T) {
	var file struct {
		Tests []struct {
			Alerts []struct {
				Alertname string
				Expected  []any `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		}
	}
	if err := yaml.Unmarshal(read(t, "rules/muslin_test.yaml"), &file); err != nil {
		t.Fatal(err)
	}
	fires, discard := map[string]bool{}, map[string]bool{}
	for _, test := range file.Tests {
		for _, a := range test.Alerts {
			if len(a.Expected) > 0 {
				fires[a.Alertname] = true
			} else {
				discard[a.Alertname] = true
			}
		}
	}
	for _, r := range readRules(t) {
		if r.Alert != "" && (!fires[r.Alert] || !discard[r.Alert]) {
			t.Errorf("%s: fires in a test: %v, is quiet in one: %v", r.Alert, fires[r.Alert], discard[r.Alert])
		}
	}
}

// The operator gets the same rules.
func TestPrometheusRule(t *testing.T) {
	const path = "rules/prometheusrule.yaml"
	var b bytes.Buffer
	b.WriteString("# Made from muslin.yaml by go test ./manifests/monitoring -update.\n" +
		"apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: muslin\nspec:\n")
	_, groups, ok := strings.Cut(string(read(t, rulesFile)), "\ngroups:\n")
	if !ok {
		t.Fatal("no groups")
	}
	b.WriteString("  groups:\n")
	for line := range strings.Lines(groups) {
		b.WriteString("  " + line)
	}
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(read(t, path), b.Bytes()) {
		t.Errorf("%s is not what %s makes: go test ./manifests/monitoring -update", path, rulesFile)
	}
	var object, source struct {
		Groups any
		Spec   struct{ Groups any }
	}
	if err := yaml.Unmarshal(b.Bytes(), &object); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(read(t, rulesFile), &source); err != nil || fmt.Sprint(object.Spec.Groups) != fmt.Sprint(source.Groups) {
		t.Errorf("other groups than in %s: %v", rulesFile, err)
	}
}

// Each alert has a page and says what a reader needs; each page is of an alert,
// starts with a command that there is, and links to files that there are.
func TestRunbooks(t *testing.T) {
	const dir = "../../docs/runbooks"
	commands := string(read(t, "../../docs/muslinctl.md"))
	pages, err := filepath.Glob(dir + "/*.md")
	if err != nil {
		t.Fatal(err)
	}
	left := map[string]bool{}
	for _, p := range pages {
		left[strings.TrimSuffix(filepath.Base(p), ".md")] = true
	}
	for _, r := range readRules(t) {
		if r.Alert == "" {
			continue
		}
		delete(left, r.Alert)
		if want := "https://github.com/muslin-net/muslin/blob/main/docs/runbooks/" + r.Alert + ".md"; r.Annotations["runbook_url"] != want {
			t.Errorf("%s: runbook_url %q", r.Alert, r.Annotations["runbook_url"])
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
			t.Errorf("%s: lacks summary, description or severity", r.Alert)
		}
		page := string(read(t, filepath.Join(dir, r.Alert+".md")))
		command, ok := strings.CutPrefix(page, "# "+r.Alert+"\n\n    muslinctl ")
		if !ok {
			t.Errorf("%s: the page does not start with a command of muslinctl", r.Alert)
			continue
		}
		words := regexp.MustCompile(`^[a-z -]*[a-z]`).FindString(command)
		if words, _, _ = strings.Cut(words, " --"); !strings.Contains(commands, "\n### muslinctl "+words+"\n") {
			t.Errorf("%s: there is no muslinctl %s", r.Alert, words)
		}
		for _, m := range regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`).FindAllStringSubmatch(page, -1) {
			if _, err := os.Stat(filepath.Join(dir, m[1])); err != nil {
				t.Errorf("%s: %v", r.Alert, err)
			}
		}
	}
	for name := range left {
		t.Errorf("docs/runbooks/%s.md is of no alert", name)
	}
}

// kustomize reads it all, and PodMonitors name a port and labels of the pods that
// the component makes.
func TestKustomize(t *testing.T) {
	out := kustomize(t, kubetest.Root()+"/manifests/monitoring")
	for _, want := range []string{"kind: PodMonitor", "kind: PrometheusRule", "grafana_dashboard: \"1\"", "fabric.json: "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in what kustomize makes", want)
		}
	}
	found := map[string]string{} // component → port named metrics
	for doc := range strings.SplitSeq(kustomize(t, kubetest.Root()+"/manifests/overlays/monitoring"), "\n---\n") {
		var o struct {
			Spec struct {
				Template struct {
					Metadata struct{ Labels map[string]string }
					Spec     struct {
						Containers []struct {
							Ports []struct {
								Name          string
								ContainerPort int
							}
							Env []struct{ Name, Value string }
						}
					}
				}
			}
		}
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			continue // another kind
		}
		for _, c := range o.Spec.Template.Spec.Containers {
			for _, p := range c.Ports {
				for _, e := range c.Env {
					if p.Name == "metrics" && e.Name == "MUSLIN_METRICS_ADDR" && e.Value == fmt.Sprintf(":%d", p.ContainerPort) {
						labels := o.Spec.Template.Metadata.Labels
						found[labels["app.kubernetes.io/name"]+" "+labels["app.kubernetes.io/component"]] = e.Value
					}
				}
			}
		}
	}
	if found["muslin agent"] == "" || found["muslin controller"] == "" || found["muslin agent"] == found["muslin controller"] {
		t.Errorf("ports of metrics: %v; they are of the host's network", found)
	}
}

func kustomize(t *testing.T, dir string) string {
	t.Helper()
	bin, err := kubetest.Binary()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), bin, "kubectl", "kustomize", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("kustomize %s: %v\n%s", dir, err, out)
	}
	return string(out)
}
