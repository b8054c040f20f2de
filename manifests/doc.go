// Package manifests is the folder of what is installed: `kubectl apply -k
// manifests/`. It holds no Go code beside the tests that apply it to a real
// kube-apiserver.
//
// Footprint: the objects in these files, all in namespace muslin-system or
// named muslin-*, and the CRDs of group projectcalico.org.
package manifests
