package app

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/muslin-net/muslin/cmd/muslinctl/agentview"
	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
)

func (t *Tool) nodeCleanup() *cobra.Command {
	var pods bool
	var patience time.Duration
	c := &cobra.Command{
		Use:   "cleanup NODE",
		Short: "Take back from a node everything of Muslin's",
		Long: `Take back from a node everything of Muslin's: routes, rules, tunnels, the CNI
plugin and its configuration. It runs muslin-agent cleanup on the node, in a pod
made after the agents' DaemonSet, and shows what was removed.

The agent must be gone from the node: give the DaemonSet an affinity that leaves
the node out. Without the DaemonSet, run muslin-agent cleanup on the node itself.`,
		Example:           "  muslinctl node cleanup n4\n  muslinctl node cleanup n4 --pods",
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: t.completeNodes,
		RunE:              func(c *cobra.Command, args []string) error { return t.runCleanup(c.Context(), args[0], pods, patience) },
	}
	c.Flags().BoolVar(&pods, "pods", false, "remove the links of all pods, too: those that run lose their network")
	c.Flags().DurationVar(&patience, "timeout", 2*time.Minute, "how long the pod is waited for")
	return c
}

func (t *Tool) runCleanup(ctx context.Context, node string, pods bool, patience time.Duration) error {
	client, err := t.flags.Client()
	if err != nil {
		return err
	}
	if _, err := client.Get(ctx, kind.MustFind("nodes"), node); err != nil {
		return err
	}
	agents, err := agentview.Agents(ctx, client)
	if err != nil {
		return err
	}
	if a, err := agentview.Of(agents, node); err == nil {
		return fmt.Errorf("node %s: its agent runs (pod %s) and would put everything back; leave the node out of the DaemonSet muslin-agent first", node, a.Pod)
	}
	var set api.Object
	if err := client.GetPath(ctx, "/apis/apps/v1/namespaces/"+agentview.Namespace+"/daemonsets/muslin-agent", nil, &set); err != nil {
		return fmt.Errorf("get DaemonSet muslin-agent: %w; without it, run muslin-agent cleanup on the node itself", err)
	}
	pod, err := cleaner(set, node, pods)
	if err != nil {
		return err
	}
	base := "/api/v1/namespaces/" + agentview.Namespace + "/pods"
	path := base + "/" + kind.Text(pod, "metadata.name", "")
	if err := client.CreatePath(ctx, base, pod); err != nil {
		return fmt.Errorf("create pod %s: %w", kind.Text(pod, "metadata.name", ""), err)
	}
	defer func() {
		if err := client.DeletePath(context.WithoutCancel(ctx), path); err != nil && !apierrors.IsNotFound(err) {
			fmt.Fprintf(t.Err, "delete %s: %v\n", path, err)
		}
	}()
	fmt.Fprintf(t.Out, "cleaning up node %s\n", node)
	return t.awaitCleaner(ctx, client, path, patience)
}

// cleaner is the agents' pod with another thing to do. It may go where the
// DaemonSet may not: nodeName is not judged by selectors.
func cleaner(set api.Object, node string, pods bool) (api.Object, error) {
	template, _ := kind.At(set, "spec.template.spec").(api.Object)
	list, _ := template["containers"].([]any)
	if len(list) == 0 {
		return nil, fmt.Errorf("DaemonSet muslin-agent: spec.template.spec.containers is empty")
	}
	c, _ := list[0].(api.Object)
	c["command"], c["args"] = []any{"/usr/bin/muslin-agent"}, []any{"cleanup"}
	if pods {
		c["args"] = []any{"cleanup", "--pods"}
	}
	for _, f := range []string{"livenessProbe", "readinessProbe", "startupProbe", "ports", "lifecycle"} {
		delete(c, f)
	}
	for _, f := range []string{"initContainers", "affinity", "nodeSelector", "topologySpreadConstraints"} {
		delete(template, f)
	}
	template["containers"], template["nodeName"], template["restartPolicy"] = []any{c}, node, "Never"
	template["tolerations"] = []any{api.Object{"operator": "Exists"}}
	return api.Object{
		"apiVersion": "v1", "kind": "Pod", "spec": template,
		"metadata": api.Object{"name": "muslin-cleanup-" + node, "namespace": agentview.Namespace, "labels": api.Object{"app.kubernetes.io/name": "muslin", "app.kubernetes.io/component": "cleanup"}},
	}, nil
}

func (t *Tool) awaitCleaner(ctx context.Context, client *api.Client, path string, patience time.Duration) error {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		var p api.Object
		if err := client.GetPath(waiting, path, nil, &p); err != nil {
			return err
		}
		phase := kind.Text(p, "status.phase", "")
		if phase == "Succeeded" || phase == "Failed" {
			log, err := client.Text(ctx, path+"/log", nil)
			if err != nil {
				return fmt.Errorf("read the log: %w", err)
			}
			if phase == "Failed" {
				return fmt.Errorf("muslin-agent cleanup: %s", strings.TrimSpace(string(log)))
			}
			fmt.Fprint(t.Out, string(log))
			return nil
		}
		select {
		case <-time.After(300 * time.Millisecond):
		case <-waiting.Done():
			return fmt.Errorf("the pod is %s after %s; see kubectl -n %s describe pod", phase, patience, agentview.Namespace)
		}
	}
}
