package image

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// The parts of the OCI image spec v1.1 that an archive of one image needs.
type (
	descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int64             `json:"size"`
		Platform    *platform         `json:"platform,omitempty"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	platform struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
	}
	index struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []descriptor `json:"manifests"`
	}
	manifest struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
	}
	imageConfig struct {
		Created      string `json:"created"`
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
		Config       runAs  `json:"config"`
		RootFS       rootFS `json:"rootfs"`
	}
	runAs struct {
		User       string            `json:"User,omitempty"`
		Env        []string          `json:"Env,omitempty"`
		Entrypoint []string          `json:"Entrypoint,omitempty"`
		Cmd        []string          `json:"Cmd,omitempty"`
		WorkingDir string            `json:"WorkingDir,omitempty"`
		Labels     map[string]string `json:"Labels,omitempty"`
	}
	rootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	}
)

const (
	indexType    = "application/vnd.oci.image.index.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
)

// Write writes the image as a tar archive of an OCI image layout. It holds the
// compressed layer in memory. An error names the file or the field; w may have
// been written to in part by then.
func Write(w io.Writer, s Spec) (Report, error) {
	s = s.withDefaults()
	if err := s.validate(); err != nil {
		return Report{}, err
	}
	l, err := buildLayer(s)
	if err != nil {
		return Report{}, fmt.Errorf("image %s: %w", s.Ref, err)
	}
	config, man, d, err := documents(s, l)
	if err != nil {
		return Report{}, fmt.Errorf("image %s: %w", s.Ref, err)
	}
	idx, err := json.Marshal(index{SchemaVersion: 2, MediaType: indexType, Manifests: []descriptor{d.named(s.Ref)}})
	if err != nil {
		return Report{}, fmt.Errorf("image %s: %w", s.Ref, err)
	}
	out := &countWriter{w: w}
	a := archive{tw: tar.NewWriter(out), created: s.Created}
	a.put("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	a.put("index.json", idx)
	for _, blob := range [][]byte{man, config, l.bytes} {
		a.put("blobs/sha256/"+hexDigest(blob), blob)
	}
	if err := a.close(); err != nil {
		return Report{}, fmt.Errorf("image %s: write archive: %w", s.Ref, err)
	}
	return Report{
		Ref: s.Ref, Digest: digest(man), Files: l.files,
		LayerSize: l.size, Compressed: int64(len(l.bytes)), Compression: s.Compression, ArchiveSize: out.n,
	}, nil
}

// documents gives configuration and manifest, and what describes the latter.
func documents(s Spec, l layer) (config, man []byte, d descriptor, err error) {
	plat := &platform{Architecture: s.Architecture, OS: "linux"}
	config, err = json.Marshal(imageConfig{
		Created: s.Created.Format(time.RFC3339), Architecture: plat.Architecture, OS: plat.OS,
		Config: runAs{
			User: s.User, Env: s.Env, Entrypoint: s.Entrypoint, Cmd: s.Cmd,
			WorkingDir: s.WorkingDir, Labels: s.Labels,
		},
		RootFS: rootFS{Type: "layers", DiffIDs: []string{l.diffID}},
	})
	if err != nil {
		return nil, nil, d, err
	}
	man, err = json.Marshal(manifest{
		SchemaVersion: 2, MediaType: manifestType,
		Config: describe(configType, config),
		Layers: []descriptor{describe(l.mediaType, l.bytes)},
	})
	if err != nil {
		return nil, nil, d, err
	}
	d = describe(manifestType, man)
	d.Platform = plat
	return config, man, d, nil
}

// named is the descriptor with the name that a runtime files it under.
// containerd takes the full name from its own annotation; the standard one holds
// the tag alone, as `docker save` and `ctr export` write it.
func (d descriptor) named(ref string) descriptor {
	d.Annotations = map[string]string{
		"io.containerd.image.name":          ref,
		"org.opencontainers.image.ref.name": tag(ref),
	}
	return d
}

func describe(mediaType string, b []byte) descriptor {
	return descriptor{MediaType: mediaType, Digest: digest(b), Size: int64(len(b))}
}

func digest(b []byte) string { return "sha256:" + hexDigest(b) }

func hexDigest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// archive writes the outer tar and keeps the first error.
type archive struct {
	tw      *tar.Writer
	created time.Time
	err     error
}

func (a *archive) put(name string, b []byte) {
	if a.err != nil {
		return
	}
	a.err = a.tw.WriteHeader(&tar.Header{
		Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(b)), ModTime: a.created, Format: tar.FormatUSTAR,
	})
	if a.err == nil {
		_, a.err = a.tw.Write(b)
	}
}

func (a *archive) close() error {
	if a.err != nil {
		return a.err
	}
	return a.tw.Close()
}
