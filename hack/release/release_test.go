package release

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/muslin-net/muslin/hack/thirdparty"
)

const root = "../.."

func TestVersions(t *testing.T) {
	for version, good := range map[string]bool{
		"v1.2.3": true, "v0.1.0-rc.1": true, "v1.2.3-a-b": true,
		"": false, "1.2.3": false, "v1.2": false, "v01.2.3": false, "v1.2.3+meta": false, "v1.2.3-": false, "v1.2.3\n": false, "v1.2.3/..": false,
	} {
		if _, err := (Options{Version: version}).withDefaults(); (err == nil) != good {
			t.Errorf("%q: %v", version, err)
		}
	}
}

// Archives have what was put in, nothing of the machine, and are the same twice.
func TestArchives(t *testing.T) {
	files := []file{{name: "LICENSE", data: []byte("text")}, {name: "muslinctl", data: bytes.Repeat([]byte("program "), 9000), exec: true}}
	for name, pack := range map[string]func([]file) ([]byte, error){"tar": tarGz, "zip": zipped} {
		one, err := pack(files)
		if err != nil {
			t.Fatal(err)
		}
		if two, err := pack(files); err != nil || !bytes.Equal(one, two) {
			t.Errorf("%s: another archive of the same files, %v", name, err)
		}
		if got := unpack(t, name, one); !slices.EqualFunc(got, files, func(a, b file) bool {
			return a.name == b.name && a.exec == b.exec && bytes.Equal(a.data, b.data)
		}) {
			t.Errorf("%s: %d files come out", name, len(got))
		}
	}
}

func unpack(t *testing.T, kind string, archive []byte) (out []file) {
	t.Helper()
	if kind == "zip" {
		r, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range r.File {
			part, err := f.Open()
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(part)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, file{f.Name, data, f.Mode()&0o100 != 0})
		}
		return out
	}
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, file{h.Name, data, h.Mode&0o100 != 0})
	}
}

// The chart and the manifests name the image by its digest, the same bytes twice, and
// Helm takes the archive.
func TestInstalls(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0f", 32)
	o, err := Options{Root: root, Version: "v1.2.3-rc.1", Image: "registry.example.net/muslin"}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	files, err := installs(o, t.TempDir(), digest)
	if err != nil {
		t.Fatal(err)
	}
	again, err := installs(o, t.TempDir(), digest)
	if err != nil {
		t.Fatal(err)
	}
	for i := range files {
		if files[i].name != again[i].name || !bytes.Equal(files[i].data, again[i].data) {
			t.Errorf("%s is another the second time", files[i].name)
		}
	}
	dir := t.TempDir()
	if err := write(dir+"/out", files); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), helm(t), "template", "muslin", dir+"/out/muslin-1.2.3-rc.1.tgz", "--kube-version=1.33.0")
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+dir, "HELM_CONFIG_HOME="+dir, "HELM_DATA_HOME="+dir, "KUBECONFIG=/dev/null")
	rendered, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, rendered)
	}
	plain, err := os.ReadFile(dir + "/out/muslin.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"chart": string(rendered), "muslin.yaml": string(plain)} {
		if strings.Contains(text, "muslin.invalid") || strings.Count(text, "image: registry.example.net/muslin@"+digest) < 3 {
			t.Errorf("%s does not name the image by its digest", name)
		}
	}
	if !strings.Contains(string(rendered), "app.kubernetes.io/version: v1.2.3-rc.1") {
		t.Error("the chart is of another version")
	}
	check := exec.CommandContext(t.Context(), "sha256sum", "--check", "--strict", sums)
	check.Dir = dir + "/out"
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// helm is the path of the Helm that hack/tools pins.
func helm(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "tool", "-modfile="+root+"/hack/tools/helm/go.mod", "-n", "helm").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// krew finds each archive by its checksum.
func TestKrew(t *testing.T) {
	clients := []client{
		{Platform{"linux", "arm64"}, file{name: "a.tar.gz", data: []byte("a")}, "muslinctl"},
		{Platform{"windows", "amd64"}, file{name: "b.zip", data: []byte("b")}, "muslinctl.exe"},
	}
	var plugin struct {
		APIVersion, Kind string
		Metadata         struct{ Name string }
		Spec             struct {
			Version, Homepage, ShortDescription, Description string
			Platforms                                        []struct {
				Selector         struct{ MatchLabels map[string]string }
				URI, SHA256, Bin string
			}
		}
	}
	if err := yaml.UnmarshalStrict(krewManifest(Options{Version: "v1.2.3", URL: "https://example.net/v1.2.3"}, clients).data, &plugin); err != nil {
		t.Fatal(err)
	}
	if plugin.Metadata.Name != "muslin" || plugin.Spec.Version != "v1.2.3" || len(plugin.Spec.Platforms) != len(clients) || len(plugin.Spec.ShortDescription) > 50 {
		t.Errorf("%+v", plugin)
	}
	for i, p := range plugin.Spec.Platforms {
		c := clients[i]
		if p.Selector.MatchLabels["os"] != c.OS || p.Selector.MatchLabels["arch"] != c.Arch || p.URI != "https://example.net/v1.2.3/"+c.name || p.SHA256 != c.sha256() || p.Bin != c.bin {
			t.Errorf("%+v for %+v", p, c.Platform)
		}
	}
}

