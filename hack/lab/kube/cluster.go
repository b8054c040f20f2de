// Package kube is a Kubernetes cluster on the machines of a lab: certificates, the
// control plane, full nodes and light ones, images, and the administrator's access.
// It knows nothing of pod networks.
package kube

import (
	"context"
	"net/netip"
	"os"

	"github.com/muslin-net/muslin/hack/lab/machine"
	"github.com/muslin-net/muslin/hack/lab/topology"
	"github.com/muslin-net/muslin/pkg/task"
)

// Cluster is the cluster of one lab, up or not.
type Cluster struct {
	*API
	light Light
	note  func(format string, args ...any)
}

// New returns the cluster on a site's machines; note takes what it is busy with.
func New(site *machine.Site, light Light, note func(format string, args ...any)) *Cluster {
	return &Cluster{&API{site}, light, note}
}

// DNS is the name server of pods. Nobody serves there until somebody makes a Service with that address.
func (c *Cluster) DNS() netip.Addr { return dns(c.site.Fabric.Topology) }

// WriteDisks issues all certificates, and writes the administrator's kubeconfig
// and the disks of the control plane and the nodes.
func (c *Cluster) WriteDisks() error {
	authority, err := newAuthority(c.site.Fabric.Lab + "-lab")
	if err != nil {
		return err
	}
	d := &disks{c.site, c.site.Fabric.Topology, c.light, authority}
	admin, err := d.kubeconfig(identity{name: "lab-admin", groups: []string{"system:masters"}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.Kubeconfig(), []byte(admin), 0o600); err != nil {
		return err
	}
	if err := d.controlPlane(); err != nil {
		return err
	}
	for _, node := range d.topology.Nodes {
		write := d.fullNode
		if node.Kind == topology.Light {
			write = d.lightNode
		}
		if err := write(node); err != nil {
			return err
		}
	}
	return nil
}

// StartControlPlane starts the control plane and waits until the API server is
// ready.
func (c *Cluster) StartControlPlane(ctx context.Context) error {
	return c.site.Start(ctx, []string{c.site.Fabric.Topology.ControlPlane.Name})
}

// StartFullNodes starts the full nodes and waits until all are registered, and
// until the default service account exists, without which no pod can be made.
func (c *Cluster) StartFullNodes(ctx context.Context) error {
	names := c.site.Fabric.Topology.NodesOf(topology.Full)
	if err := c.site.Start(ctx, names); err != nil {
		return err
	}
	for _, name := range names {
		c.note("waiting for %s to register", name)
		log := func() string { return c.site.Machine(name).LogTail("kubelet.log") }
		if err := c.waitObject(ctx, "/api/v1/nodes/"+name, log); err != nil {
			return err
		}
	}
	c.note("waiting for the default service account")
	log := func() string { return c.ControlPlane().LogTail("kube-controller-manager.log") }
	if err := c.waitObject(ctx, "/api/v1/namespaces/default/serviceaccounts/default", log); err != nil {
		return err
	}
	c.note("%d registered", len(names))
	return nil
}

// StartLightNodes registers the light nodes, starts them, and waits until the
// keeper has made them Ready.
func (c *Cluster) StartLightNodes(ctx context.Context) error {
	names := c.site.Fabric.Topology.NodesOf(topology.Light)
	if len(names) == 0 {
		c.note("there are none")
		return nil
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	if err := task.Each(machine.Parallel, names, func(name string) error {
		node, _ := c.site.Machine(name).Node()
		return register(ctx, client, node)
	}); err != nil {
		return err
	}
	return c.site.Start(ctx, names)
}
