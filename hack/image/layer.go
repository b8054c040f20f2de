package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sort"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// layer is a finished layer: the compressed bytes and both digests.
type layer struct {
	bytes     []byte
	mediaType string
	diffID    string // digest of the uncompressed tar
	size      int64  // of the uncompressed tar
	files     []FileReport
}

// entry is one line of the layer's tar.
type entry struct {
	header tar.Header
	source string
	data   []byte
}

func buildLayer(s Spec) (layer, error) {
	l := layer{}
	var out bytes.Buffer
	comp, mediaType, err := compressor(&out, s.Compression)
	if err != nil {
		return l, err
	}
	l.mediaType = mediaType
	sum := sha256.New()
	counter := &countWriter{w: io.MultiWriter(comp, sum)}
	tw := tar.NewWriter(counter)
	for _, e := range entries(s) {
		size, err := e.write(tw)
		if err != nil {
			return l, fmt.Errorf("layer entry %s: %w", e.header.Name, err)
		}
		if e.header.Typeflag == tar.TypeReg {
			l.files = append(l.files, FileReport{Path: "/" + e.header.Name, Size: size})
		}
	}
	if err := tw.Close(); err != nil {
		return l, fmt.Errorf("close layer: %w", err)
	}
	if err := comp.Close(); err != nil {
		return l, fmt.Errorf("compress layer: %w", err)
	}
	l.bytes, l.size = out.Bytes(), counter.n
	l.diffID = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	return l, nil
}

// entries gives the tar's lines in order of name, every directory before what
// it holds.
func entries(s Spec) []entry {
	byName := map[string]entry{}
	put := func(e entry) {
		e.header.ModTime, e.header.Format = s.Created, tar.FormatUSTAR
		byName[e.header.Name] = e
	}
	parents := func(p string) {
		for d := path.Dir(p); d != "/"; d = path.Dir(d) {
			name := strings.TrimPrefix(d, "/") + "/"
			if _, ok := byName[name]; !ok {
				put(entry{header: tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}})
			}
		}
	}
	for _, d := range s.Dirs {
		put(entry{header: tar.Header{Name: d.Path[1:] + "/", Typeflag: tar.TypeDir, Mode: unixMode(d.Mode)}})
		parents(d.Path)
	}
	for _, f := range s.Files {
		put(entry{header: tar.Header{Name: f.Path[1:], Typeflag: tar.TypeReg, Mode: fileMode(f)}, source: f.Source, data: f.Data})
		parents(f.Path)
	}
	for _, l := range s.Symlinks {
		put(entry{header: tar.Header{Name: l.Path[1:], Typeflag: tar.TypeSymlink, Linkname: l.Target, Mode: 0o777}})
		parents(l.Path)
	}
	list := make([]entry, 0, len(byName))
	for _, e := range byName {
		list = append(list, e)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].header.Name < list[j].header.Name })
	return list
}

func fileMode(f File) int64 {
	switch {
	case f.Mode != 0:
		return unixMode(f.Mode)
	case f.Source != "":
		return 0o755
	}
	return 0o644
}

func unixMode(m fs.FileMode) int64 {
	mode := int64(m.Perm())
	if m&fs.ModeSticky != 0 {
		mode |= 0o1000
	}
	return mode
}

func (e entry) write(tw *tar.Writer) (int64, error) {
	h := e.header
	if h.Typeflag != tar.TypeReg {
		return 0, tw.WriteHeader(&h)
	}
	var content io.Reader = bytes.NewReader(e.data)
	h.Size = int64(len(e.data))
	if e.source != "" {
		f, err := os.Open(e.source)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return 0, err
		}
		if !st.Mode().IsRegular() {
			return 0, fmt.Errorf("source %s is not a regular file", e.source)
		}
		content, h.Size = f, st.Size()
	}
	if err := tw.WriteHeader(&h); err != nil {
		return 0, err
	}
	return io.Copy(tw, content)
}

const layerType = "application/vnd.oci.image.layer.v1.tar"

func compressor(w io.Writer, c Compression) (io.WriteCloser, string, error) {
	switch c {
	case Gzip:
		gz, err := gzip.NewWriterLevel(w, gzip.BestCompression)
		return gz, layerType + "+gzip", err
	case Zstd:
		// One goroutine: the split into blocks, and so the bytes, must not
		// depend on the number of cores. The window is the largest that
		// every decoder must accept (RFC 8878, section 3.1.1.1.2).
		z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBestCompression),
			zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(8<<20))
		return z, layerType + "+zstd", err
	case None:
		return nopCloser{w}, layerType, nil
	}
	return nil, "", fmt.Errorf("unknown compression %q", c)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

type countWriter struct {
	w io.Writer
	n int64
}

func (c *countWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
