package app

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
)

type migrateOptions struct {
	restart, remove bool
	timeout         time.Duration
}

func (t *Tool) ippool() *cobra.Command {
	return group("ippool", "Move pods from one pool to another", "Move pods from one pool of addresses to another.", t.migrate())
}

func (t *Tool) migrate() *cobra.Command {
	var o migrateOptions
	c := &cobra.Command{
		Use:   "migrate OLD NEW",
		Short: "Drain a pool into another one",
		Long: `Drain a pool into another one: OLD gives out no address from now on; the pods that
still have one of its addresses are told by owner. With --restart their owners
are restarted, one after the other; with --delete OLD is deleted once it is empty.

Everything that is done is in the cluster, so a run that was interrupted goes on
where it was when it is started again. The exit code is 4 while pods remain.`,
		Example:           "  muslinctl ippool migrate old new\n  muslinctl ippool migrate old new --restart --delete",
		Args:              usage(cobra.ExactArgs(2)),
		ValidArgsFunction: t.completePools,
		RunE:              func(c *cobra.Command, args []string) error { return t.runMigrate(c.Context(), args[0], args[1], o) },
	}
	f := c.Flags()
	f.BoolVar(&o.restart, "restart", false, "restart the Deployments, StatefulSets and DaemonSets whose pods remain")
	f.BoolVar(&o.remove, "delete", false, "delete OLD when no pod remains")
	f.DurationVar(&o.timeout, "timeout", 10*time.Minute, "how long to wait for the pods of one owner")
	return c
}

func (t *Tool) runMigrate(ctx context.Context, from, to string, o migrateOptions) error {
	client, err := t.flags.Client()
	if err != nil {
		return err
	}
	m := &migration{tool: t, client: client, from: from}
	if err := m.begin(ctx, to); err != nil {
		return err
	}
	left, err := m.remaining(ctx)
	if err != nil {
		return err
	}
	m.tell(left)
	if o.restart {
		if left, err = m.restartAll(ctx, left, o.timeout); err != nil {
			return err
		}
	}
	if n := total(left); n > 0 {
		return &FindingsError{fmt.Sprintf("%d pod(s) still have addresses of IPPool %s; restart them, or run this again with --restart", n, from)}
	}
	fmt.Fprintf(t.Out, "No pod has an address of IPPool %s any more\n", from)
	if !o.remove {
		return nil
	}
	if err := client.Delete(ctx, kind.MustFind("ippools"), from, "", false); err != nil {
		return err
	}
	fmt.Fprintf(t.Out, "Successfully deleted IPPool %s\n", from)
	return nil
}

type migration struct {
	tool   *Tool
	client *api.Client
	from   string
	cidr   netip.Prefix
}

// owner is what makes pods.
type owner struct{ namespace, kind, name string }

func (o owner) String() string { return o.kind + " " + o.namespace + "/" + o.name }

func total(left map[owner]int) (n int) {
	for _, c := range left {
		n += c
	}
	return n
}

// begin checks the two pools and takes the old one out of use.
func (m *migration) begin(ctx context.Context, to string) error {
	k := kind.MustFind("ippools")
	if m.from == to {
		return api.Usagef("OLD and NEW are the same pool")
	}
	old, err := m.client.Get(ctx, k, m.from)
	if err != nil {
		return err
	}
	next, err := m.client.Get(ctx, k, to)
	if err != nil {
		return err
	}
	if m.cidr, err = netip.ParsePrefix(kind.Text(old, "spec.cidr", "")); err != nil {
		return fmt.Errorf("IPPool %s: spec.cidr: %w", m.from, err)
	}
	other, err := netip.ParsePrefix(kind.Text(next, "spec.cidr", ""))
	switch {
	case err != nil:
		return fmt.Errorf("IPPool %s: spec.cidr: %w", to, err)
	case other.Addr().Is4() != m.cidr.Addr().Is4():
		return api.Usagef("IPPool %s is of another address family than IPPool %s", to, m.from)
	case kind.Text(next, "spec.disabled", "") == "true":
		return api.Usagef("IPPool %s is disabled: pods would find no address", to)
	case kind.Text(old, "spec.disabled", "") == "true":
		fmt.Fprintf(m.tool.Out, "IPPool %s is disabled already\n", m.from)
		return nil
	}
	if _, err := m.client.Patch(ctx, k, m.from, types.MergePatchType, api.Object{"spec": api.Object{"disabled": true}}, false); err != nil {
		return err
	}
	fmt.Fprintf(m.tool.Out, "Disabled IPPool %s: new pods take addresses of IPPool %s\n", m.from, to)
	return nil
}

