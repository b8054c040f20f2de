package lab

import (
	"bufio"
	"bytes"
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

// kubernetesVersion is the version hack/kubelab is pinned to.
const kubernetesVersion = "v1.36.3"

// modulePath is how the source tree is recognised.
const modulePath = "module github.com/muslin-net/muslin\n"

// findSource walks up from dir to the root of Muslin's source tree.
func findSource(dir string) (string, error) {
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
			return "", fmt.Errorf("find source tree: %s is not inside one; name it in Options.Source or --source", start)
		}
	}
}

// buildKubelab builds the Kubernetes programs unless they are there, built from
// the same sources by the same compiler.
func (l *Lab) buildKubelab(ctx context.Context) error {
	unlock, err := l.lockBin()
	if err != nil {
		return err
	}
	defer unlock()
	source := filepath.Join(l.source, "hack", "kubelab")
	want, err := fingerprint(source)
	if err != nil {
		return fmt.Errorf("build kubelab: %w", err)
	}
	binary, stamp := l.program("kubelab"), l.program("kubelab.sources")
	have, _ := os.ReadFile(stamp) // absent: to be built
	if _, err := os.Stat(binary); err == nil && string(have) == want {
		l.progress.note("kept, nothing changed")
		return nil
	}
	l.progress.note("from source, the first time takes some minutes")
	version := strings.Split(strings.TrimPrefix(kubernetesVersion, "v"), ".")
	const pkg = "k8s.io/component-base/version"
	ldflags := fmt.Sprintf("-s -w -X %s.gitVersion=%s -X %s.gitMajor=%s -X %s.gitMinor=%s",
		pkg, kubernetesVersion, pkg, version[0], pkg, version[1])
	if err := l.goBuild(ctx, source, "-mod=readonly", "-trimpath", "-ldflags", ldflags, "-o", binary+".new", "."); err != nil {
		return fmt.Errorf("build kubelab: %w", err)
	}
	if err := os.Rename(binary+".new", binary); err != nil {
		return fmt.Errorf("build kubelab: %w", err)
	}
	return os.WriteFile(stamp, []byte(want), 0o644)
}

// buildPrograms builds the lab's own programs and the archive with the images
// that every full node needs.
func (l *Lab) buildPrograms(ctx context.Context) error {
	unlock, err := l.lockBin()
	if err != nil {
		return err
	}
	defer unlock()
	for name, pkg := range map[string]string{
		"machine": "./hack/lab/cmd/machine", "probe": "./hack/lab/probe", "lab": "./hack/lab/cmd/lab",
	} {
		fresh := filepath.Join(l.binDir(), "fresh", name)
		if err := l.goBuild(ctx, l.source, "-trimpath", "-ldflags", "-s -w", "-o", fresh, pkg); err != nil {
			return fmt.Errorf("build %s: %w", name, err)
		}
		if err := install(fresh, l.program(name)); err != nil {
			return fmt.Errorf("build %s: %w", name, err)
		}
	}
	return writeToolImages(l.binDir())
}

// install puts a program in its place at once: other labs may be running it,
// and go build would leave a moment without.
func install(fresh, program string) error {
	built, err := os.ReadFile(fresh)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(program); err == nil && bytes.Equal(old, built) {
		return nil
	}
	return copyFile(fresh, program, 0o755)
}

// lockBin keeps two labs from building the shared programs at once.
func (l *Lab) lockBin() (unlock func(), err error) {
	if err := os.MkdirAll(l.binDir(), 0o755); err != nil {
		return nil, fmt.Errorf("lock shared programs: %w", err)
	}
	dir, err := os.Open(l.binDir())
	if err != nil {
		return nil, fmt.Errorf("lock shared programs: %w", err)
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		dir.Close()
		return nil, fmt.Errorf("lock shared programs: %w", err)
	}
	return func() { dir.Close() }, nil
}

// goBuild runs the go command in dir, with static binaries as the result, and
// notes how far it is.
func (l *Lab) goBuild(ctx context.Context, dir string, args ...string) error {
	goTool, err := exec.LookPath("go")
	if err != nil {
		return errors.New("the go command is not in PATH")
	}
	command := exec.CommandContext(ctx, goTool, append([]string{"build", "-v"}, args...)...)
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
	complaints := l.followBuild(output)
	if err := command.Wait(); err != nil {
		return fmt.Errorf("go build in %s: %w\n%s", dir, err, tail(complaints))
	}
	return nil
}

// followBuild counts what the go command says it does, and returns the rest.
func (l *Lab) followBuild(output io.Reader) (complaints string) {
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
		l.progress.note("%d modules fetched, %d packages compiled", modules, packages)
	}
	return rest.String()
}

// packageName is a line of go build -v.
var packageName = regexp.MustCompile(`^[A-Za-z0-9._~/-]+$`)

// fingerprint sums up the sources in dir, its subdirectories not included, and
// the compiler.
func fingerprint(dir string) (string, error) {
	var files []string
	for _, pattern := range []string{"*.go", "go.mod", "go.sum"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return "", err
		}
		files = append(files, found...)
	}
	sort.Strings(files)
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version(), runtime.GOARCH, kubernetesVersion)
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
