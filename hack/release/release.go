package release

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/muslin-net/muslin/hack/image"
)

// Options say what is released.
type Options struct {
	Root    string // the checkout
	Out     string // directory for the files
	Version string // "v1.2.3" or "v1.2.3-rc.1"
	// Image is where the image will be pulled from, registry and name without tag.
	// Empty: the one of the manifests, which is nowhere.
	Image string
	// URL is where the files will be found, without the last slash. Empty: of the
	// project's releases.
	URL string
}

// Architectures of the image, and Platforms of muslinctl.
var (
	Architectures = []string{"amd64", "arm64"}
	Platforms     = []Platform{
		{"linux", "amd64"}, {"linux", "arm64"}, {"darwin", "amd64"}, {"darwin", "arm64"}, {"windows", "amd64"}, {"windows", "arm64"},
	}
)

// Platform is a GOOS with a GOARCH.
type Platform struct{ OS, Arch string }

var versionForm = regexp.MustCompile(`^v(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$`)

func (o Options) withDefaults() (Options, error) {
	if !versionForm.MatchString(o.Version) {
		return o, fmt.Errorf("version %q: want v1.2.3 or v1.2.3-rc.1", o.Version)
	}
	if o.Image == "" {
		o.Image = image.Ref[:strings.LastIndex(image.Ref, ":")]
	}
	if o.URL == "" {
		o.URL = "https://github.com/muslin-net/muslin/releases/download/" + o.Version
	}
	return o, nil
}

// Make writes all files of the release. An error before they are written leaves the
// directory as it was.
func Make(ctx context.Context, o Options) (err error) {
	o, err = o.withDefaults()
	if err != nil {
		return err
	}
	if err := removable(o.Out); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "muslin-release-")
	if err != nil {
		return fmt.Errorf("make a directory to build in: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	archive, digest, programs, err := buildImage(ctx, o, work)
	if err != nil {
		return err
	}
	clients, tools, err := buildClients(ctx, o, work)
	if err != nil {
		return err
	}
	installed, err := installs(o, work, digest)
	if err != nil {
		return err
	}
	bill, err := billOf(o.Root, o.Version, append(programs, tools...))
	if err != nil {
		return err
	}
	files := append([]file{archive, bill, krewManifest(o, clients)}, installed...)
	for _, c := range clients {
		files = append(files, c.file)
	}
	return write(o.Out, files)
}

// removable refuses a directory that no release has been written to.
func removable(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, sums)); err != nil {
		return fmt.Errorf("%s has files that are of no release: %w", dir, err)
	}
	return nil
}
