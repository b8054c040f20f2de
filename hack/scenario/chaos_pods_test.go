package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// chaosPod is a pod as its kubelet knows it.
type chaosPod struct {
	name, node string
	end        chan struct{} // closed: it is to go
	ended      bool          // end is closed
	gone       chan struct{} // closed when nothing of it is left
	ip         netip.Addr
}

// startPod has the kubelet of a node run a pod: it does not wait for it.
func (c *chaos) startPod(ctx context.Context, f upset) error {
	p := &chaosPod{name: f.on, node: f.with, end: make(chan struct{}), gone: make(chan struct{})}
	c.mu.Lock()
	c.pods[p.name] = p
	c.mu.Unlock()
	c.kubelets.Go(func() {
		defer close(p.gone)
		if err := c.runPod(ctx, p); err != nil && ctx.Err() == nil {
			c.errorf("pod %s on %s: %v", p.name, p.node, err)
		}
	})
	return nil
}

// endPod tells the kubelet to take a pod away and waits until it has; one that it
// has taken away already is gone.
func (c *chaos) endPod(_ context.Context, f upset) error {
	c.mu.Lock()
	p := c.pods[f.on]
	if p != nil && !p.ended {
		p.ended = true
		close(p.end)
	}
	c.mu.Unlock()
	if p != nil {
		<-p.gone
	}
	return nil
}

// runPod does for one pod what a kubelet and a runtime do, in their order, each
// step until it succeeds.
func (c *chaos) runPod(ctx context.Context, p *chaosPod) error {
	wanted, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-p.end:
			stop()
		case <-wanted.Done():
		}
	}()
	started := c.plugPod(wanted, p)
	if started == nil {
		<-wanted.Done()
	} else if wanted.Err() == nil {
		return started
	}
	c.mu.Lock()
	delete(c.live, p.ip)
	c.mu.Unlock()
	if err := c.persist(ctx, func() error { return c.Pod(p.node, "default", p.name).Delete(ctx) }); err != nil {
		return err
	}
	c.mu.Lock()
	delete(c.pods, p.name)
	c.mu.Unlock()
	return c.persist(ctx, func() error {
		now := int64(0)
		return ignore(apierrors.IsNotFound, c.api.CoreV1().Pods("default").Delete(ctx, p.name, metav1.DeleteOptions{GracePeriodSeconds: &now}))
	})
}

// plugPod makes the object and the network of a pod and reports its address.
func (c *chaos) plugPod(ctx context.Context, p *chaosPod) error {
	pods := c.api.CoreV1().Pods("default")
	object := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: p.name},
		Spec:       corev1.PodSpec{NodeName: p.node, Containers: []corev1.Container{{Name: "c", Image: "none"}}},
	}
	if err := c.persist(ctx, func() error {
		_, err := pods.Create(ctx, object, metav1.CreateOptions{})
		return ignore(apierrors.IsAlreadyExists, err)
	}); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if err := c.persist(ctx, func() error {
		ip, err := c.Pod(p.node, "default", p.name).Add(ctx)
		if err != nil {
			// What is half there goes before the next try, whose namespace is a new one.
			return errors.Join(err, c.Pod(p.node, "default", p.name).Delete(context.WithoutCancel(ctx)))
		}
		c.plugged(p, ip)
		return nil
	}); err != nil {
		return fmt.Errorf("plug: %w", err)
	}
	status := fmt.Appendf(nil, `{"status":{"phase":"Running","podIP":%q,"podIPs":[{"ip":%q}]}}`, p.ip, p.ip)
	return c.persist(ctx, func() error {
		_, err := pods.Patch(ctx, p.name, types.MergePatchType, status, metav1.PatchOptions{}, "status")
		return ignore(apierrors.IsNotFound, err)
	})
}

// plugged notes the address of a pod, which no other pod that lives may have.
func (c *chaos) plugged(p *chaosPod, ip netip.Addr) {
	c.mu.Lock()
	other := c.live[ip]
	p.ip, c.live[ip] = ip, p
	c.mu.Unlock()
	if other != nil {
		c.errorf("%s was given to %s on %s while %s on %s has it", ip, p.name, p.node, other.name, other.node)
	}
}

// livePods are those that have an address.
func (c *chaos) livePods() []*chaosPod {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*chaosPod
	for _, p := range c.live {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *chaosPod) int { return a.ip.Compare(b.ip) })
	return out
}

// endOrphans has kubelets take away the pods whose objects are gone, as those of a
// Node that was away are after some time.
func (c *chaos) endOrphans(ctx context.Context) error {
	list, err := c.api.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, p := range list.Items {
		known[p.Name] = p.DeletionTimestamp == nil
	}
	for _, p := range c.livePods() {
		if !known[p.name] {
			c.logf("the object of pod %s on %s is gone, and so goes the pod", p.name, p.node)
			if err := c.endPod(ctx, upset{on: p.name}); err != nil {
				return err
			}
		}
	}
	return nil
}

// storedPods are the pods that IPAM's blocks name, by address.
func (c *LightCluster) storedPods(ctx context.Context) (map[netip.Addr]string, error) {
	blocks, err := c.ipamBlocks(ctx)
	if err != nil {
		return nil, err
	}
	names := map[netip.Addr]string{}
	for _, b := range blocks {
		ip := b.CIDR.Addr()
		for _, at := range b.Allocations {
			if at != nil {
				names[ip] = b.Attributes[*at].Secondary["pod"]
			}
			ip = ip.Next()
		}
	}
	return names, nil
}

// ipamBlock is as much of a block's spec as stories look at.
type ipamBlock struct {
	CIDR        netip.Prefix
	Affinity    string
	Allocations []*int
	Attributes  []struct{ Secondary map[string]string }
}

func (c *LightCluster) ipamBlocks(ctx context.Context) ([]ipamBlock, error) {
	out, err := c.Kubectl(ctx, "", "get", "ipamblocks.projectcalico.org", "-o", "json", "--request-timeout=20s")
	if err != nil {
		return nil, err
	}
	var list struct{ Items []struct{ Spec ipamBlock } }
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, err
	}
	var blocks []ipamBlock
	for _, item := range list.Items {
		blocks = append(blocks, item.Spec)
	}
	return blocks, nil
}

// chaosPatience bounds what has to succeed once the faults in its way are over:
// it is for ending, not for judging speed.
const chaosPatience = 4 * time.Minute

// persist tries until it succeeds, as kubelets and operators do.
func (c *chaos) persist(ctx context.Context, try func() error) error {
	return c.eventually(ctx, chaosPatience, try)
}
