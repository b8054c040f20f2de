package app

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"

	"github.com/muslin-net/muslin/pkg/model"
)

// Names of the pools that are made when there is none, as Calico names them.
const (
	defaultPoolV4 = "default-ipv4-ippool"
	defaultPoolV6 = "default-ipv6-ippool"
)

// Defaults say which pools are made in a cluster without any.
type Defaults struct {
	IPv4Pool, IPv6Pool netip.Prefix // the zero value: none
}

// defaultObject is an object that is made when it is absent.
type defaultObject struct {
	kind, name string
	spec       map[string]any
}

// objects gives what a cluster without it should have. Calico's tools read
// ClusterInformation and KubeControllersConfiguration without asking whether
// they exist. It is pure but for guid, which names a new cluster.
func (d Defaults) objects(s model.Snapshot, guid string) []defaultObject {
	out := []defaultObject{
		{"ClusterInformation", "default", map[string]any{"clusterGUID": guid, "clusterType": "k8s,bgp,kdd", "datastoreReady": true}},
		{"KubeControllersConfiguration", "default", map[string]any{"controllers": map[string]any{
			"node":         map[string]any{"reconcilerPeriod": "5m", "leakGracePeriod": "15m"},
			"loadBalancer": map[string]any{"assignIPs": "AllServices"},
		}}},
		{"IPAMConfiguration", "default", map[string]any{"strictAffinity": false, "autoAllocateBlocks": true}},
		{"BGPConfiguration", "default", map[string]any{"asNumber": uint32(model.DefaultASN), "nodeToNodeMeshEnabled": true}},
	}
	for _, t := range model.BuiltinTiers() {
		action := "Deny"
		if t.Pass {
			action = "Pass"
		}
		out = append(out, defaultObject{"Tier", t.Name, map[string]any{"order": t.Order, "defaultAction": action}})
	}
	if len(s.Pools) > 0 {
		return out
	}
	if d.IPv4Pool.IsValid() {
		out = append(out, defaultObject{"IPPool", defaultPoolV4, map[string]any{
			"cidr": d.IPv4Pool.String(), "blockSize": min(32, max(26, d.IPv4Pool.Bits())), "natOutgoing": true, "nodeSelector": "all()",
		}})
	}
	if d.IPv6Pool.IsValid() {
		out = append(out, defaultObject{"IPPool", defaultPoolV6, map[string]any{
			"cidr": d.IPv6Pool.String(), "blockSize": max(122, d.IPv6Pool.Bits()), "natOutgoing": false, "nodeSelector": "all()",
		}})
	}
	return out
}

// makeDefaults makes what of d is absent and goes on after an error.
func (c *Controller) makeDefaults(ctx context.Context, d Defaults) error {
	guid := make([]byte, 16)
	if _, err := rand.Read(guid); err != nil {
		return fmt.Errorf("make a cluster GUID: %w", err)
	}
	var errs []error
	for _, o := range d.objects(c.Cluster.Snapshot(), hex.EncodeToString(guid)) {
		made, err := c.Cluster.CreateDefault(ctx, o.kind, o.name, o.spec)
		if made {
			c.Logger.Info("made a default object", "kind", o.kind, "name", o.name)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
