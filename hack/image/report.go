package image

import (
	"fmt"
	"strings"
)

// Report says what an image weighs. Sizes are in bytes.
type Report struct {
	Ref         string
	Digest      string // of the manifest, as the runtime shows it
	Files       []FileReport
	LayerSize   int64 // uncompressed
	Compressed  int64 // the layer as a registry would send it
	Compression Compression
	ArchiveSize int64
}

// FileReport is one file of the layer.
type FileReport struct {
	Path string
	Size int64 // bytes
}

// String gives the report as a table for people, in MB of 10^6 bytes.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "image      %s\ndigest     %s\n", r.Ref, r.Digest)
	for _, f := range r.Files {
		fmt.Fprintf(&b, "  %-32s %8.2f MB\n", f.Path, mb(f.Size))
	}
	fmt.Fprintf(&b, "layer      %8.2f MB\ncompressed %8.2f MB (%s)\narchive    %8.2f MB\n",
		mb(r.LayerSize), mb(r.Compressed), r.Compression, mb(r.ArchiveSize))
	return b.String()
}

func mb(n int64) float64 { return float64(n) / 1e6 }
