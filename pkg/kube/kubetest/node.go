package kubetest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Programs builds programs of the repository, as "./cmd/agent", into a folder of the
// test, which it returns.
func Programs(t testing.TB, packages ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	build := exec.CommandContext(context.Background(), "go", append([]string{"build", "-o", dir}, packages...)...)
	build.Dir, build.Env = Root(), append(os.Environ(), "CGO_ENABLED=0") // it runs in containers without libraries
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build.Args, err, out)
	}
	return dir
}

// Node is a network namespace in which a real agent runs. It has a link eth0 that
// nobody answers on, with addresses of 10.1.0.0/24 and fd01::/64, and reaches the
// server at the address that kubeconfigs have.
type Node struct {
	Name, Netns, Address string
	// Dir has the agent's files: agent.sock, state, kubeconfig, net.d, bin, agent.log.
	Dir string

	t     testing.TB
	s     *Server
	agent *exec.Cmd
	ended chan struct{} // closed when agent has ended
	pods  int
	added map[string]string // pod → what ADD printed
}

// NewNode makes a node and its object Node.
func (s *Server) NewNode(t testing.TB, name string) *Node {
	t.Helper()
	host := s.nodes.Add(1)
	n := &Node{Name: name, Netns: s.Netns + "-" + name, Address: fmt.Sprintf("10.1.0.%d", host), Dir: t.TempDir(), t: t, s: s, added: map[string]string{}}
	n.must(exec.CommandContext(context.Background(), "ip", "netns", "add", n.Netns))
	t.Cleanup(func() { _ = exec.CommandContext(context.Background(), "ip", "netns", "del", n.Netns).Run() })
	for _, words := range []string{
		"link set lo up", "link add eth0 type veth peer name rack", "link set rack up", "addr add " + n.Address + "/24 dev eth0", fmt.Sprintf("addr add fd01::%d/64 dev eth0 nodad", host), "link set eth0 up",
	} {
		n.must(n.Exec("ip", strings.Fields(words)...))
	}
	s.ReachFrom(t, n.Netns)
	for _, name := range []string{"ca.crt", "kubeconfig"} {
		text, err := os.ReadFile(s.path(name))
		if err == nil {
			err = os.WriteFile(n.File(name), []byte(strings.ReplaceAll(string(text), s.path("ca.crt"), n.File("ca.crt"))), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s.MustKubectl(t, fmt.Sprintf("{apiVersion: v1, kind: Node, metadata: {name: %s}}", name), "apply", "-f", "-")
	s.MustKubectl(t, "", "patch", "node", name, "--subresource=status", "-p",
		fmt.Sprintf(`{"status":{"addresses":[{"type":"InternalIP","address":%q},{"type":"InternalIP","address":"fd01::%d"}]}}`, n.Address, host))
	return n
}

// Exec is a command inside.
func (n *Node) Exec(name string, args ...string) *exec.Cmd {
	return exec.CommandContext(context.Background(), "nsenter", append([]string{"--net=/run/netns/" + n.Netns, "--", name}, args...)...)
}

// File is the path of one of Dir.
func (n *Node) File(name string) string { return filepath.Join(n.Dir, name) }

func (n *Node) must(cmd *exec.Cmd) {
	n.t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		n.t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
}

// StartAgent runs a command, that of an agent and whatever wraps it, until StopAgent
// or the end of the test. Its files are those of Dir.
func (n *Node) StartAgent(command ...string) {
	n.t.Helper()
	log, err := os.OpenFile(n.File("agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	cmd := n.Exec(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), append(n.Env(), "MUSLIN_PROC_SYS=/proc/sys")...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // of what wraps it, too
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	n.agent, n.ended = cmd, ended
	n.t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); <-ended })
}

// Env is the environment of the node's agent, less the place of sysctls.
func (n *Node) Env() []string {
	return []string{
		"NODE_NAME=" + n.Name, "KUBECONFIG=" + n.File("kubeconfig"), "MUSLIN_CNI_CONF=none",
		"MUSLIN_SOCKET=" + n.File("agent.sock"), "MUSLIN_STATE=" + n.File("state"),
	}
}

// Signal sends a signal to the agent.
func (n *Node) Signal(s syscall.Signal) {
	n.t.Helper()
	if err := syscall.Kill(-n.agent.Process.Pid, s); err != nil && !n.Ended() {
		n.t.Fatal(err)
	}
}

// StopAgent kills the agent.
func (n *Node) StopAgent() {
	n.t.Helper()
	n.Signal(syscall.SIGKILL)
	<-n.ended
}

// Ended says whether the agent has ended by itself.
func (n *Node) Ended() bool {
	select {
	case <-n.ended:
		return true
	default:
		return false
	}
}

// Log is what agents have written so far.
func (n *Node) Log() string {
	text, err := os.ReadFile(n.File("agent.log"))
	if err != nil {
		n.t.Fatal(err)
	}
	return string(text)
}

// Pod makes a network namespace for a pod of namespace default, and its object, and
// returns the name of both.
func (n *Node) Pod() (name string) {
	n.t.Helper()
	n.pods++
	name = fmt.Sprintf("%s-%s-%d", n.s.Netns, n.Name, n.pods)
	n.must(exec.CommandContext(context.Background(), "ip", "netns", "add", name))
	n.t.Cleanup(func() { _ = exec.CommandContext(context.Background(), "ip", "netns", "del", name).Run() })
	n.s.MustKubectl(n.t, fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: %s, namespace: default}, spec: {nodeName: %s, containers: [{name: c, image: none}]}}`,
		name, n.Name), "apply", "-f", "-")
	return name
}

// CNI runs a plugin for a pod, as the runtime does, and returns what it printed. What
// ADD printed is the previous result of each verb that follows.
func (n *Node) CNI(plugin, verb, pod string) (string, error) {
	cmd := exec.CommandContext(context.Background(), plugin)
	cmd.Env = []string{
		"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + pod, "CNI_NETNS=/run/netns/" + pod, "CNI_IFNAME=eth0", "CNI_PATH=/",
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + pod + ";K8S_POD_INFRA_CONTAINER_ID=" + pod,
	}
	previous := ""
	if verb != "ADD" && n.added[pod] != "" {
		previous = `,"prevResult":` + n.added[pod]
	}
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"cniVersion":"1.1.0","name":"k8s-pod-network","type":"muslin","socket":%q,"spool":%q%s}`,
		n.File("agent.sock"), n.File("state/cni-spool"), previous))
	out, err := cmd.CombinedOutput()
	if verb == "ADD" && err == nil {
		n.added[pod] = string(out)
	}
	return string(out), err
}

// Await waits until something is so while the agent runs, a minute at most.
func (n *Node) Await(what string, is func() bool) {
	n.t.Helper()
	for end := time.Now().Add(3 * time.Minute); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) || n.Ended() {
			log := n.Log()
			n.t.Fatalf("%s: not after a minute, or the agent has ended: %s\n%s", n.Name, what, log[max(0, len(log)-4000):])
		}
	}
}

// Get asks the agent for a page.
func (n *Node) Get(path string) (code int, body string, err error) {
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		err = inNetns(n.Netns, func() error {
			conn, err = new(net.Dialer).DialContext(ctx, network, addr)
			return err
		})
		return conn, err
	}}}
	req, err := http.NewRequestWithContext(n.t.Context(), http.MethodGet, "http://127.0.0.1:9109"+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}
