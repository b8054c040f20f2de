package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// leakGrace is how long the controller of these stories waits before it takes
// an address for lost.
const leakGrace = 4 * time.Second

// TestAddressesComeBack: what a killed agent, a pod deleted by force and a
// deleted node leave behind is free again, and nothing else is.
func TestAddressesComeBack(t *testing.T) {
	t.Parallel() // mostly waits; beside other labs
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	c := lightCluster(t, ctx, "gc", "testdata/two-light.yaml")
	c.kubectl(t, ctx, fmt.Sprintf(`apiVersion: projectcalico.org/v3
kind: KubeControllersConfiguration
metadata: {name: default}
spec: {controllers: {node: {leakGracePeriod: %s}}}
`, leakGrace), "apply", "-f", "-")
	if err := c.StartAgents(); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"a1", "a2"} {
		if _, err := c.addSoon(ctx, n, "stays-"+n); err != nil {
			t.Fatal(err)
		}
	}
	c.wantHandles(t, ctx, "default-stays-a1", "default-stays-a2")
	t.Run("what an ADD costs the API server", func(t *testing.T) { c.addCosts(t, ctx) })
	c.wantHandles(t, ctx, "default-stays-a1", "default-stays-a2")
	t.Run("agent killed before its answer", func(t *testing.T) { c.killBeforeAnswer(t, ctx) })
	c.startController(t, "a1")
	t.Run("pod force-deleted while its agent is down", func(t *testing.T) { c.forceDelete(t, ctx) })
	t.Run("node deleted", func(t *testing.T) { c.deleteNode(t, ctx) })
}

// addSoon plugs a pod, as soon as the node's agent lets it.
func (c *LightCluster) addSoon(ctx context.Context, node, name string) (string, error) {
	var addr string
	err := c.eventually(ctx, time.Minute, func() error {
		a, err := c.AddLightPod(ctx, node, name)
		if err != nil {
			return err
		}
		addr = a.String()
		// What a kubelet would report.
		_, err = c.Kubectl(ctx, "", "patch", "pod", name, "--subresource=status", "--type=merge",
			"-p", fmt.Sprintf(`{"status":{"phase":"Running","podIP":%q,"podIPs":[{"ip":%q}]}}`, addr, addr))
		return err
	})
	return addr, err
}

// startController runs the cluster's controller on a machine until the test ends.
func (c *LightCluster) startController(t *testing.T, machine string) {
	t.Helper()
	const program = "muslin-controller"
	if err := c.startProgram(program, machine, "POD_NAME=scenario"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.endProgram(program, machine, os.Kill); err != nil {
			t.Error(err)
		}
		if text, err := os.ReadFile(c.logOf(program, machine)); err == nil && t.Failed() {
			t.Logf("controller:\n%s", text)
		}
	})
}

// killBeforeAnswer: the network namespace of this pod is a FIFO, which nobody
// can open before somebody writes to it. So the address is assigned and stored
// while the wiring waits, and there the agent is killed.
func (c *LightCluster) killBeforeAnswer(t *testing.T, ctx context.Context) {
	const node, handle = "a2", "default-stuck"
	if _, err := c.Machine(node).Exec(ctx, "mkfifo", "/run/netns/"+handle); err != nil {
		t.Fatal(err)
	}
	c.kubectl(t, ctx, lightPodObject(node, "stuck"), "apply", "-f", "-")
	add := c.cniAdd(t, ctx, node, "stuck")
	c.wantHandles(t, ctx, "default-stays-a1", "default-stays-a2", handle)
	if err := c.KillAgent(node); err != nil {
		t.Fatal(err)
	}
	if err := add.Wait(); err == nil {
		t.Error("ADD succeeded although its agent died")
	}
	c.wantHandles(t, ctx, "default-stays-a1", "default-stays-a2", handle) // it did leak
	if _, err := c.Machine(node).Exec(ctx, "rm", "/run/netns/"+handle); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := c.StartAgent(node); err != nil {
		t.Fatal(err)
	}
	c.wantHandles(t, ctx, "default-stays-a1", "default-stays-a2")
	t.Logf("the address was free %.1f s after the agent's start", time.Since(began).Seconds())
	if _, err := c.addSoon(ctx, node, "stuck"); err != nil { // the kubelet's next try
		t.Fatal(err)
	}
	c.wantHandles(t, ctx, "default-stays-a1", "default-stays-a2", handle)
}

func lightPodObject(node, name string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: default}\nspec: {nodeName: %s, containers: [{name: c, image: none}]}\n", name, node)
}

