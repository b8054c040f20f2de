// Package clusterpolicy pins the Network Policy API's conformance suite for
// ClusterNetworkPolicy, with the CRD that it is about. It is a module of its own;
// hack/conformance builds the suite.
package clusterpolicy

import (
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	_ "sigs.k8s.io/controller-runtime/pkg/client/config"
	_ "sigs.k8s.io/network-policy-api/conformance/tests"
	_ "sigs.k8s.io/network-policy-api/conformance/utils/flags"
)
