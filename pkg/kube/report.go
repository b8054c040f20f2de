package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/validate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// Reported is an object whose status carries conditions.
type Reported struct {
	Ref  model.Ref
	Meta Meta
}

// Reported gives the objects that get conditions: BGP objects, FelixConfigurations,
// IPPools, and with Options.Policy those of policy, kind by kind and sorted by name.
func (c *Cluster) Reported() []Reported {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Reported
	out = append(out, metas("BGPConfiguration", c.bgp)...)
	out = append(out, metas("BGPFilter", c.filters)...)
	out = append(out, metas("BGPPeer", c.peers)...)
	out = append(out, metas("FelixConfiguration", c.felix)...)
	out = append(out, c.policies.reported()...)
	return append(out, metas("IPPool", c.pools)...)
}

// Unconditional gives the objects of kinds that have no conditions: their
// problems are told by events.
func (c *Cluster) Unconditional() []Reported {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Reported
	out = append(out, metas("ClusterInformation", c.locked)...)
	out = append(out, metas("IPAMConfiguration", c.ipam)...)
	out = append(out, metas("IPReservation", c.reserved)...)
	if c.policies.on {
		out = append(out, metas(model.KindKubernetesPolicy, c.policies.of[0])...)
	}
	if c.settings != nil {
		out = append(out, metas("KubeControllersConfiguration", c.settings)...)
	}
	return out
}

func metas[T any](kind string, t *table[T]) []Reported {
	out := make([]Reported, 0, len(t.rows))
	for _, key := range sortedKeys(t.rows) {
		ref := model.Ref{Kind: kind, Name: key}
		if namespace, name, ok := strings.Cut(key, "/"); ok {
			ref.Namespace, ref.Name = namespace, name
		}
		out = append(out, Reported{ref, t.rows[key].meta})
	}
	return out
}

// AgedPools gives the pools with the times of their creation and what else uses
// their addresses, for the rules of package validate.
func (c *Cluster) AgedPools() []validate.Pool {
	used := validate.AllInUse(c.Snapshot())
	c.mu.Lock()
	defer c.mu.Unlock()
	pools := c.agedPools()
	for i := range pools {
		pools[i].InUse = validate.Overlapping(pools[i].Pool, used)
	}
	return pools
}

func (c *Cluster) agedPools() []validate.Pool {
	out := make([]validate.Pool, 0, len(c.pools.rows))
	for _, name := range sortedKeys(c.pools.rows) {
		if r := c.pools.rows[name]; r.ok {
			out = append(out, validate.Pool{Pool: r.value, Created: r.meta.Created})
		}
	}
	return out
}

// assigned is what addresses are assigned of, and what is left out.
type assigned struct {
	pools    []model.Pool
	reserved []netip.Prefix
}

// subnets is another revision once a node has another address, or comes or goes: most
// of what changes of nodes is something else.
func (c *Cluster) subnets(nodes []model.Node) revision {
	same := len(nodes) == len(c.parts.nodes)
	for i := 0; same && i < len(nodes); i++ {
		a, b := &nodes[i], &c.parts.nodes[i]
		same = a == b || a.Name == b.Name && a.IPv4 == b.IPv4 && a.IPv6 == b.IPv6
	}
	if !same {
		c.parts.subnets++
	}
	c.parts.nodes = nodes
	return c.parts.subnets
}

// assigned takes pools out of allocation that overlap an older one, and of
// the others what something else uses, without waiting for the controller to say
// so. The caller holds mu.
func (c *Cluster) assigned(s model.Snapshot) assigned {
	out := assigned{slices.Clone(s.Pools), slices.Concat(c.reserved.values()...)}
	overlaps, used := validate.Overlaps(c.agedPools()), validate.AllInUse(s)
	for i := range out.pools {
		p := &out.pools[i]
		hit := validate.Overlapping(*p, used)
		p.Excluded = validate.Exclude(hit)
		out.reserved = append(out.reserved, validate.Peers(hit)...)
		if _, bad := overlaps[p.Name]; bad || validate.WhollyExcluded(p.CIDR, p.Excluded) {
			p.Allocatable = false
		}
	}
	slices.SortFunc(out.reserved, netip.Prefix.Compare)
	out.reserved = slices.Compact(out.reserved)
	return out
}

// PatchConditions replaces the conditions of an object that Reported gives. It is a
// merge patch guarded by the UID, so that an object made anew under the same
// name is not written to; an object that is gone is no error.
func (c *Cluster) PatchConditions(ctx context.Context, r Reported, conditions []metav1.Condition) error {
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": r.Meta.UID},
		"status":   map[string]any{"conditions": conditions},
	})
	if err != nil {
		return fmt.Errorf("encode conditions of %s: %w", r.Ref, err)
	}
	servers, resource := []*rest.RESTClient{c.v3}, resources[r.Ref.Kind]
	if r.Ref.Kind == model.KindClusterPolicy {
		servers, resource = c.policy[:], clusterPolicies
	}
	for _, server := range servers {
		err = server.Patch(types.MergePatchType).NamespaceIfScoped(r.Ref.Namespace, r.Ref.Namespace != "").Resource(resource).Name(r.Ref.Name).
			SubResource("status").Body(body).Do(ctx).Error()
		if !apierrors.IsNotFound(err) {
			break // a version that is not served is not found either
		}
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write conditions of %s: %w", r.Ref, err)
	}
	return nil
}

// CreateDefault makes an object of a v3 kind unless one of that name exists. It
// reports whether it made one.
func (c *Cluster) CreateDefault(ctx context.Context, kind, name string, spec any) (created bool, err error) {
	raw, err := json.Marshal(spec)
	if err != nil {
		return false, fmt.Errorf("encode %s %s: %w", kind, name, err)
	}
	o := &object{
		TypeMeta:   metav1.TypeMeta{APIVersion: GroupVersion.String(), Kind: kind},
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: raw,
	}
	body, err := json.Marshal(o)
	if err != nil {
		return false, fmt.Errorf("encode %s %s: %w", kind, name, err)
	}
	if created, err = c.Create(ctx, kind, body); err != nil {
		return false, fmt.Errorf("create %s %s: %w", kind, name, err)
	}
	return created, nil
}

// Create makes a cluster-scoped object of a v3 kind, given as JSON, unless one of
// its name exists. It reports whether it made one. A field that the kind does not
// have is an error, which is the server's (k8s.io/apimachinery/pkg/api/errors).
func (c *Cluster) Create(ctx context.Context, kind string, body []byte) (created bool, err error) {
	resource, ok := resources[kind]
	if !ok {
		return false, fmt.Errorf("%s is no kind that is known here", kind)
	}
	err = c.v3.Post().Resource(resource).Param("fieldValidation", metav1.FieldValidationStrict).Body(body).Do(ctx).Error()
	if apierrors.IsAlreadyExists(err) {
		return false, nil
	}
	return err == nil, err
}

// NodeExists asks the server whether a node exists.
func (c *Cluster) NodeExists(ctx context.Context, name model.NodeName) (bool, error) {
	err := c.core.Get().Resource("nodes").Name(string(name)).Do(ctx).Error()
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("get node %s: %w", name, err)
	}
	return true, nil
}

func sortedBlocks(blocks []model.Block) []model.Block {
	slices.SortFunc(blocks, func(a, b model.Block) int { return a.CIDR.Compare(b.CIDR) })
	return blocks
}
