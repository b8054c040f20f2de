package kubetest

import (
	"fmt"

	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// LargePolicy is one of the policies of a large cluster, three to a namespace: by number, pods
// of app-0, app-1 or app-2 of namespace-N that two other kinds of its pods may reach.
func LargePolicy(i int) *networking.NetworkPolicy {
	peer := func(app string) networking.NetworkPolicyPeer {
		return networking.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}}
	}
	return &networking.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: fmt.Sprint("namespace-", i/3), Name: fmt.Sprint("policy-", i), UID: "0c6d0f4e-0000-0000-0000-000000000000"},
		Spec: networking.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprint("app-", i%3)}}, PolicyTypes: []networking.PolicyType{networking.PolicyTypeIngress},
			Ingress: []networking.NetworkPolicyIngressRule{{From: []networking.NetworkPolicyPeer{peer("web"), peer("batch")}}},
		},
	}
}
