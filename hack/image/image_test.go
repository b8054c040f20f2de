package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

func sample(t *testing.T, c Compression) Spec {
	t.Helper()
	src := filepath.Join(t.TempDir(), "prog")
	if err := os.WriteFile(src, bytes.Repeat([]byte("program "), 40_000), 0o700); err != nil {
		t.Fatal(err)
	}
	return Spec{
		Ref:         "docker.io/muslin/sample:v1",
		Entrypoint:  []string{"/usr/bin/prog"},
		Cmd:         []string{"-v"},
		Env:         []string{"PATH=/usr/bin"},
		User:        "65534",
		Labels:      map[string]string{"b": "2", "a": "1"},
		Files:       []File{{Path: "/usr/bin/prog", Source: src}, {Path: "/etc/passwd", Data: []byte("root:x:0:0\n")}},
		Symlinks:    []Symlink{{Path: "/usr/bin/alias", Target: "prog"}},
		Dirs:        []Dir{{Path: "/tmp", Mode: 0o777 | os.ModeSticky}},
		Compression: c,
	}
}

// untar returns the members of an archive, by name, and the headers in order.
func untar(t *testing.T, r io.Reader) (map[string][]byte, []tar.Header) {
	t.Helper()
	content := map[string][]byte{}
	var headers []tar.Header
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return content, headers
		}
		if err != nil {
			t.Fatalf("read archive: %v", err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatalf("read %s: %v", h.Name, err)
		}
		content[h.Name], headers = b, append(headers, *h)
	}
}

func decode[T any](t *testing.T, b []byte) T {
	t.Helper()
	var v T
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("decode %s: %v", b, err)
	}
	return v
}

func decompress(t *testing.T, mediaType string, b []byte) []byte {
	t.Helper()
	var r io.Reader = bytes.NewReader(b)
	switch {
	case strings.HasSuffix(mediaType, "+zstd"):
		z, err := zstd.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		r = z
	case strings.HasSuffix(mediaType, "+gzip"):
		gz, err := gzip.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		r = gz
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("decompress layer: %v", err)
	}
	return out
}

func TestWriteIsAnOCILayout(t *testing.T) {
	for _, c := range []Compression{Zstd, Gzip, None} {
		t.Run(string(c), func(t *testing.T) {
			var out bytes.Buffer
			report, err := Write(&out, sample(t, c))
			if err != nil {
				t.Fatal(err)
			}
			blobs, _ := untar(t, &out)
			if got := string(blobs["oci-layout"]); got != `{"imageLayoutVersion":"1.0.0"}` {
				t.Errorf("oci-layout %s", got)
			}
			blob := func(d descriptor) []byte {
				b, ok := blobs["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")]
				if !ok || digest(b) != d.Digest || int64(len(b)) != d.Size {
					t.Fatalf("blob of %+v: missing or different", d)
				}
				return b
			}
			idx := decode[index](t, blobs["index.json"])
			if len(idx.Manifests) != 1 {
				t.Fatalf("%d manifests", len(idx.Manifests))
			}
			wantNames := map[string]string{
				"io.containerd.image.name":          "docker.io/muslin/sample:v1",
				"org.opencontainers.image.ref.name": "v1",
			}
			if d := cmp.Diff(wantNames, idx.Manifests[0].Annotations); d != "" {
				t.Errorf("annotations (-want +got):\n%s", d)
			}
			if report.Digest != idx.Manifests[0].Digest {
				t.Errorf("report names %s, index %s", report.Digest, idx.Manifests[0].Digest)
			}
			man := decode[manifest](t, blob(idx.Manifests[0]))
			config := decode[imageConfig](t, blob(man.Config))
			tarball := decompress(t, man.Layers[0].MediaType, blob(man.Layers[0]))
			if config.RootFS.DiffIDs[0] != digest(tarball) {
				t.Errorf("diff id %s, layer %s", config.RootFS.DiffIDs[0], digest(tarball))
			}
			wantRun := runAs{
				User: "65534", Env: []string{"PATH=/usr/bin"}, Entrypoint: []string{"/usr/bin/prog"},
				Cmd: []string{"-v"}, Labels: map[string]string{"a": "1", "b": "2"},
			}
			if d := cmp.Diff(wantRun, config.Config); d != "" {
				t.Errorf("config (-want +got):\n%s", d)
			}
			checkLayer(t, tarball)
		})
	}
}

func checkLayer(t *testing.T, tarball []byte) {
	t.Helper()
	content, headers := untar(t, bytes.NewReader(tarball))
	var lines []string
	for _, h := range headers {
		lines = append(lines, fmt.Sprintf("%c %04o %d:%d %s %s", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Name, h.Linkname))
		if !h.ModTime.Equal(time.Unix(0, 0)) {
			t.Errorf("%s has time %v", h.Name, h.ModTime)
		}
	}
	want := []string{
		"5 0755 0:0 etc/ ", "0 0644 0:0 etc/passwd ", "5 1777 0:0 tmp/ ", "5 0755 0:0 usr/ ",
		"5 0755 0:0 usr/bin/ ", "2 0777 0:0 usr/bin/alias prog", "0 0755 0:0 usr/bin/prog ",
	}
	if d := cmp.Diff(want, lines); d != "" {
		t.Errorf("layer (-want +got):\n%s", d)
	}
	if len(content["usr/bin/prog"]) != 320_000 || string(content["etc/passwd"]) != "root:x:0:0\n" {
		t.Error("file contents differ from their sources")
	}
}

