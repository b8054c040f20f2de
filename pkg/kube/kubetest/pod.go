package kubetest

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
)

// ConfigOfPod gives the configuration of a pod of a service account on a node. Its
// token is what the kubelet mounts: bound to the pod, and by it to the node. The
// namespace, the account and the node have to exist; the pod is made, and runs
// nowhere.
func (s *Server) ConfigOfPod(t testing.TB, namespace, account, node string) *rest.Config {
	t.Helper()
	name := account + "-" + node
	s.MustKubectl(t, fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: %s, namespace: %s}, spec: {
  nodeName: %s, serviceAccountName: %s, terminationGracePeriodSeconds: 0, containers: [{name: c, image: none}]}}`,
		name, namespace, node, account), "apply", "-f", "-")
	uid := s.MustKubectl(t, "", "-n", namespace, "get", "pod", name, "-o", "jsonpath={.metadata.uid}")
	c := s.Config()
	c.BearerToken = strings.TrimSpace(s.MustKubectl(t, "", "-n", namespace, "create", "token", account,
		"--bound-object-kind=Pod", "--bound-object-name="+name, "--bound-object-uid="+uid))
	return c
}
