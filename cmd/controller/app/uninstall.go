package app

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/muslin-net/muslin/pkg/kube"
)

// uninstalling tells that Muslin itself is being deleted. Its finalizers have
// to go then, and at once: kubectl deletes the CRDs, which wait for the pools,
// and a moment later the rights of this process.
type uninstalling struct {
	flag    atomic.Bool
	changed chan struct{}
}

func (u *uninstalling) init()     { u.changed = make(chan struct{}, 1) }
func (u *uninstalling) yes() bool { return u.flag.Load() }

func (u *uninstalling) set() {
	u.flag.Store(true)
	select {
	case u.changed <- struct{}{}:
	default:
	}
}

// watchUninstall watches the CRD of IPPools until ctx ends.
func (c *Controller) watchUninstall(ctx context.Context) {
	c.Objects.keepFollowing(ctx, crdPath, "ippools.projectcalico.org", func(w watched) {
		if w.gone {
			c.uninstalling.set()
			c.dropFinalizers(ctx)
		}
	})
}

// leave is called when this replica stops working. If that is because Muslin
// is being removed, the finalizers go first.
func (c *Controller) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if !c.uninstalling.yes() {
		if going, err := c.Objects.deploymentGoes(ctx); err != nil || !going {
			if err != nil {
				c.Logger.Warn("cannot tell whether this is an uninstall; finalizers of pools stay", "error", err)
			}
			return nil
		}
		c.uninstalling.set()
	}
	c.dropFinalizers(ctx)
	return nil
}

// dropFinalizers takes the finalizer from every pool.
func (c *Controller) dropFinalizers(ctx context.Context) {
	for _, f := range finalizers(c.Cluster.Reported(), func(string) *bool { return nil }, true) {
		if err := c.Objects.finalize(ctx, f); err != nil {
			c.Logger.Error("finalizer of a pool could not be removed", "pool", f.pool, "finalizer", PoolFinalizer, "error", err)
		}
	}
}

// lastingRights names the ClusterRole and the ClusterRoleBinding that outlive
// those of the manifests.
const lastingRights = "muslin-controller-finalizer"

// makeLastingRights lets the controller write pools for as long as their CRD
// exists. Who deletes all of Muslin at once deletes the CRDs, which then wait
// for the pools' finalizers, and in the same breath the rights to remove them.
// These belong to the CRD, so that the cluster deletes them after it, and to no
// manifest. They grant nothing that the controller does not have.
func (o *Objects) makeLastingRights(ctx context.Context) error {
	const rbac = "/apis/rbac.authorization.k8s.io/v1/"
	data, err := fetch(ctx, o.client.Get().AbsPath(crdPath+"/ippools.projectcalico.org").SetHeader("Accept", jsonMeta))
	if err != nil {
		return fmt.Errorf("get the CRD of IPPools: %w", err)
	}
	var crd struct {
		Metadata struct {
			UID string `json:"uid"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(data, &crd); err != nil {
		return fmt.Errorf("read the CRD of IPPools: %w", err)
	}
	metadata := map[string]any{"name": lastingRights, "ownerReferences": []any{map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "name": "ippools.projectcalico.org", "uid": crd.Metadata.UID,
	}}}
	for _, object := range []map[string]any{ // the role first, which the binding needs
		{"kind": "ClusterRole", "rules": []any{map[string]any{
			"apiGroups": []string{"projectcalico.org"}, "resources": []string{"ippools"}, "verbs": []string{"get", "patch"},
		}}},
		{
			"kind":     "ClusterRoleBinding",
			"roleRef":  map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": lastingRights},
			"subjects": []any{map[string]any{"kind": "ServiceAccount", "name": "muslin-controller", "namespace": kube.SystemNamespace}},
		},
	} {
		object["apiVersion"], object["metadata"] = "rbac.authorization.k8s.io/v1", metadata
		body, err := json.Marshal(object)
		if err != nil {
			return fmt.Errorf("encode %s: %w", object["kind"], err)
		}
		_, err = fetch(ctx, o.client.Post().AbsPath(rbac+strings.ToLower(object["kind"].(string))+"s").SetHeader("Content-Type", jsonType).SetHeader("Accept", jsonMeta).Body(body))
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create %s %s: %w", object["kind"], lastingRights, err)
		}
	}
	return nil
}

// deploymentGoes reports whether the Deployment of the controller exists no
// more, or is being deleted, or its namespace is.
func (o *Objects) deploymentGoes(ctx context.Context) (bool, error) {
	for _, path := range []string{
		"/apis/apps/v1/namespaces/" + kube.SystemNamespace + "/deployments/muslin-controller",
		"/api/v1/namespaces/" + kube.SystemNamespace,
	} {
		going, err := o.goes(ctx, path)
		if going || err != nil {
			return going, err
		}
	}
	return false, nil
}

func (o *Objects) goes(ctx context.Context, path string) (bool, error) {
	data, err := fetch(ctx, o.client.Get().AbsPath(path).SetHeader("Accept", jsonMeta))
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("get %s: %w", path, err)
	}
	var have struct {
		Metadata struct {
			DeletionTimestamp *time.Time `json:"deletionTimestamp"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(data, &have); err != nil {
		return false, fmt.Errorf("read %s: %w", path, err)
	}
	return have.Metadata.DeletionTimestamp != nil, nil
}
