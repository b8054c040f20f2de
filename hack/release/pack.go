package release

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// sums is the file with the checksums of all others, as sha256sum -c reads it.
const sums = "checksums.txt"

// file is one of the release, or of an archive.
type file struct {
	name string
	data []byte
	exec bool
}

func (f file) mode() fs.FileMode {
	if f.exec {
		return 0o755
	}
	return 0o644
}

func (f file) sha256() string {
	sum := sha256.Sum256(f.data)
	return hex.EncodeToString(sum[:])
}

// made is when everything in an archive was made: a zip knows no time before 1980.
var made = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// tarGz packs files in their order; nothing of the machine is in it.
func tarGz(files []file) ([]byte, error) {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for _, f := range files {
		err := w.WriteHeader(&tar.Header{
			Name: f.name, Typeflag: tar.TypeReg, Mode: int64(f.mode()), Size: int64(len(f.data)), ModTime: made, Format: tar.FormatUSTAR,
		})
		if err == nil {
			_, err = w.Write(f.data)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	err := errors.Join(w.Close(), z.Close())
	return out.Bytes(), err
}

// zipped packs files for Windows.
func zipped(files []file) ([]byte, error) {
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, f := range files {
		h := &zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: made}
		h.SetMode(f.mode())
		part, err := w.CreateHeader(h)
		if err == nil {
			_, err = part.Write(f.data)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	err := w.Close()
	return out.Bytes(), err
}

// write replaces the content of the directory by the files and their checksums.
func write(dir string, files []file) error {
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	var lines strings.Builder
	for _, f := range files {
		fmt.Fprintf(&lines, "%s  %s\n", f.sha256(), f.name)
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, f := range append(files, file{name: sums, data: []byte(lines.String())}) {
		if err := os.WriteFile(filepath.Join(dir, f.name), f.data, f.mode()); err != nil {
			return err
		}
	}
	return nil
}
