package image

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime"
	"strings"
	"time"
)

// Compression is the encoding of the layer.
type Compression string

// The values of Compression. containerd reads both since 1.5; Zstd makes Go
// binaries about a sixth smaller than Gzip.
const (
	Zstd Compression = "zstd"
	Gzip Compression = "gzip"
	None Compression = "none"
)

// Spec is an image: what it holds and how it starts. The zero value of every
// field but Ref has a meaning.
type Spec struct {
	// Ref is the full name that the runtime files the image under, registry
	// and tag included: "muslin.invalid/muslin:dev". The tag is required.
	Ref string

	Entrypoint []string
	Cmd        []string
	Env        []string // KEY=value
	User       string   // empty: root
	WorkingDir string   // empty: /
	Labels     map[string]string

	Files    []File
	Symlinks []Symlink
	Dirs     []Dir // directories that would not exist for a file's sake

	Architecture string      // GOARCH; empty: the one this program was built for
	Created      time.Time   // zero: the Unix epoch
	Compression  Compression // empty: Zstd
}

// File is one regular file of the image, owned by root.
type File struct {
	Path   string      // absolute, in the image
	Source string      // path on disk; empty: Data is the content
	Data   []byte      // content when Source is empty
	Mode   fs.FileMode // permission bits; 0 means 0755 for Source, 0644 for Data
}

// Symlink is one symbolic link of the image.
type Symlink struct {
	Path   string // absolute, in the image
	Target string // as readlink will say
}

// Dir is a directory of the image with a mode of its own; parents of files are
// made as 0755 without being named here.
type Dir struct {
	Path string
	Mode fs.FileMode // permission bits and fs.ModeSticky
}

func (s Spec) withDefaults() Spec {
	if s.Architecture == "" {
		s.Architecture = runtime.GOARCH
	}
	if s.Created.IsZero() {
		s.Created = time.Unix(0, 0)
	}
	s.Created = s.Created.UTC().Truncate(time.Second)
	if s.Compression == "" {
		s.Compression = Zstd
	}
	return s
}

// tag returns what follows the last colon of the reference's last element.
func tag(ref string) string {
	last := ref[strings.LastIndex(ref, "/")+1:]
	_, t, _ := strings.Cut(last, ":")
	return t
}

func (s Spec) validate() error {
	var errs []error
	if !strings.Contains(s.Ref, "/") || tag(s.Ref) == "" || strings.ContainsAny(s.Ref, " @") {
		errs = append(errs, fmt.Errorf("image ref %q: want registry/name:tag", s.Ref))
	}
	switch s.Compression {
	case Zstd, Gzip, None:
	default:
		errs = append(errs, fmt.Errorf("image compression %q: want zstd, gzip or none", s.Compression))
	}
	seen := map[string]bool{}
	check := func(kind, p string) {
		if !path.IsAbs(p) || path.Clean(p) != p || p == "/" {
			errs = append(errs, fmt.Errorf("image %s %q: want a clean absolute path", kind, p))
		}
		if seen[p] {
			errs = append(errs, fmt.Errorf("image %s %q: named twice", kind, p))
		}
		seen[p] = true
	}
	for _, f := range s.Files {
		check("file", f.Path)
	}
	for _, l := range s.Symlinks {
		check("symlink", l.Path)
	}
	for _, d := range s.Dirs {
		check("directory", d.Path)
	}
	return errors.Join(errs...)
}
