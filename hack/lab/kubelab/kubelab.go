// Package kubelab builds the Kubernetes programs that the lab and the tests run:
// one binary from hack/kubelab, which is a module of its own. It is built once
// for a machine, kept in a directory that everybody shares, and built again when
// its sources, its flags or the compiler have changed.
//
// It starts nothing of what it builds. Footprint: the binary and a stamp of its
// sources in the directory that is named.
package kubelab

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"sort"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Version is the version of Kubernetes that hack/kubelab is pinned to.
const Version = "v1.36.3"

// SharedDir holds the binary, beside the programs of every lab of this machine.
const SharedDir = "/var/lib/muslin-lab/bin"

// modulePath is how the source tree is recognised.
const modulePath = "module github.com/muslin-net/muslin\n"

// FindSource walks up from dir, or from the working directory when dir is empty,
// to the root of Muslin's source tree.
func FindSource(dir string) (string, error) {
	if dir == "" {
		dir = "."
	}
	start, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find source tree: %w", err)
	}
	for at := start; ; at = filepath.Dir(at) {
		data, err := os.ReadFile(filepath.Join(at, "go.mod"))
		if err == nil && strings.HasPrefix(string(data), modulePath) {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("find source tree: %s is not inside one; name it with --source", start)
		}
	}
}

// Note is told what a build is busy with.
type Note func(format string, args ...any)

// Build makes dir's binaries, kubelab and kubectl, unless they are there, built from the same sources by
// the same compiler, and gives the path of kubelab. The first build of a machine takes
// minutes. Calls of several processes build once.
func Build(ctx context.Context, source, dir string, note Note) (path string, err error) {
	unlock, err := Lock(dir)
	if err != nil {
		return "", err
	}
	defer unlock()
	sources := filepath.Join(source, "hack", "kubelab")
	want, err := fingerprint(sources)
	if err != nil {
		return "", fmt.Errorf("build kubelab: %w", err)
	}
	path = filepath.Join(dir, "kubelab")
	stamp := path + ".sources"
	have, _ := os.ReadFile(stamp) // absent: to be built
	if _, err := os.Stat(path); err == nil && string(have) == want {
		note("kept, nothing changed")
		return path, nil
	}
	note("from source, the first time takes some minutes")
	for program, pkg := range map[string]string{path: ".", Kubectl(path): "./kubectl"} {
		if err := GoBuild(ctx, sources, note, "-modfile=", "-mod=readonly", "-ldflags", ldflags(), "-o", program+".new", pkg); err != nil {
			return "", fmt.Errorf("build kubelab: %w", err)
		}
		if err := os.Rename(program+".new", program); err != nil {
			return "", fmt.Errorf("build kubelab: %w", err)
		}
	}
	return path, os.WriteFile(stamp, []byte(want), 0o644)
}

// Kubectl is the path of the kubectl that Build puts beside a kubelab.
func Kubectl(kubelab string) string { return filepath.Join(filepath.Dir(kubelab), "kubectl") }

func ldflags() string {
	const pkg = "k8s.io/component-base/version"
	version := strings.Split(strings.TrimPrefix(Version, "v"), ".")
	return fmt.Sprintf("-s -w -X %s.gitVersion=%s -X %s.gitMajor=%s -X %s.gitMinor=%s",
		pkg, Version, pkg, version[0], pkg, version[1])
}

// Lock keeps two processes from building programs in dir at once.
func Lock(path string) (unlock func(), err error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("lock shared programs: %w", err)
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("lock shared programs: %w", err)
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		dir.Close()
		return nil, fmt.Errorf("lock shared programs: %w", err)
	}
	return func() { dir.Close() }, nil
}

// GoBuild runs go build in dir, with static binaries as the result, and notes
// how far it is.
func GoBuild(ctx context.Context, dir string, note Note, args ...string) error {
	return Go(ctx, dir, note, "build", args...)
}

// Go runs a verb of the go command that compiles, as GoBuild does. Flags that
// decide what the build cache can share are the same as in the Makefile.
func Go(ctx context.Context, dir string, note Note, verb string, args ...string) error {
	goTool, err := exec.LookPath("go")
	if err != nil {
		return errors.New("the go command is not in PATH")
	}
	command := exec.CommandContext(ctx, goTool, append([]string{verb, "-v", "-trimpath"}, args...)...)
	command.Dir = dir
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	// A killed lab leaves no compiler behind. The signal comes when the thread
	// that started the child ends, so this goroutine keeps its thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	output, err := command.StderrPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	complaints := follow(output, note)
	if err := command.Wait(); err != nil {
		return fmt.Errorf("go %s in %s: %w\n%s", verb, dir, err, complaints)
	}
	return nil
}

// follow counts what the go command says it does, and returns the rest.
func follow(output io.Reader, note Note) (complaints string) {
	var rest strings.Builder
	packages, modules := 0, 0
	for lines := bufio.NewScanner(output); lines.Scan(); {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "go: downloading "):
			modules++
		case packageName.MatchString(line):
			packages++
		default:
			rest.WriteString(line + "\n")
			continue
		}
		note("%d modules fetched, %d packages compiled", modules, packages)
	}
	return rest.String()
}

// packageName is a line of go build -v.
var packageName = regexp.MustCompile(`^[A-Za-z0-9._~/-]+$`)

// fingerprint sums up the sources in dir, its subdirectories not included, and
// the compiler.
func fingerprint(dir string) (string, error) {
	var files []string
	for _, pattern := range []string{"*.go", "kubectl/*.go", "go.mod", "go.sum"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return "", err
		}
		files = append(files, found...)
	}
	sort.Strings(files)
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version(), runtime.GOARCH, ldflags())
	for _, path := range files {
		file, err := os.Open(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(sum, filepath.Base(path))
		_, err = io.Copy(sum, file)
		file.Close()
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
