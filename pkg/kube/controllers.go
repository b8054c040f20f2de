package kube

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/muslin-net/muslin/pkg/model"
	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ControllerSettings are those of KubeControllersConfiguration default.
type ControllerSettings struct {
	// OnlyRequested: controllers.loadBalancer.assignIPs is RequestedServicesOnly.
	OnlyRequested bool
	// HostEndpoints: controllers.node.hostEndpoint.autoCreate is Enabled, and
	// createDefaultHostEndpoint not Disabled.
	HostEndpoints bool
}

// ControllerSettings gives them; false: they are not known yet, or cannot be read and
// never could.
func (c *Cluster) ControllerSettings() (ControllerSettings, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.settings == nil || !c.settings.synced {
		return ControllerSettings{}, false
	}
	r, there := c.settings.rows["default"]
	return r.value, !there || r.ok
}

// readControllers tells what the object says in vain, too.
func readControllers(obj any) reading[ControllerSettings] {
	o := obj.(*object)
	r := newReader("KubeControllersConfiguration", &o.ObjectMeta)
	var spec calico.KubeControllersConfigurationSpec
	r.spec(o, &spec)
	var out ControllerSettings
	if lb := spec.Controllers.LoadBalancer; lb != nil {
		assign := oneOf(r, "spec.controllers.loadBalancer.assignIPs", lb.AssignIPs, string(calico.AllServices), string(calico.RequestedServicesOnly))
		out.OnlyRequested = assign == string(calico.RequestedServicesOnly)
	}
	if node := spec.Controllers.Node; node != nil && node.HostEndpoint != nil {
		const field = "spec.controllers.node.hostEndpoint."
		auto := oneOf(r, field+"autoCreate", node.HostEndpoint.AutoCreate, calico.Disabled, calico.Enabled)
		each := oneOf(r, field+"createDefaultHostEndpoint", node.HostEndpoint.CreateDefaultHostEndpoint,
			string(calico.DefaultHostEndpointsEnabled), string(calico.DefaultHostEndpointsDisabled))
		out.HostEndpoints = auto == calico.Enabled && each == string(calico.DefaultHostEndpointsEnabled)
	}
	return finish(r, out)
}

// LabelCreatedBy has the value CreatedByControllers on the HostEndpoints that the
// controller makes, as on those that Calico's makes.
const (
	LabelCreatedBy       = "projectcalico.org/created-by"
	CreatedByControllers = "calico-kube-controllers"
)

// PutHostEndpoint makes a HostEndpoint, or makes the one of its name like it. One
// without LabelCreatedBy is somebody's own and left as it is: foreign.
func (c *Cluster) PutHostEndpoint(ctx context.Context, e model.HostEndpoint) (foreign bool, err error) {
	o := object{
		TypeMeta:   metav1.TypeMeta{APIVersion: GroupVersion.String(), Kind: model.KindHostEndpoint},
		ObjectMeta: metav1.ObjectMeta{Name: e.Object.Name, Labels: e.Labels},
	}
	spec := calico.HostEndpointSpec{Node: string(e.Node), InterfaceName: e.Interface, ExpectedIPs: model.Texts(e.Addresses), Profiles: e.Profiles}
	if o.Spec, err = json.Marshal(spec); err != nil {
		return false, fmt.Errorf("encode %s: %w", e.Object, err)
	}
	body, err := json.Marshal(&o)
	if err != nil {
		return false, fmt.Errorf("encode %s: %w", e.Object, err)
	}
	made, err := c.Create(ctx, model.KindHostEndpoint, body)
	if made || err != nil {
		return false, wrap(err, "create", e.Object)
	}
	have, foreign, err := c.liveHostEndpoint(ctx, e.Object)
	if have == nil || foreign || err != nil {
		return foreign, err
	}
	have.TypeMeta, have.Labels, have.Spec = o.TypeMeta, o.Labels, o.Spec
	if body, err = json.Marshal(have); err != nil {
		return false, fmt.Errorf("encode %s: %w", e.Object, err)
	}
	err = c.v3.Put().Resource(resources[model.KindHostEndpoint]).Name(have.Name).Body(body).Do(ctx).Error()
	return false, wrap(err, "update", e.Object)
}

// DeleteHostEndpoint deletes one with LabelCreatedBy; one that is gone is no error.
func (c *Cluster) DeleteHostEndpoint(ctx context.Context, ref model.Ref) error {
	have, foreign, err := c.liveHostEndpoint(ctx, ref)
	if have == nil || foreign || err != nil {
		return err
	}
	same := metav1.Preconditions{UID: &have.UID, ResourceVersion: &have.ResourceVersion}
	body, err := json.Marshal(metav1.DeleteOptions{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"}, Preconditions: &same})
	if err != nil {
		return fmt.Errorf("encode the deletion of %s: %w", ref, err)
	}
	err = c.v3.Delete().Resource(resources[model.KindHostEndpoint]).Name(ref.Name).Body(body).Do(ctx).Error()
	if apierrors.IsNotFound(err) {
		return nil
	}
	return wrap(err, "delete", ref)
}

// liveHostEndpoint asks the server itself, not a cache; nil: there is none.
func (c *Cluster) liveHostEndpoint(ctx context.Context, ref model.Ref) (have *object, foreign bool, err error) {
	have = &object{}
	err = c.v3.Get().Resource(resources[model.KindHostEndpoint]).Name(ref.Name).Do(ctx).Into(have)
	if apierrors.IsNotFound(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, wrap(err, "get", ref)
	}
	return have, have.Labels[LabelCreatedBy] != CreatedByControllers, nil
}

func wrap(err error, verb string, ref model.Ref) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", verb, ref, err)
}
