package app

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	rbac "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
)

// PasswordRole is the Role, in Muslin's namespace, by which agents read the Secrets
// of BGP passwords, each by its name. The manifests bind it.
const PasswordRole = "muslin-passwords"

const rolesPath = "/apis/rbac.authorization.k8s.io/v1/namespaces/" + kube.SystemNamespace + "/roles"

// passwordRules let somebody read the Secrets that BGP passwords refer to, and no
// other: nothing when there are none. It is pure.
func passwordRules(s model.Snapshot) []rbac.PolicyRule {
	var names []string
	note := func(p *model.PasswordRef) {
		if p != nil {
			names = append(names, p.SecretName)
		}
	}
	for _, b := range s.BGP {
		note(b.MeshPassword)
	}
	for _, p := range s.Peers {
		note(p.Password)
	}
	if len(names) == 0 {
		return []rbac.PolicyRule{}
	}
	slices.Sort(names)
	return []rbac.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: slices.Compact(names), Verbs: []string{"get", "list", "watch"}}}
}

// grant keeps PasswordRole, and looks at what it has when the names change and now
// and then.
func (c *Controller) grant(ctx context.Context) (again time.Duration, err error) {
	want := passwordRules(c.Cluster.Snapshot())
	if c.granted != nil && same(c.granted, want) && c.Now().Sub(c.grantedAt) < lookAgain {
		return lookAgain, nil
	}
	changed, err := c.Objects.writeRole(ctx, want)
	if err != nil {
		return retryAfter, err
	}
	if changed {
		c.Logger.Info("agents may read these Secrets, for BGP passwords", "role", PasswordRole, "rules", want)
	}
	c.granted, c.grantedAt = want, c.Now()
	return lookAgain, nil
}

func same(a, b []rbac.PolicyRule) bool {
	return slices.EqualFunc(a, b, func(x, y rbac.PolicyRule) bool {
		return slices.Equal(x.APIGroups, y.APIGroups) && slices.Equal(x.Resources, y.Resources) &&
			slices.Equal(x.ResourceNames, y.ResourceNames) && slices.Equal(x.Verbs, y.Verbs)
	})
}

// writeRole makes or changes PasswordRole, unless it is so already. Without rules
// none is made.
func (o *Objects) writeRole(ctx context.Context, rules []rbac.PolicyRule) (changed bool, err error) {
	role := rbac.Role{
		TypeMeta:   metav1.TypeMeta{APIVersion: rbac.SchemeGroupVersion.String(), Kind: "Role"},
		ObjectMeta: metav1.ObjectMeta{Name: PasswordRole, Namespace: kube.SystemNamespace}, Rules: rules,
	}
	verb, path := http.MethodPut, rolesPath+"/"+PasswordRole
	data, err := fetch(ctx, o.client.Get().AbsPath(path).SetHeader("Accept", jsonType))
	switch {
	case apierrors.IsNotFound(err):
		if len(rules) == 0 {
			return false, nil
		}
		verb, path = http.MethodPost, rolesPath
	case err != nil:
		return false, fmt.Errorf("get Role %s: %w", PasswordRole, err)
	default:
		var have rbac.Role
		if err := json.Unmarshal(data, &have); err != nil {
			return false, fmt.Errorf("read Role %s: %w", PasswordRole, err)
		}
		if same(have.Rules, rules) {
			return false, nil
		}
		role.ObjectMeta = have.ObjectMeta
	}
	body, err := json.Marshal(role)
	if err != nil {
		return false, fmt.Errorf("encode Role %s: %w", PasswordRole, err)
	}
	_, err = fetch(ctx, o.client.Verb(verb).AbsPath(path).SetHeader("Content-Type", jsonType).SetHeader("Accept", jsonMeta).Body(body))
	if err != nil {
		return false, fmt.Errorf("write Role %s: %w", PasswordRole, err)
	}
	return true, nil
}
