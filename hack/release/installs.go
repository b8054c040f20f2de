package release

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/muslin-net/muslin/hack/manifests"
)

// installs gives what a user applies, with the place of the image in it: the rendered
// manifests and the chart. work is a directory to make them in.
func installs(o Options, work, digest string) ([]file, error) {
	tree := filepath.Join(work, "tree")
	if err := os.CopyFS(filepath.Join(tree, "manifests"), os.DirFS(filepath.Join(o.Root, "manifests"))); err != nil {
		return nil, fmt.Errorf("copy the manifests: %w", err)
	}
	if err := manifests.SetImage(tree, manifests.Image{Repository: o.Image, Tag: o.Version, Digest: digest}); err != nil {
		return nil, err
	}
	all, err := manifests.Files(tree)
	if err != nil {
		return nil, err
	}
	content, err := chartFiles(filepath.Join(tree, "manifests", "charts", "muslin"), o.Version)
	if err != nil {
		return nil, err
	}
	packed, err := tarGz(content)
	if err != nil {
		return nil, fmt.Errorf("pack the chart: %w", err)
	}
	return []file{
		{name: "muslin.yaml", data: all["manifests/muslin.yaml"]},
		{name: "muslin-" + strings.TrimPrefix(o.Version, "v") + ".tgz", data: packed},
	}, nil
}

// chartFiles gives the files of a chart as Helm packs them, below the chart's name and in
// order, links followed, with the version in the place of the one for development.
// Helm's own archive has the time of the machine in it.
func chartFiles(dir, version string) ([]file, error) {
	var out []file
	stamp := strings.NewReplacer("version: 0.0.0-dev\n", "version: "+strings.TrimPrefix(version, "v")+"\n", "appVersion: dev\n", "appVersion: "+version+"\n")
	var walk func(dir, name string) error
	walk = func(dir, name string) error {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			from, to := filepath.Join(dir, e.Name()), path.Join(name, e.Name())
			info, err := os.Stat(from) // of what a link leads to
			switch {
			case err != nil:
				return err
			case info.IsDir():
				err = walk(from, to)
			case ships(e.Name()):
				var data []byte
				if data, err = os.ReadFile(from); e.Name() == "Chart.yaml" {
					data = []byte(stamp.Replace(string(data)))
				}
				out = append(out, file{name: to, data: data})
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	if err := walk(dir, "muslin"); err != nil {
		return nil, fmt.Errorf("read the chart: %w", err)
	}
	return out, nil
}

// ships reports whether a file is for users of the chart.
func ships(name string) bool {
	return name != ".helmignore" && !strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.yaml")
}
