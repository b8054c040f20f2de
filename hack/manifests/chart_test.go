package manifests

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/muslin-net/muslin/cmd/controller/seed"
)

const chart = root + "/manifests/charts/muslin"

// helmPath is where the Helm that hack/tools pins has been built.
var helmPath = sync.OnceValues(func() (string, error) {
	out, err := exec.CommandContext(context.Background(), "go", "tool", "-modfile="+root+"/hack/tools/helm/go.mod", "-n", "helm").Output()
	return strings.TrimSpace(string(out)), err
})

// helm runs Helm and gives what it prints, or what it says is wrong.
func helm(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	path, err := helmPath()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	var out, wrong bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &wrong
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+t.TempDir(), "HELM_CONFIG_HOME="+t.TempDir(), "HELM_DATA_HOME="+t.TempDir(), "KUBECONFIG=/dev/null")
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, wrong.String())
	}
	return out.String(), nil
}

// template renders the chart with values, given as YAML.
func template(t *testing.T, values string, args ...string) (string, error) {
	t.Helper()
	return helm(t, values, append([]string{"template", "muslin", chart, "--kube-version=1.33.0", "--namespace=kube-system", "-f", "-"}, args...)...)
}

// chartsOwn are labels and annotations that the chart has on objects which kustomize does
// not have on all.
var chartsOwn = []string{"app.kubernetes.io/name", "app.kubernetes.io/part-of", "app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart", "helm.sh/resource-policy"}

// The chart is what kubectl apply -k takes, with its defaults that with metrics.
func TestChartIsTheManifests(t *testing.T) {
	t.Run("plain", func(t *testing.T) { sameAs(t, "metrics: {enabled: false}", root+"/manifests") })
	t.Run("defaults", func(t *testing.T) { sameAs(t, "{}", root+"/manifests/overlays/monitoring") })
	t.Run("operator", func(t *testing.T) {
		sameAs(t, "metrics: {podMonitor: true, prometheusRule: true, dashboards: true}", root+"/manifests/overlays/monitoring", root+"/manifests/monitoring")
	})
}

// sameAs compares the chart with kustomizations, object by object and field by field.
func sameAs(t *testing.T, values string, kustomizations ...string) {
	t.Helper()
	text, err := template(t, values, "--skip-tests")
	if err != nil {
		t.Fatal(err)
	}
	rendered, err := Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var want []Object
	for _, dir := range kustomizations {
		text, err := Render(dir)
		if err != nil {
			t.Fatal(err)
		}
		objects, err := Decode(text)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, objects...)
	}
	differ := slices.DeleteFunc(Differences(want, rendered), func(place string) bool {
		return slices.ContainsFunc(chartsOwn, func(own string) bool {
			return strings.HasSuffix(place, " metadata.labels."+own) || strings.HasSuffix(place, " metadata.annotations."+own)
		})
	})
	if len(differ) > 0 || len(rendered) != len(want) {
		t.Errorf("%d objects, want %d; the chart differs from the manifests in\n%s", len(rendered), len(want), strings.Join(differ, "\n"))
	}
	for _, o := range rendered {
		if labels := o["metadata"].(map[string]any)["labels"].(map[string]any); labels["app.kubernetes.io/managed-by"] != "Helm" {
			t.Errorf("%v %v: labels %v", o["kind"], o["metadata"], labels)
		}
	}
}

// The namespace is there already when the release is in it.
func TestChartInItsNamespace(t *testing.T) {
	text, err := template(t, "crds: {enabled: false}", "--namespace=muslin-system")
	if err != nil || strings.Contains(text, "\nkind: Namespace\n") || !strings.Contains(text, "\nkind: DaemonSet\n") {
		t.Errorf("%v\n%s", err, text)
	}
}

