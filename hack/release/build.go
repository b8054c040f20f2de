package release

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/muslin-net/muslin/hack/image"
)

// binary is a program that has been built, for the bill of materials.
type binary struct {
	name string // "muslin-agent linux/amd64"
	path string
}

// buildImage gives the archive of the image for all architectures, and the digest of its
// index.
func buildImage(ctx context.Context, o Options, work string) (out file, digest string, programs []binary, err error) {
	var specs []image.Spec
	for _, arch := range Architectures {
		files, err := image.Build(ctx, image.BuildOptions{
			Root: o.Root, Out: filepath.Join(work, "image-"+arch), Version: o.Version, Architecture: arch,
		}, image.Present(o.Root))
		if err != nil {
			return file{}, "", nil, err
		}
		for _, f := range files {
			programs = append(programs, binary{filepath.Base(f.Path) + " linux/" + arch, f.Source})
		}
		spec := image.Product(o.Image+":"+o.Version, o.Version, files)
		spec.Architecture = arch
		specs = append(specs, spec)
	}
	var archive bytes.Buffer
	if digest, err = image.WriteIndex(&archive, specs); err != nil {
		return file{}, "", nil, err
	}
	return file{name: "muslin-image-" + o.Version + ".tar", data: archive.Bytes()}, digest, programs, nil
}

// client is the archive of muslinctl for a platform.
type client struct {
	Platform
	file
	bin string // name of the program in it
}

// buildClients builds muslinctl for all platforms; each archive has the license beside it.
func buildClients(ctx context.Context, o Options, work string) (out []client, tools []binary, err error) {
	license, err := os.ReadFile(filepath.Join(o.Root, "LICENSE"))
	if err != nil {
		return nil, nil, err
	}
	programs := image.Present(o.Root)
	i := slices.IndexFunc(programs, func(p image.Program) bool { return filepath.Base(p.Path) == "muslinctl" })
	if i < 0 {
		return nil, nil, fmt.Errorf("%s has no muslinctl", o.Root)
	}
	for _, p := range Platforms {
		built, err := image.Build(ctx, image.BuildOptions{
			Root: o.Root, Out: filepath.Join(work, p.OS+"-"+p.Arch), Version: o.Version, Architecture: p.Arch, OS: p.OS,
		}, programs[i:i+1])
		if err != nil {
			return nil, nil, fmt.Errorf("for %s/%s: %w", p.OS, p.Arch, err)
		}
		program, err := os.ReadFile(built[0].Source)
		if err != nil {
			return nil, nil, err
		}
		c := client{Platform: p, bin: filepath.Base(built[0].Source)}
		content := []file{{name: "LICENSE", data: license}, {name: c.bin, data: program, exec: true}}
		pack, suffix := tarGz, ".tar.gz"
		if p.OS == "windows" {
			pack, suffix = zipped, ".zip"
		}
		c.name = fmt.Sprintf("muslinctl_%s_%s_%s%s", o.Version, p.OS, p.Arch, suffix)
		if c.data, err = pack(content); err != nil {
			return nil, nil, fmt.Errorf("pack %s: %w", c.name, err)
		}
		out = append(out, c)
		tools = append(tools, binary{"muslinctl " + p.OS + "/" + p.Arch, built[0].Source})
	}
	return out, tools, nil
}
