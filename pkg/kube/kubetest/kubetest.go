// Package kubetest runs a real kube-apiserver, with etcd inside it, for tests.
//
// Each server lives in a network namespace of its own, so that any number of
// tests can run at the same time; nothing of it can be reached from outside but
// through Config, Kubectl and Exec. It needs root and the kubelab binary
// (hack/kubelab): MUSLIN_KUBELAB names it, else the lab's is used, else it is
// built once into the user's cache.
//
// Footprint: a namespace mt-kube-*, a process, and files in the test's
// temporary folder; all three go when the test ends. What stays, beside the lab's
// programs, is the folder kubetest: the data of a server that has the CRDs.
package kubetest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"k8s.io/client-go/rest"

	"github.com/muslin-net/muslin/hack/lab/kubelab"
)

const (
	address = "127.0.0.1:6443"
	token   = "admintoken"
)

// Server is a running kube-apiserver.
type Server struct {
	// Netns names the network namespace that the server listens in.
	Netns string
	// Dir holds keys, data, logs and the file "kubeconfig" of an administrator.
	Dir string

	bin  string
	more []string // flags beside those of every server
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended

	nodes atomic.Int32 // how many were made

	installing sync.Mutex
	installed  bool // by Install
}

// Start runs a server, with more flags of kube-apiserver if given, until the test
// ends. It answers when the server is ready, which takes about three seconds on an
// idle machine.
func Start(t testing.TB, more ...string) *Server {
	t.Helper()
	s, err := start(t.TempDir(), more...)
	if s != nil {
		t.Cleanup(s.remove)
	}
	if err != nil {
		t.Fatalf("start a kube-apiserver: %v", err)
	}
	return s
}

// Main runs the tests of a package around one server that has the CRDs and is
// handed to f; it is for TestMain. It returns the exit code.
func Main(m *testing.M, f func(*Server)) int {
	dir, err := os.MkdirTemp("", "mt-kube-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	s, err := startWithCRDs(dir)
	if s != nil {
		defer s.remove()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "start a kube-apiserver with the CRDs:", err)
		return 1
	}
	f(s)
	return m.Run()
}

func start(dir string, more ...string) (*Server, error) {
	s, err := prepare(dir, more...)
	if err != nil {
		return s, err
	}
	return s, s.launch()
}

// prepare makes all that a server needs but its data.
func prepare(dir string, more ...string) (*Server, error) {
	bin, err := Binary()
	if err != nil {
		return nil, err
	}
	if err := writeKeys(dir); err != nil {
		return nil, err
	}
	s := &Server{Netns: fmt.Sprintf("mt-kube-%08x", rand.Uint32()), Dir: dir, bin: bin, more: more}
	if out, err := exec.CommandContext(context.Background(), "ip", "netns", "add", s.Netns).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make netns %s: %w: %s", s.Netns, err, out)
	}
	if out, err := s.Exec("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return s, fmt.Errorf("set lo up: %w: %s", err, out)
	}
	return s, nil
}

// starting has room for the servers of a test binary that start at once. A start is all processor time: eight that
// start side by side on a busy machine are all late, and one after the other none is.
var starting = make(chan struct{}, 2)