// The bill has each module that the program was built from; of what is patched it names
// the patches.
func TestBill(t *testing.T) {
	program := helm(t) // any will do that is built already
	info, err := buildinfo.ReadFile(program)
	if err != nil || len(info.Deps) == 0 {
		t.Fatalf("%v, %v", info, err)
	}
	text, err := billOf(root, "v1.2.3", []binary{{"program", program}})
	if err != nil {
		t.Fatal(err)
	}
	var bill billOfMaterials
	if err := json.Unmarshal(text.data, &bill); err != nil {
		t.Fatal(err)
	}
	for _, m := range append(info.Deps, &debug.Module{Path: "std", Version: info.GoVersion}) {
		if m.Replace == nil && !slices.ContainsFunc(bill.Components, func(c component) bool { return c.Name == m.Path && c.Version == m.Version && c.PURL != "" }) {
			t.Errorf("%s %s is not in it", m.Path, m.Version)
		}
	}
	if len(bill.Dependencies) != 1 || len(bill.Dependencies[0].DependsOn) != len(info.Deps)+1 {
		t.Errorf("the program depends on %d of %d", len(bill.Dependencies[0].DependsOn), len(info.Deps)+1)
	}

	patched, err := library(root, &debug.Module{Path: thirdparty.Module, Version: "v4.8.0", Replace: &debug.Module{Path: "./third_party/gobgp/patched"}})
	names, _ := filepath.Glob(root + "/third_party/gobgp/patches/*.patch")
	if err != nil || patched.Pedigree == nil || len(patched.Pedigree.Patches) != len(names) || len(names) == 0 || patched.Pedigree.Ancestors[0].Version != "v4.8.0" {
		t.Errorf("%+v, %v", patched, err)
	}
	if _, err := library(root, &debug.Module{Path: "example.net/x", Replace: &debug.Module{Path: "../x"}}); err == nil {
		t.Error("a module is replaced and nobody says so")
	}
}

// muslinctl needs nothing that another system lacks.
func TestPlatforms(t *testing.T) {
	for _, p := range Platforms {
		cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if and (not .Standard) (not .GoFiles)}}{{.ImportPath}}{{end}}", "./cmd/muslinctl")
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "GOOS="+p.OS, "GOARCH="+p.Arch, "CGO_ENABLED=0")
		var complaints bytes.Buffer // downloads among them
		cmd.Stderr = &complaints
		if out, err := cmd.Output(); err != nil || len(bytes.TrimSpace(out)) > 0 {
			t.Errorf("%s/%s: %v\n%s%s", p.OS, p.Arch, err, out, &complaints)
		}
	}
}

// What is of no release is not removed for one.
func TestRemovable(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(removable(dir), removable(dir+"/absent")); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(dir+"/thesis.txt", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := removable(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("a directory of somebody's files: %v", err)
	}
	if err := write(dir, []file{{name: "a", data: []byte("a")}}); err != nil {
		t.Fatal(err)
	}
	if err := removable(dir); err != nil {
		t.Error(err)
	}
}
