package image

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/muslin-net/muslin/hack/thirdparty"
)

// Ref is the name of the image that the manifests ask for. No registry can be of
// domain invalid (RFC 6761), so that nobody else's image is taken for ours: it is
// loaded by hand, or make manifests puts another name in its place.
const Ref = "muslin.invalid/muslin:dev"

// tags leave out of gRPC what nobody reads: golang.org/x/net/trace, whose html/template keeps the linker
// from leaving out any method of anything. That is a fifth of an agent.
const tags = "grpcnotrace"

// Program is one of Muslin's binaries: where its source is and where the image
// holds it.
type Program struct {
	Package string // below the module's root: "cmd/agent"
	Path    string // in the image: "/usr/bin/muslin-agent"
	Link    string // further flags of the linker
}

// Plugin is the CNI plugin, which lives for milliseconds: it does without what
// Go's runtime sets up for profiles of memory, and to follow changes of the
// number of CPUs.
var Plugin = Program{
	Package: "cmd/cni", Path: "/usr/bin/muslin",
	Link: "-X runtime.godebugDefault=memprofilerate=0,profstackdepth=0,updatemaxprocs=0",
}

// Programs are all binaries that the image can hold.
var Programs = []Program{
	{Package: "cmd/agent", Path: "/usr/bin/muslin-agent"},
	Plugin,
	{Package: "cmd/controller", Path: "/usr/bin/muslin-controller"},
	{Package: "cmd/muslinctl", Path: "/usr/bin/muslinctl"},
}

// Present returns the programs of which root, a checkout of this module, has
// the source.
func Present(root string) []Program {
	var there []Program
	for _, p := range Programs {
		if goFiles, _ := filepath.Glob(filepath.Join(root, p.Package, "*.go")); len(goFiles) > 0 {
			there = append(there, p)
		}
	}
	return there
}

// BuildOptions say how binaries are made.
type BuildOptions struct {
	Root         string // the checkout
	Out          string // directory that receives the binaries, made when missing
	Version      string // what the programs say of themselves; empty: "dev"
	Architecture string // GOARCH; empty: this machine's
	OS           string // GOOS; empty: linux. Names of Windows programs get ".exe"
}

// Build compiles the programs, static and stripped, and returns them as files of
// an image. The flags keep the machine's paths, the time and the state of the
// checkout out of the bytes. GoBGP is the patched one (hack/thirdparty), whoever calls.
func Build(ctx context.Context, o BuildOptions, programs []Program) ([]File, error) {
	if err := os.MkdirAll(o.Out, 0o755); err != nil {
		return nil, fmt.Errorf("make output directory: %w", err)
	}
	if o.Version == "" {
		o.Version = "dev"
	}
	out, err := filepath.Abs(o.Out)
	if err != nil {
		return nil, fmt.Errorf("output directory %s: %w", o.Out, err)
	}
	modfile, err := thirdparty.Make(ctx, o.Root)
	if err != nil {
		return nil, err
	}
	files := make([]File, 0, len(programs))
	for _, p := range programs {
		bin := filepath.Join(out, filepath.Base(p.Path))
		if o.OS == "windows" {
			bin += ".exe"
		}
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-modfile="+modfile, "-tags", tags,
			"-ldflags", "-s -w -buildid= -X main.version="+o.Version+" "+p.Link, "-o", bin, "./"+p.Package)
		cmd.Dir = o.Root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+cmp.Or(o.OS, "linux"), "GOFLAGS=")
		if o.Architecture != "" {
			cmd.Env = append(cmd.Env, "GOARCH="+o.Architecture)
		}
		if msg, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s: %w\n%s", p.Package, err, msg)
		}
		files = append(files, File{Path: p.Path, Source: bin, Mode: 0o755})
	}
	return files, nil
}

// Product is Muslin's own image around files that Build made.
func Product(ref, version string, files []File) Spec {
	s := Spec{
		Ref:        ref,
		Entrypoint: []string{"/usr/bin/muslin-agent"},
		Env:        []string{"PATH=/usr/bin"},
		Files:      files,
		Labels: map[string]string{
			"org.opencontainers.image.title":       "muslin",
			"org.opencontainers.image.description": "BGP-routed pod network for Kubernetes",
			"org.opencontainers.image.source":      "https://github.com/muslin-net/muslin",
			"org.opencontainers.image.version":     version,
		},
	}
	for _, f := range files {
		if f.Path == "/usr/bin/muslinctl" {
			s.Symlinks = append(s.Symlinks, Symlink{Path: "/usr/bin/kubectl-muslin", Target: "muslinctl"})
		}
	}
	return s
}
