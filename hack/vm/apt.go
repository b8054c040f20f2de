package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// apt is a set of package lists: this machine's, or that of another release of
// Debian, which is kept apart from it.
type apt struct {
	settings []string // NAME=value, as of apt's -o
}

// download fetches the release's newest kernel package into a directory.
func (c *cache) download(ctx context.Context, dir string) error {
	if c.release != "" {
		a, err := otherRelease(ctx, c.release, dir)
		if err != nil {
			return err
		}
		return errors.Join(a.update(ctx), a.kernel(ctx, dir))
	}
	var a apt
	err := a.kernel(ctx, dir)
	if err == nil {
		return nil
	}
	// A fresh machine has no package lists, and old lists name packages that are
	// gone.
	if update := a.update(ctx); update != nil {
		return errors.Join(err, update)
	}
	return a.kernel(ctx, dir)
}

// otherRelease has lists of its own below a directory, from the server that this
// machine takes Debian from.
func otherRelease(ctx context.Context, release, dir string) (apt, error) {
	out, err := apt{}.run(ctx, "apt-get", "indextargets", "--format=$(REPO_URI)", "Created-By: Packages", "Label: Debian", "Component: main")
	if err != nil {
		return apt{}, err
	}
	server, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if server == "" {
		return apt{}, errors.New("apt has no source of Debian's packages: where to fetch " + release + " is unknown")
	}
	a := apt{[]string{
		"Dir::Etc::SourceList=/dev/null", "Dir::Etc::SourceParts=" + filepath.Join(dir, "sources"),
		"Dir::State::Lists=" + filepath.Join(dir, "lists"), "Dir::Cache=" + filepath.Join(dir, "cache"),
		"Acquire::Check-Valid-Until=false", "Acquire::Languages=none", // an old release is signed no more
	}}
	for _, sub := range []string{"sources", "lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return apt{}, err
		}
	}
	source := "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] " + server + " " + release + " main\n"
	return a, os.WriteFile(filepath.Join(dir, "sources", "debian.list"), []byte(source), 0o644)
}

func (a apt) update(ctx context.Context) error {
	_, err := a.run(ctx, "apt-get", "update", "-qq")
	return err
}

// metaPackage depends on the release's generic kernel. (The cloud flavour has
// no 9p.)
const metaPackage = "linux-image-amd64"

var kernelPackage = regexp.MustCompile(`(?m)^ *Depends: (linux-image-[0-9]\S*)$`)

func (a apt) kernel(ctx context.Context, dir string) error {
	out, err := a.run(ctx, "apt-cache", "depends", metaPackage)
	if err != nil {
		return err
	}
	match := kernelPackage.FindSubmatch(out)
	if match == nil {
		return fmt.Errorf("ask apt for %s: it depends on no kernel: %s", metaPackage, out)
	}
	return command(ctx, dir, "apt-get", append(a.options(), "download", "-q", string(match[1]))...)
}

func (a apt) options() (options []string) {
	for _, s := range a.settings {
		options = append(options, "-o", s)
	}
	return options
}

func (a apt) run(ctx context.Context, name string, args ...string) ([]byte, error) {
	out, err := exec.CommandContext(ctx, name, append(a.options(), args...)...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return out, nil
}