// remaining counts the pods in the old pool by owner.
func (m *migration) remaining(ctx context.Context) (map[owner]int, error) {
	out := map[owner]int{}
	sets := map[string]owner{}
	var failed error
	_, err := m.client.EachPage(ctx, "/api/v1/pods", api.Select{Fields: "status.phase!=Succeeded,status.phase!=Failed"}, func(pods []api.Object) {
		for _, p := range pods {
			if !m.inside(p) {
				continue
			}
			o, err := m.ownerOf(ctx, p, sets)
			failed = errors.Join(failed, err)
			out[o]++
		}
	})
	return out, errors.Join(err, failed)
}

func (m *migration) inside(pod api.Object) bool {
	ips, _ := kind.At(pod, "status.podIPs").([]any)
	for _, x := range ips {
		e, _ := x.(api.Object)
		if a, err := netip.ParseAddr(kind.Text(e, "ip", "")); err == nil && m.cidr.Contains(a) && kind.Text(pod, "spec.hostNetwork", "") != "true" {
			return true
		}
	}
	return false
}

// ownerOf looks through a ReplicaSet at its Deployment.
func (m *migration) ownerOf(ctx context.Context, pod api.Object, sets map[string]owner) (owner, error) {
	o := owner{kind.Text(pod, "metadata.namespace", ""), "Pod", kind.Text(pod, "metadata.name", "")}
	o.kind, o.name = controller(pod, o.kind, o.name)
	if o.kind != "ReplicaSet" {
		return o, nil
	}
	key := o.namespace + "/" + o.name
	if known, ok := sets[key]; ok {
		return known, nil
	}
	var rs api.Object
	err := m.client.GetPath(ctx, "/apis/apps/v1/namespaces/"+o.namespace+"/replicasets/"+o.name, nil, &rs)
	if apierrors.IsNotFound(err) {
		return o, nil
	}
	o.kind, o.name = controller(rs, o.kind, o.name)
	sets[key] = o
	return o, err
}

func controller(obj api.Object, kindName, name string) (string, string) {
	refs, _ := kind.At(obj, "metadata.ownerReferences").([]any)
	for _, x := range refs {
		if r, _ := x.(api.Object); r["controller"] == true {
			return kind.Text(r, "kind", ""), kind.Text(r, "name", "")
		}
	}
	return kindName, name
}

func (m *migration) tell(left map[owner]int) {
	rows := map[string]string{}
	for o, n := range left {
		rows[o.String()] = fmt.Sprintf("  %s: %d pod(s) remain", o, n)
	}
	for _, k := range sortedKeys(rows) {
		fmt.Fprintln(m.tool.Out, rows[k])
	}
}

// restartable are the kinds with a pod template that a restart can be asked of.
var restartable = map[string]string{"Deployment": "deployments", "StatefulSet": "statefulsets", "DaemonSet": "daemonsets"}

// restartAll restarts owner after owner and waits for each.
func (m *migration) restartAll(ctx context.Context, left map[owner]int, timeout time.Duration) (map[owner]int, error) {
	names := map[string]owner{}
	for o := range left {
		names[o.String()] = o
	}
	for _, name := range sortedKeys(names) {
		o := names[name]
		plural := restartable[o.kind]
		if plural == "" {
			fmt.Fprintf(m.tool.Err, "%s cannot be restarted by a template; delete its pods\n", o)
			continue
		}
		path := strings.Join([]string{"/apis/apps/v1/namespaces", o.namespace, plural, o.name}, "/")
		stamp := api.Object{"kubectl.kubernetes.io/restartedAt": time.Now().UTC().Format(time.RFC3339)}
		if err := m.client.MergePath(ctx, path, api.Object{"spec": api.Object{"template": api.Object{"metadata": api.Object{"annotations": stamp}}}}); err != nil {
			return nil, fmt.Errorf("restart %s: %w", o, err)
		}
		fmt.Fprintf(m.tool.Out, "Restarting %s\n", o)
		if err := m.await(ctx, o, timeout); err != nil {
			return nil, err
		}
	}
	return m.remaining(ctx)
}

// await waits until no pod of an owner is in the old pool.
func (m *migration) await(ctx context.Context, o owner, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	last := -1
	for {
		left, err := m.remaining(ctx)
		if err != nil {
			return err
		}
		if left[o] == 0 {
			return nil
		}
		if left[o] != last {
			last = left[o]
			fmt.Fprintf(m.tool.Out, "  %s: %d pod(s) remain\n", o, last)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return fmt.Errorf("%s: %d pod(s) still have addresses of IPPool %s after %s; run this again to go on", o, last, m.from, timeout)
		}
	}
}