// others are values that a leaf of values.yaml can have beside its default, for those of
// which none follows from the default.
var others = map[string]any{
	"image.digest": "sha256:" + strings.Repeat("0f", 32), "image.pullPolicy": "Always", "image.repository": "registry.example.net/muslin",
	"imagePullSecrets": []any{map[string]any{"name": "secret"}}, "global.imageRegistry": "mirror.example.net:5000",
	"metrics.operatorLabels": map[string]any{"release": "stack"},
	"commonLabels":           map[string]any{"team": "net"},
	"seed":                   []any{map[string]any{"kind": "IPPool", "metadata": map[string]any{"name": "x"}, "spec": map[string]any{"cidr": "10.0.0.0/16"}}},
	"defaultPools.ipv4":      "10.9.0.0/16", "defaultPools.ipv6": "fd00::/56", "apiServer.port": "7445",
	"crds.enabled":   true, // beside false, with which the others are rendered
	"agent.logLevel": "debug", "controller.logLevel": "debug",
	"agent.withoutCapabilities": []any{"NET_RAW"},
	"agent.updateStrategy.type": "OnDelete", "agent.updateStrategy.rollingUpdate.maxUnavailable": 2,
	"agent.tolerations": []any{}, "controller.tolerations": []any{},
	"agent.affinity": map[string]any{"nodeAffinity": map[string]any{"x": "y"}}, "controller.affinity": map[string]any{"nodeAffinity": map[string]any{"x": "y"}},
	"agent.podAnnotations": map[string]any{"a": "b"}, "controller.podAnnotations": map[string]any{"a": "b"},
	"agent.podLabels": map[string]any{"a": "b"}, "controller.podLabels": map[string]any{"a": "b"},
	"agent.extraEnv": []any{map[string]any{"name": "A", "value": "b"}}, "controller.extraEnv": []any{map[string]any{"name": "A", "value": "b"}},
}

// besides are what a leaf needs to have a meaning, with a value.
var besides = map[string]struct {
	path  string
	value any
}{
	"apiServer.port": {"apiServer.host", "x"}, "metrics.tls": {"metrics.authorization", false}, "metrics.operatorLabels": {"metrics.podMonitor", true},
}

// Every value changes something, is in the schema, and is refused by name when it is
// misspelt.
func TestEveryValue(t *testing.T) {
	text, err := os.ReadFile(chart + "/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var values map[string]any
	if err := yaml.Unmarshal(text, &values); err != nil {
		t.Fatal(err)
	}
	without := map[string]any{"crds": map[string]any{"enabled": false}} // which are many
	plain, err := template(t, document(without))
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(chart + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	leaves(values, "", func(path string, value any) {
		if !strings.Contains(string(readme), "`"+path+"`") {
			t.Errorf("README.md has no %s", path)
		}
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			with := map[string]any{"crds": map[string]any{"enabled": false}}
			if beside, ok := besides[path]; ok {
				put(with, beside.path, beside.value)
			}
			put(with, path, another(path, value))
			got, err := template(t, document(with))
			if err != nil || got == plain {
				t.Errorf("with %s nothing changes; %v", document(with), err)
			}
			misspelt := map[string]any{}
			put(misspelt, path+"x", value)
			name := path[strings.LastIndex(path, ".")+1:] + "x"
			if strings.HasPrefix(path, "global.") || strings.Contains(path, "resources.requests.") || strings.Contains(path, ".rollingUpdate.") {
				return // others' names are in there
			}
			if _, err := template(t, document(misspelt)); err == nil || !strings.Contains(err.Error(), "additional properties '"+name+"' not allowed") {
				t.Errorf("with %s: %v", document(misspelt), err)
			}
		})
	})
}

// What the schema refuses is refused with the name of the value.
func TestSchemaRefuses(t *testing.T) {
	for values, want := range map[string]string{
		"image: {digest: sha256:12}":                                    "/image/digest",
		"agent: {cni: {binDir: opt/cni/bin}}":                           "/agent/cni/binDir",
		"agent: {logLevel: loud}":                                       "/agent/logLevel",
		"agent: {withoutCapabilities: [NET_ADMIN]}":                     "/agent/withoutCapabilities/0",
		"agent: {extraEnv: [{nam: A}]}":                                 "'nam' not allowed",
		"defaultPools: {ipv4: \"fd00::/56\"}":                           "/defaultPools/ipv4",
		"seed: [{kind: IPPol, metadata: {name: x}, spec: {}}]":          "/seed/0/kind",
		"seed: [{kind: IPPool, metadata: {}, spec: {}}]":                "/seed/0/metadata",
		"seed: [{kind: IPPool, metadata: {name: x}, spek: {}}]":         "'spek' not allowed",
		"seed: [{kind: IPPool, metadata: {name: x, uid: u}, spec: {}}]": "'uid' not allowed",
		"apiServer: {port: \"7445\"}":                                   "apiServer.host is needed",
		"metrics: {agentPort: 0}":                                       "/metrics/agentPort",
		"metrics: {enabled: false, dashboards: true}":                   "need metrics.enabled",
		"metrics: {tls: false}":                                         "metrics.authorization needs metrics.tls",
		"apiServer: {host: h, port: 7445}":                              "/apiServer/port",
	} {
		if _, err := template(t, values); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", values, err, want)
		}
	}
}

