package kube

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/muslin-net/muslin/hack/lab/internal/wait"
	"github.com/muslin-net/muslin/hack/lab/machine"
)

// API is the cluster's API server, as its administrator has it.
type API struct{ site *machine.Site }

// Kubeconfig returns the path of the administrator's kubeconfig. The server in
// it is reachable from the lab's machines only: see DialContext and Kubectl.
func (a *API) Kubeconfig() string { return filepath.Join(a.site.Dir, "admin.kubeconfig") }

// ControlPlane returns the machine of the API server.
func (a *API) ControlPlane() machine.Machine {
	return a.site.Machine(a.site.Fabric.Topology.ControlPlane.Name)
}

// KubectlCommand returns a kubectl command with the administrator's rights. It
// sees the caller's files and working directory.
func (a *API) KubectlCommand(ctx context.Context, args ...string) *exec.Cmd {
	command := a.ControlPlane().CommandInNet(ctx, append([]string{a.site.Program("kubectl")}, args...)...)
	// Less garbage collection is a third of what a kubectl costs.
	command.Env = append(command.Env, "KUBECONFIG="+a.Kubeconfig(), "GOGC=400")
	return command
}

// Kubectl runs kubectl with stdin, which may be empty, and returns its standard
// output.
func (a *API) Kubectl(ctx context.Context, stdin string, args ...string) ([]byte, error) {
	command := a.KubectlCommand(ctx, args...)
	command.Stdin = strings.NewReader(stdin)
	out, err := machine.Output(command)
	if err != nil {
		return out, fmt.Errorf("kubectl %s: %w", strings.Join(args, " "), err)
	}
	return out, nil
}

// DialContext connects from the control plane's network, where the API server,
// nodes and pods can be reached; it fits rest.Config.Dial. The host of the
// address must be an IP address.
func (a *API) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return a.site.Fabric.Dial(ctx, a.ControlPlane().Name, network, address)
}

// NodesReady asks once for all nodes whether they are Ready: True, False, Unknown, or
// why it is not known.
func (a *API) NodesReady(ctx context.Context) func(node string) string {
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct {
				Conditions []struct{ Type, Status string }
			}
		}
	}
	client, err := a.client()
	if err == nil {
		err = client.do(ctx, "GET", "/api/v1/nodes", nil, &list)
	}
	if err != nil {
		return func(string) string { return "no answer" }
	}
	conditions := map[string]string{}
	for _, node := range list.Items {
		for _, condition := range node.Status.Conditions {
			if condition.Type == "Ready" {
				conditions[node.Metadata.Name] = condition.Status
			}
		}
	}
	return func(node string) string {
		if status := conditions[node]; status != "" {
			return status
		}
		return "not registered"
	}
}

// waitObject waits until the API server has the object at path.
func (a *API) waitObject(ctx context.Context, path string, log func() string) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	for {
		err := client.do(ctx, "GET", path, nil, nil)
		if err == nil {
			return nil
		}
		if waited := wait.Sleep(ctx, 100*time.Millisecond); waited != nil {
			return fmt.Errorf("wait for %s: %w: %s", path, err, log())
		}
	}
}

// client returns a client of the API server with the administrator's rights.
func (a *API) client() (*client, error) {
	data, err := os.ReadFile(a.Kubeconfig())
	if err != nil {
		return nil, fmt.Errorf("read administrator's kubeconfig: %w", err)
	}
	return newClient(data, a.DialContext)
}
