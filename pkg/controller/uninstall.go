package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/muslin-net/muslin/pkg/kube"
)

// uninstalling tells that Muslin itself is being deleted. Its finalizers have
// to go then, and at once: kubectl deletes the CRDs, which wait for the pools,
// and a moment later the rights of this process.
type uninstalling struct {
	flag atomic.Bool
	hint chan struct{}
}

func (u *uninstalling) init()     { u.hint = make(chan struct{}, 1) }
func (u *uninstalling) yes() bool { return u.flag.Load() }

func (u *uninstalling) set() {
	u.flag.Store(true)
	select {
	case u.hint <- struct{}{}:
	default:
	}
}

// watchUninstall watches the CRD of IPPools until ctx ends.
func (o *Objects) watchUninstall(ctx context.Context, u *uninstalling) {
	for ctx.Err() == nil {
		if err := o.followCRD(ctx, u); err != nil && ctx.Err() == nil {
			o.log.Debug("watch of the IPPool CRD ended", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryAfter):
		}
	}
}

func (o *Objects) followCRD(ctx context.Context, u *uninstalling) error {
	body, err := o.client.Get().AbsPath(crdPath).SetHeader("Accept", jsonMeta).
		Param("fieldSelector", "metadata.name=ippools.projectcalico.org").Param("watch", "true").Stream(ctx)
	if err != nil {
		return fmt.Errorf("watch the CRD of IPPools: %w", err)
	}
	defer body.Close()
	decoder := json.NewDecoder(body)
	for {
		var event struct {
			Type   string `json:"type"`
			Object struct {
				Metadata struct {
					DeletionTimestamp *time.Time `json:"deletionTimestamp"`
				} `json:"metadata"`
			} `json:"object"`
		}
		if err := decoder.Decode(&event); err != nil {
			return err
		}
		if event.Type == "DELETED" || event.Object.Metadata.DeletionTimestamp != nil {
			u.set()
		}
	}
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
	if _, err := c.drain(ctx); err != nil {
		c.Logger.Error("finalizers of pools could not be removed", "finalizer", PoolFinalizer, "error", err)
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
