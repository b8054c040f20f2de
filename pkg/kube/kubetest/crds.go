package kubetest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/discovery"

	"github.com/muslin-net/muslin/hack/lab/kubelab"
)

// group is the one that all of our CRDs are in.
const group = "projectcalico.org"

// StartWithCRDs is Start for a server that has the CRDs. Its data begin as a copy of those of a server that was given
// them once on this machine: half of the processor time of Start and an apply.
func StartWithCRDs(t testing.TB, more ...string) *Server {
	t.Helper()
	s, err := startWithCRDs(t.TempDir(), more...)
	if s != nil {
		t.Cleanup(s.remove)
	}
	if err != nil {
		t.Fatalf("start a kube-apiserver with the CRDs: %v", err)
	}
	return s
}

// InstallCRDs makes the CRDs in a server that lacks them.
func (s *Server) InstallCRDs(t testing.TB) {
	t.Helper()
	if err := s.installCRDs(); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) installCRDs() error {
	if err := s.run("apply", "--server-side", "-k", filepath.Join(Root(), "manifests", "crds")); err != nil {
		return err
	}
	return s.run("wait", "--for=condition=Established", "crd", "--all", "--timeout=300s")
}

// Install applies all of manifests, at the first call: an apply takes seconds, and
// what a test changes of them stays changed.
func (s *Server) Install(t testing.TB) {
	t.Helper()
	s.installing.Lock()
	defer s.installing.Unlock()
	if !s.installed {
		s.MustKubectl(t, "", "apply", "-k", filepath.Join(Root(), "manifests"))
		s.installed = true
	}
}

func startWithCRDs(dir string, more ...string) (*Server, error) {
	s, err := prepare(dir, more...)
	if err != nil {
		return s, err
	}
	if err := copyTemplate(s.bin, s.path("etcd")); err != nil {
		return s, err
	}
	if err := s.launch(); err != nil {
		return s, err
	}
	return s, s.waitDiscovered(time.Minute)
}

// copyTemplate makes to the data of a server that has the CRDs. The template is made anew when kubelab or the CRDs are
// others; one process at a time does.
func copyTemplate(bin, to string) error {
	dir := filepath.Join(filepath.Dir(kubelab.SharedDir), "kubetest")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	want, err := templateKey(bin)
	if err != nil {
		return err
	}
	key, data := filepath.Join(dir, "key"), filepath.Join(dir, "etcd")
	if is, err := os.ReadFile(key); err != nil || string(is) != want {
		if err := makeTemplate(data); err != nil {
			return fmt.Errorf("make the data of a server with the CRDs: %w", err)
		}
		if err := os.WriteFile(key, []byte(want), 0o644); err != nil {
			return err
		}
	}
	return copyData(data, to)
}

// templateKey is another for other CRDs and another kubelab.
func templateKey(bin string) (string, error) {
	info, err := os.Stat(bin)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprintln(sum, bin, info.Size(), info.ModTime().UnixNano())
	files, err := filepath.Glob(filepath.Join(Root(), "manifests", "crds", "*.yaml"))
	if err == nil && len(files) == 0 {
		err = errors.New("no CRDs in manifests/crds")
	}
	for _, file := range files {
		b, readErr := os.ReadFile(file)
		err = errors.Join(err, readErr)
		fmt.Fprintln(sum, file[len(Root()):], len(b))
		sum.Write(b)
	}
	return fmt.Sprintf("%x\n", sum.Sum(nil)), err
}

func makeTemplate(data string) error {
	if err := os.RemoveAll(data); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mt-kube-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	s, err := start(dir)
	if s != nil {
		defer s.remove()
	}
	if err != nil {
		return err
	}
	if err := s.installCRDs(); err != nil {
		return err
	}
	s.Kill()
	return copyData(s.path("etcd"), data)
}

// copyData copies a folder. etcd's logs are 64 MB each, nearly all of it holes.
func copyData(from, to string) error {
	out, err := exec.CommandContext(context.Background(), "cp", "--recursive", "--sparse=always", "--no-target-directory", from, to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copy %s: %w: %s", from, err, out)
	}
	return nil
}

// waitDiscovered waits until the server lists our kinds: it is ready a moment before.
func (s *Server) waitDiscovered(limit time.Duration) error {
	client, err := discovery.NewDiscoveryClientForConfig(s.Config())
	if err != nil {
		return err
	}
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		groups, _, _, err := client.GroupsAndMaybeResources()
		if err == nil {
			for _, g := range groups.Groups {
				if g.Name == group {
					return nil
				}
			}
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s is not listed after %v: %w", group, limit, err)
		}
	}
}
