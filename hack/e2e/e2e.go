// Package e2e pins Kubernetes' own end to end suite and the program that its pods
// run. It is a module of its own, of the same version as hack/kubelab; hack/conformance
// builds both.
package e2e

import _ "k8s.io/kubernetes/test/e2e"