// A capability that is left out is not granted, and the agent is told that it is on
// purpose.
func TestCapabilitiesOfChart(t *testing.T) {
	text, err := template(t, "{crds: {enabled: false}, agent: {withoutCapabilities: [NET_RAW, NET_BIND_SERVICE]}}")
	if err != nil {
		t.Fatal(err)
	}
	for part, want := range map[string]bool{
		"add:\n            - NET_ADMIN\n            - SYS_ADMIN\n":                       true,
		"name: MUSLIN_WITHOUT_CAPABILITIES\n          value: NET_RAW,NET_BIND_SERVICE\n": true,
		"- NET_RAW\n": false, "- NET_BIND_SERVICE\n": false,
	} {
		if strings.Contains(text, part) != want {
			t.Errorf("%q: want %v\n%s", part, want, text)
		}
	}
}

// What the values name as a seed is one to the controller, and the schema names its kinds.
func TestSeedOfChart(t *testing.T) {
	text, err := template(t, `{crds: {enabled: false}, seed: [
  {kind: IPPool, metadata: {name: pods, labels: {a: b}}, spec: {cidr: 10.9.0.0/16}}, {kind: BGPPeer, apiVersion: projectcalico.org/v3, metadata: {name: tor}, spec: {peerIP: 192.0.2.1, asNumber: 65101}}]}`)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(objects, func(o Object) bool {
		return o["kind"] == "ConfigMap" && o["metadata"].(map[string]any)["name"] == seed.Name
	})
	if i < 0 {
		t.Fatal("no ConfigMap of the seed")
	}
	data := map[string]string{}
	for key, value := range objects[i]["data"].(map[string]any) {
		data[key] = value.(string)
	}
	var got []string
	seeds, refused := seed.Read(data)
	for _, o := range seeds {
		got = append(got, o.String())
	}
	if diff := cmp.Diff([]string{"IPPool pods (values.yaml)", "BGPPeer tor (values.yaml, document 2)"}, got); diff != "" || len(refused) > 0 {
		t.Errorf("%s\nrefused %v", diff, refused)
	}
	var schema struct {
		Properties struct {
			Seed struct {
				Items struct {
					Properties struct{ Kind struct{ Enum []string } }
				}
			}
		}
	}
	if text, err := os.ReadFile(chart + "/values.schema.json"); err != nil || json.Unmarshal(text, &schema) != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(seed.Kinds, schema.Properties.Seed.Items.Properties.Kind.Enum); diff != "" {
		t.Error(diff)
	}
}

// Helm itself finds no fault, and what is packaged renders as the folder does: the
// links in it are files then.
func TestChartPackaged(t *testing.T) {
	if out, err := helm(t, "", "lint", "--strict", "--kube-version=1.33.0", chart); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	dir := t.TempDir()
	if out, err := helm(t, "", "package", chart, "--destination="+dir, "--version=1.2.3", "--app-version=v1.2.3"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	folder, err := template(t, "{}")
	if err != nil {
		t.Fatal(err)
	}
	packed, err := helm(t, "", "template", "muslin", filepath.Join(dir, "muslin-1.2.3.tgz"), "--kube-version=1.33.0", "--namespace=kube-system")
	if err != nil {
		t.Fatal(err)
	}
	stamp := strings.NewReplacer("app.kubernetes.io/version: v1.2.3", "app.kubernetes.io/version: dev", "helm.sh/chart: muslin-1.2.3", "helm.sh/chart: muslin-0.0.0-dev")
	if diff := cmp.Diff(folder, stamp.Replace(packed)); diff != "" {
		t.Error(diff)
	}
}

func document(values map[string]any) string {
	text, err := json.Marshal(values)
	if err != nil {
		panic(err) // maps and texts of this test
	}
	return string(text)
}

// another is a value of the leaf's kind that is not value.
func another(path string, value any) any {
	if other, ok := others[path]; ok {
		return other
	}
	switch v := value.(type) {
	case bool:
		return !v
	case float64:
		return v + 1
	default:
		return fmt.Sprint(v) + "x"
	}
}

// leaves calls each with the places that hold no map, or an empty one.
func leaves(values map[string]any, path string, each func(string, any)) {
	for name, v := range values {
		place := strings.TrimPrefix(path+"."+name, ".")
		if m, ok := v.(map[string]any); ok && len(m) > 0 {
			leaves(m, place, each)
			continue
		}
		each(place, v)
	}
}

func put(values map[string]any, path string, v any) {
	name, rest, deeper := strings.Cut(path, ".")
	if !deeper {
		values[name] = v
		return
	}
	below, _ := values[name].(map[string]any)
	if below == nil {
		below = map[string]any{}
		values[name] = below
	}
	put(below, rest, v)
}