// launch starts the process and waits until it is ready.
func (s *Server) launch() error {
	starting <- struct{}{}
	defer func() { <-starting }()
	log, err := os.OpenFile(s.path("apiserver.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = s.Exec(s.bin, s.flags()...)
	// Less garbage collection is a quarter of what a server costs that lives for seconds. A test whose server holds more sets a limit of its own.
	s.cmd.Env = append(append([]string{"GOGC=400", "GOMEMLIMIT=1GiB"}, os.Environ()...), "KUBELAB_ETCD_DIR="+s.path("etcd"))
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.done = make(chan struct{})
	started := make(chan error)
	go func() {
		// The kernel kills the server when the thread that started it ends, so
		// that a test binary that is killed leaves nothing behind: the thread is
		// held until the server has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		err := s.cmd.Start()
		started <- err
		if err == nil {
			_ = s.cmd.Wait()
		}
		close(s.done)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", s.bin, err)
	}
	return s.waitReady(10 * time.Minute)
}

func (s *Server) flags() []string {
	return append([]string{
		"apiserver-with-etcd",
		"--etcd-servers=http://127.0.0.1:2379", "--secure-port=6443", "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
		"--tls-cert-file=" + s.path("apiserver.crt"), "--tls-private-key-file=" + s.path("apiserver.key"),
		"--client-ca-file=" + s.path("ca.crt"), "--token-auth-file=" + s.path("tokens.csv"), "--authorization-mode=Node,RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + s.path("sa.pub"), "--service-account-signing-key-file=" + s.path("sa.key"),
		"--service-cluster-ip-range=10.96.0.0/16,fd00:96::/108", "--enable-admission-plugins=NodeRestriction",
		"--disable-admission-plugins=ServiceAccount", // no controller makes service accounts here
		"--endpoint-reconciler-type=none", "--allow-privileged=true",
	}, s.more...)
}

func (s *Server) waitReady(limit time.Duration) error {
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: s.Dial, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	defer client.CloseIdleConnections()
	var last error
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		select {
		case <-s.done:
			return fmt.Errorf("the server ended: %s", s.Log(2000))
		default:
		}
		if last = probe(client); last == nil {
			return nil
		}
	}
	return fmt.Errorf("not ready after %v: %w: %s", limit, last, s.Log(2000))
}

func probe(client *http.Client) error {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "https://"+address+"/readyz", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("readyz: %s: %s", resp.Status, body)
	}
	return err
}

// Kill ends the server at once, as a crash does. Its data stays.
func (s *Server) Kill() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.done
}

// Restart kills the server and starts it on the same data.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.Kill()
	if err := s.launch(); err != nil {
		t.Fatalf("restart the kube-apiserver: %v", err)
	}
}

func (s *Server) remove() {
	s.Kill()
	_ = exec.CommandContext(context.Background(), "ip", "netns", "del", s.Netns).Run()
}

// Log gives the last bytes of the server's log.
func (s *Server) Log(most int) string {
	b, err := os.ReadFile(s.path("apiserver.log"))
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-most):])
}

// Exec makes a command that runs in the server's network namespace.
func (s *Server) Exec(name string, args ...string) *exec.Cmd {
	return exec.CommandContext(context.Background(), "nsenter", append([]string{"--net=/run/netns/" + s.Netns, "--", name}, args...)...)
}

// Kubectl runs kubectl as the administrator, with stdin as its input, and gives
// what it printed on both outputs.
func (s *Server) Kubectl(stdin string, args ...string) (string, error) {
	cmd := s.Exec(kubelab.Kubectl(s.bin), append([]string{"--kubeconfig=" + s.path("kubeconfig")}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	// Less garbage collection is a third of what a kubectl costs, and tests run hundreds.
	cmd.Env = append(os.Environ(), "HOME="+s.Dir, "GOGC=400")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (s *Server) run(args ...string) error {
	if out, err := s.Kubectl("", args...); err != nil {
		return fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// MustKubectl is Kubectl for what has to succeed.
func (s *Server) MustKubectl(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	out, err := s.Kubectl(stdin, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// Config gives an administrator's client configuration without rate limits. It
// reaches into the namespace by itself.
func (s *Server) Config() *rest.Config {
	return &rest.Config{
		Host: "https://" + address, BearerToken: token, QPS: -1, Dial: s.Dial,
		TLSClientConfig: rest.TLSClientConfig{CAFile: s.path("ca.crt")},
	}
}

// ConfigAs gives the configuration of somebody else, as in
// "system:serviceaccount:muslin-system:muslin-agent".
func (s *Server) ConfigAs(user string, groups ...string) *rest.Config {
	c := s.Config()
	c.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: groups}
	return c
}

// Dial connects from inside the server's namespace. A socket belongs for ever to
// the namespace it was made in.
func (s *Server) Dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	err = inNetns(s.Netns, func() error {
		conn, err = new(net.Dialer).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// inNetns calls f on a thread that is in a named network namespace.
func inNetns(name string, f func() error) error {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own netns: %w", err)
	}
	defer func() { _ = home.Close() }()
	there, err := netns.GetFromName(name)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open netns %s: %w", name, err)
	}
	defer func() { _ = there.Close() }()
	if err := netns.Set(there); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter netns %s: %w", name, err)
	}
	err = f()
	if back := netns.Set(home); back != nil {
		return errors.Join(err, fmt.Errorf("leave netns: %w", back)) // the thread is spoilt: it stays locked
	}
	runtime.UnlockOSThread()
	return err
}

func (s *Server) path(name string) string { return filepath.Join(s.Dir, name) }