// cniAdd starts a CNI ADD of a pod whose namespace path exists, and does not
// wait for its end.
func (c *LightCluster) cniAdd(t *testing.T, ctx context.Context, node, name string) *exec.Cmd {
	t.Helper()
	out, err := c.Machine(node).Exec(ctx, "sh", "-c", "cat /etc/cni/net.d/*.conflist")
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Name, CNIVersion string
		Plugins          []map[string]any
	}
	if err := json.Unmarshal(out, &list); err != nil {
		t.Fatal(err)
	}
	conf := list.Plugins[0]
	conf["name"], conf["cniVersion"] = list.Name, list.CNIVersion
	stdin, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	id := "default-" + name
	cmd := c.Machine(node).Command(ctx, "/opt/cni/bin/muslin")
	cmd.Env = append(cmd.Env, "CNI_COMMAND=ADD", "CNI_CONTAINERID="+id, "CNI_NETNS=/run/netns/"+id, "CNI_IFNAME=eth0", "CNI_PATH=/opt/cni/bin",
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME="+name+";K8S_POD_INFRA_CONTAINER_ID="+id)
	cmd.Stdin = strings.NewReader(string(stdin))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// forceDelete: nobody tells the agent that the pod is gone. The controller
// finds its address, while the agent is still down.
func (c *LightCluster) forceDelete(t *testing.T, ctx context.Context) {
	const node = "a2"
	if err := c.KillAgent(node); err != nil {
		t.Fatal(err)
	}
	c.kubectl(t, ctx, "", "delete", "pod", "stuck", "--force", "--grace-period=0")
	began := time.Now()
	c.wantHandles(t, ctx, "default-stays-a1", "default-stays-a2")
	t.Logf("the address was free %.1f s after the pod's end, with a grace of %s", time.Since(began).Seconds(), leakGrace)
	if err := c.StartAgent(node); err != nil {
		t.Fatal(err)
	}
	// The kubelet has forgotten nothing: it deletes the sandbox, late.
	if err := c.eventually(ctx, time.Minute, func() error { return c.Pod(node, "default", "stuck").Delete(ctx) }); err != nil {
		t.Fatal(err)
	}
	if _, err := c.addSoon(ctx, node, "next"); err != nil {
		t.Fatal(err)
	}
	c.wantHandles(t, ctx, "default-stays-a1", "default-stays-a2", "default-next")
}

// deleteNode: its object goes, and a while after its last pod all that it had.
func (c *LightCluster) deleteNode(t *testing.T, ctx context.Context) {
	if err := c.KillAgent("a2"); err != nil {
		t.Fatal(err)
	}
	c.kubectl(t, ctx, "", "delete", "node", "a2")
	c.kubectl(t, ctx, "", "delete", "pod", "stays-a2", "next", "--force", "--grace-period=0") // as the cluster's garbage collector of pods
	began := time.Now()
	c.wantHandlesWithin(t, ctx, 4*time.Minute, "default-stays-a1")
	if err := c.eventually(ctx, 4*time.Minute, func() error {
		out, err := c.Kubectl(ctx, "", "get", "blockaffinities.projectcalico.org,ipamblocks.projectcalico.org",
			"-o", `jsonpath={range .items[*]}{.kind} {.spec.node}{.spec.affinity}{"\n"}{end}`)
		if err != nil {
			return err
		}
		if text := string(out); strings.Contains(text, "a2") || strings.Count(text, "a1") != 2 {
			return fmt.Errorf("blocks and affinities:\n%s", text)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	t.Logf("blocks and addresses were free %.1f s after its last pod's end", time.Since(began).Seconds())
}

// wantHandles waits until the stored handles, and the owners of addresses in
// the blocks, are exactly those of the given containers.
func (c *LightCluster) wantHandles(t *testing.T, ctx context.Context, containers ...string) {
	t.Helper()
	c.wantHandlesWithin(t, ctx, time.Minute, containers...)
}

func (c *LightCluster) wantHandlesWithin(t *testing.T, ctx context.Context, within time.Duration, containers ...string) {
	t.Helper()
	slices.Sort(containers)
	want := strings.Join(containers, " ")
	if err := c.eventually(ctx, within, func() error {
		handles, err := c.handles(ctx)
		if err != nil {
			return err
		}
		owners, err := c.owners(ctx)
		if err != nil {
			return err
		}
		if got := strings.Join(handles, " "); got != want {
			return fmt.Errorf("handles of %q, want %q", got, want)
		}
		if got := strings.Join(owners, " "); got != want {
			return fmt.Errorf("addresses of %q, want %q", got, want)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

const handlePrefix = "k8s-pod-network."

// handles names the containers that have a handle, sorted.
func (c *LightCluster) handles(ctx context.Context) ([]string, error) {
	out, err := c.Kubectl(ctx, "", "get", "ipamhandles.projectcalico.org", "-o", "jsonpath={.items[*].metadata.name}")
	if err != nil {
		return nil, err
	}
	names := strings.Fields(strings.ReplaceAll(string(out), handlePrefix, ""))
	slices.Sort(names)
	return names, nil
}

// owners names the containers that have an address in a block, sorted.
func (c *LightCluster) owners(ctx context.Context) ([]string, error) {
	out, err := c.Kubectl(ctx, "", "get", "ipamblocks.projectcalico.org", "-o", "json")
	if err != nil {
		return nil, err
	}
	var blocks struct {
		Items []struct {
			Spec struct {
				Allocations []*int
				Attributes  []struct {
					Handle string `json:"handle_id"`
				}
			}
		}
	}
	if err := json.Unmarshal(out, &blocks); err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, b := range blocks.Items {
		for _, at := range b.Spec.Allocations {
			if at != nil {
				names[strings.TrimPrefix(b.Spec.Attributes[*at].Handle, handlePrefix)] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names)), nil
}