func TestWriteTwiceGivesTheSameBytes(t *testing.T) {
	for _, c := range []Compression{Zstd, Gzip, None} {
		var a, b bytes.Buffer
		first, second := sample(t, c), sample(t, c)
		// Another order of the list and another time of the source file must
		// not show.
		second.Files[0], second.Files[1] = second.Files[1], second.Files[0]
		if err := os.Chtimes(second.Files[1].Source, time.Unix(1e9, 0), time.Unix(1e9, 0)); err != nil {
			t.Fatal(err)
		}
		if _, err := Write(&a, first); err != nil {
			t.Fatal(err)
		}
		if _, err := Write(&b, second); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Errorf("%s: two archives of the same content differ", c)
		}
	}
}

func TestBuildTwiceGivesTheSameBytes(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module example.test/m\n\ngo 1.24\n")
	write("cmd/cni/main.go", "package main\n\nvar version string\n\nfunc main() { println(version) }\n")
	programs := Present(root)
	if len(programs) != 1 || programs[0].Package != "cmd/cni" {
		t.Fatalf("present: %v", programs)
	}
	var archives [2]bytes.Buffer
	for i := range archives {
		files, err := Build(t.Context(), BuildOptions{Root: root, Out: t.TempDir(), Version: "v0"}, programs)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Write(&archives[i], Product("muslin.invalid/muslin:v0", "v0", files)); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(archives[0].Bytes(), archives[1].Bytes()) {
		t.Error("two builds of the same source differ")
	}
}

func TestWriteRefusesBadSpecs(t *testing.T) {
	cases := map[string]struct {
		spec Spec
		want string
	}{
		"no tag":          {Spec{Ref: "muslin.invalid/muslin"}, "want registry/name:tag"},
		"port is no tag":  {Spec{Ref: "registry:5000/muslin"}, "want registry/name:tag"},
		"no registry":     {Spec{Ref: "muslin:v1"}, "want registry/name:tag"},
		"relative path":   {Spec{Ref: "r/m:1", Files: []File{{Path: "bin/x"}}}, `file "bin/x"`},
		"path with dots":  {Spec{Ref: "r/m:1", Files: []File{{Path: "/a/../x"}}}, `file "/a/../x"`},
		"path twice":      {Spec{Ref: "r/m:1", Files: []File{{Path: "/x"}}, Symlinks: []Symlink{{Path: "/x"}}}, "named twice"},
		"missing source":  {Spec{Ref: "r/m:1", Files: []File{{Path: "/x", Source: "/nonexistent"}}}, "/nonexistent"},
		"source is a dir": {Spec{Ref: "r/m:1", Files: []File{{Path: "/x", Source: "/tmp"}}}, "not a regular file"},
		"compression":     {Spec{Ref: "r/m:1", Compression: "lz4"}, `compression "lz4"`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := Write(io.Discard, c.spec)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestWriteFileKeepsTheOldArchiveOnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.tar")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := WriteFile(path, Spec{Ref: "r/m:1", Files: []File{{Path: "/x", Source: "/nonexistent"}}}); err == nil {
		t.Fatal("no error for a missing source")
	}
	if b, _ := os.ReadFile(path); string(b) != "old" {
		t.Errorf("archive is now %q", b)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// The two ways to build the image link the plugin alike.
func TestDockerfileLinksThePluginAlike(t *testing.T) {
	text, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	if line := `build cni muslin "` + Plugin.Link + `"`; !strings.Contains(string(text), line) {
		t.Errorf("Dockerfile does not say %s", line)
	}
}

// An archive for two architectures has one index, by whose digest either is pulled.
func TestWriteIndex(t *testing.T) {
	amd, arm := sample(t, Zstd), sample(t, Zstd)
	amd.Architecture, arm.Architecture = "amd64", "arm64"
	var archives [2]bytes.Buffer
	var digests [2]string
	for i := range archives {
		var err error
		if digests[i], err = WriteIndex(&archives[i], []Spec{amd, arm}); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(archives[0].Bytes(), archives[1].Bytes()) {
		t.Error("two archives of the same images differ")
	}
	blobs, headers := untar(t, &archives[0])
	if len(blobs) != len(headers) {
		t.Errorf("%d members of %d names", len(headers), len(blobs))
	}
	blob := func(d descriptor) []byte {
		b, ok := blobs["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")]
		if !ok || digest(b) != d.Digest || int64(len(b)) != d.Size {
			t.Fatalf("blob of %+v: missing or different", d)
		}
		return b
	}
	outer := decode[index](t, blobs["index.json"])
	if len(outer.Manifests) != 1 || outer.Manifests[0].Digest != digests[0] || outer.Manifests[0].Annotations["io.containerd.image.name"] != amd.Ref {
		t.Fatalf("index.json: %+v, want %s", outer, digests[0])
	}
	inner := decode[index](t, blob(outer.Manifests[0]))
	var got []string
	for _, d := range inner.Manifests {
		config := decode[imageConfig](t, blob(decode[manifest](t, blob(d)).Config))
		got = append(got, d.Platform.Architecture+"/"+config.Architecture)
	}
	if diff := cmp.Diff([]string{"amd64/amd64", "arm64/arm64"}, got); diff != "" {
		t.Error(diff)
	}

	other := arm
	other.Ref = "muslin.invalid/other:v1"
	for name, specs := range map[string][]Spec{"nothing": nil, "one twice": {amd, amd}, "two names": {amd, other}} {
		if _, err := WriteIndex(io.Discard, specs); err == nil || !strings.Contains(err.Error(), "image index") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
